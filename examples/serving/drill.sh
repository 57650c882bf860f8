# What both drills share. Read it with `.` after `set -eu`; `mgoe`, its `python` and curl must be in PATH.
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
running=""
unset MGOE_TOKEN
trap 'kill $running 2>/dev/null || true; wait; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

fail() {
    echo "$(basename "$0"): $*" >&2
    tail -n 5 "$work"/*.log >&2
    exit 1
}

free_port() {
    python -c 'import socket; one = socket.socket(); one.bind(("127.0.0.1", 0)); print(one.getsockname()[1])'
}

# start NAME COMMAND...: run it, and leave its number in $pid
start() {
    name=$1
    shift
    "$@" >>"$work/$name.log" 2>&1 &
    pid=$!
    running="$running $pid"
}

# await URL: until the service can rank and has nothing left to prepare
await() {
    tries=0
    until curl -s "$1/readyz" >"$work/ready" && grep -q '"ready"' "$work/ready" && ! grep -q starting "$work/ready"; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || fail "$1 does not become ready"
        sleep 0.2
    done
}

# first_backup REGISTRY STATE: back up a deployment; its copies have its prefix on Redis, and no password
first_backup() {
    sh "$here/backup.sh" "$1" "$2" "$work/backup" >/dev/null
    unset MGOE_REDIS_PASSWORD
    prefix=$(echo "$2" | sed -n 's/.*?.*\(prefix=[^&]*\).*/?\1/p')
}

# restored BACKUP PLACE: restore a backup below a folder, and leave in $store where its events are
restored() {
    mkdir "$2"
    store=$2/state
    sh "$here/restore.sh" "$1" "$2/registry" "$store" >/dev/null
    if [ -e "$1/store.rdb" ]; then
        port=$(free_port)
        sed -e "s|^dir .*|dir $store|" -e "s/^port .*/port $port/" "$here/redis/redis.conf" >"$2/redis.conf"
        start redis redis-server "$2/redis.conf"
        redis=$pid store=redis://127.0.0.1:$port/0$prefix
        tries=0
        until redis-cli -p "$port" ping 2>/dev/null | grep -q PONG; do
            tries=$((tries + 1))
            [ $tries -lt 3000 ] || fail "Redis does not start"
            sleep 0.2
        done
    fi
}

# serve MGOE PORT PLACE: start a service on what was restored there, whose number is in $pid
serve() {
    case $store in
    *://*) set -- "$@" --redis "$store" --state "$3/state-$2" ;;
    *) set -- "$@" --state "$store" ;;
    esac
    mgoe=$1 port=$2 place=$3
    shift 3
    start "mgoe-$port" "$mgoe" serve "$place/registry/current" --port "$port" --no-access-log "$@"
}

# figure URL NAME: a figure of /metrics, as a whole number
figure() {
    curl -s "$1/metrics" | sed -n "s/^$2 \([0-9]*\).*/\1/p"
}

# post URL: send the body of standard input to /v1/events, and print how many records were accepted
post() {
    curl -s "$1/v1/events" -d @- | sed -n 's/.*"accepted":\([0-9]*\).*/\1/p'
}

# records KIND FIRST LAST FORM: a body with one record per number, which stands in the place of & in the form
records() {
    seq "$2" "$3" | sed "s/.*/$4/" | paste -sd, | sed "s/.*/{\"$1\": [&]}/"
}
