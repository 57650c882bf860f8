#!/bin/sh
# Practise a loss on copies of a deployment, which goes on: back up, lose everything, restore, send again.
#   restore-drill.sh REGISTRY STATE    STATE: a state folder, or redis://HOST:PORT/0 (MGOE_REDIS_PASSWORD)
# Ends with 0 if what was backed up is there again and nothing counts twice.
set -eu
[ $# -eq 2 ] || { echo "usage: restore-drill.sh REGISTRY STATE" >&2; exit 2; }
. "$(dirname "$0")/drill.sh"

# open BACKUP NAME: a service at $url on what was restored
open() {
    place=$work/$2 port=$(free_port) redis=""
    url=http://127.0.0.1:$port
    restored "$1" "$place"
    serve mgoe "${url##*:}" "$place"
    await "$url"
}

# send FIRST LAST: records of a user and of items that nobody has
send() {
    user='"user": "9007199254740001", "item": "90071992&"'
    events=$(records events "$1" "$2" "{$user, \"behavior\": \"$behavior\", \"id\": \"drill-&\"}" | post "$url")
    exposures=$(records exposures "$1" "$2" "{$user, \"request\": \"drill-&\"}" | post "$url")
    records labels "$1" "$2" "{\"request\": \"drill-&\", \"item\": \"90071992&\", \"labels\": {\"$behavior\": 1}}" |
        post "$url" >/dev/null
    [ "$events" -eq $(($2 - $1 + 1)) ] || fail "$events of $(($2 - $1 + 1)) events were accepted"
}

# expect N: that many events and exposures more than there were
expect() {
    [ "${exposures:-0}" -gt 0 ] && shown=$1 || shown=0
    now="$(figure "$url" mgoe_live_events) events, $(figure "$url" mgoe_exposures_taken) exposures"
    [ "$now" = "$((held + $1)) events, $((taken + shown)) exposures" ] ||
        fail "there are $now, and there should be $((held + $1)) and $((taken + shown))"
    echo "$2: $now"
}

first_backup "$1" "$2"
open "$work/backup" first
behavior=$(curl -s "$url/v1/about" | sed 's/.*"behaviors":\["\([^"]*\)".*/\1/')
held=$(figure "$url" mgoe_live_events) taken=$(figure "$url" mgoe_exposures_taken)
send 101 120
expect 20 "before the backup"
sh "$here/backup.sh" "$place/registry" "$store" "$work/backup-2" >/dev/null
send 121 130
expect 30 "after it"
kill -9 "$pid" $redis
rm -rf "$place"
open "$work/backup-2" second
expect 20 "restored"
send 101 130
send 101 130
expect 30 "sent again, twice"
