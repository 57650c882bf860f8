#!/bin/sh
# Practise an upgrade on copies of a deployment, which goes on: two services of the old version behind nginx are
# replaced by the new one, one after the other, under load.
#   upgrade-drill.sh REGISTRY STATE OLD NEW    OLD, NEW: the command `mgoe` of either version
# Ends with 0 if no request has failed and every event counts once.
set -eu
[ $# -eq 4 ] || { echo "usage: upgrade-drill.sh REGISTRY STATE OLD NEW" >&2; exit 2; }
. "$(dirname "$0")/drill.sh"
old=$3 new=$4 place=$work/copy
one=$(free_port) two=$(free_port) front=$(free_port)
url=http://127.0.0.1:$front

first_backup "$1" "$2"
restored "$work/backup" "$place"
serve "$old" "$one" "$place"
first=$pid
await "http://127.0.0.1:$one"
held=$(figure "http://127.0.0.1:$one" mgoe_live_events)
serve "$old" "$two" "$place"
second=$pid
await "http://127.0.0.1:$two"
sed -e "s/8001/$one/" -e "s/8002/$two/" -e "s/8080/$front/" -e "s|/var/log/nginx|$work|" \
    "$here/redis/nginx.conf" >"$work/site.conf"
cat >"$work/nginx.conf" <<END
daemon off; user $(id -un) $(id -gn); pid $work/nginx.pid; events {}
http {
    client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi; include $work/site.conf;
}
END
start nginx nginx -p "$work" -c "$work/nginx.conf" -e stderr
await "$url"
behavior=$(curl -s "$url/v1/about" | sed 's/.*"behaviors":\["\([^"]*\)".*/\1/')

load() {
    sent=100
    while [ ! -e "$work/enough" ]; do
        sent=$((sent + 1))
        records events $sent $sent "{\"user\": \"9007199254740001\", \"item\": \"90071992&\", \"behavior\": \"$behavior\", \"id\": \"drill-&\"}" |
            curl -s -o "$work/answer" -w '%{http_code}\n' "$url/v1/events" -d @- >>"$work/events"
        curl -s -o "$work/answer" -w '%{http_code}\n' "$url/v1/rank" -d '{"user": 1, "k": 3}' >>"$work/rankings"
    done
}

# replace NUMBER PORT: end a service as systemd does, and start its successor
replace() {
    version=$(curl -s "http://127.0.0.1:$2/openapi.json" | sed 's/.*"version":"\([^"]*\)".*/\1/')
    kill "$1"
    wait "$1" || true
    serve "$new" "$2" "$place"
    await "http://127.0.0.1:$2"
    sleep 3 # nginx leaves a server out for `fail_timeout`, two seconds, after it did not answer
    echo "port $2: $version, then $(curl -s "http://127.0.0.1:$2/openapi.json" | sed 's/.*"version":"\([^"]*\)".*/\1/')"
}

load &
loading=$!
replace "$first" "$one"
replace "$second" "$two"
touch "$work/enough"
wait $loading
events=$(wc -l <"$work/events")
failed=$(cat "$work/events" "$work/rankings" | grep -vc '^200$') || true
[ "$failed" -eq 0 ] || fail "$failed of $((2 * events)) requests failed"
for port in "$one" "$two"; do
    tries=0
    until [ "$(figure "http://127.0.0.1:$port" mgoe_live_events)" -eq $((held + events)) ]; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || fail "port $port counts $(figure "http://127.0.0.1:$port" mgoe_live_events) events, not $((held + events))"
        sleep 0.1
    done
done
echo "$((2 * events)) requests, none failed; $events events, each counted once"
