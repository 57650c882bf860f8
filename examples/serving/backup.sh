#!/bin/sh
# Back up a registry, and the live events and logged answers of its services, which go on meanwhile:
#   backup.sh REGISTRY STATE OUT       STATE: a state folder, or redis://HOST:PORT/0 (MGOE_REDIS_PASSWORD)
# The registry is copied first and the store second, so the store holds everything that a copied version says it
# has learned of it. No cycle runs meanwhile, since it removes old versions and trims the store; one that begins
# says so and ends, and the next one resumes. `mgoe` and the `python` it runs on must be in PATH.
set -eu
[ $# -eq 3 ] || { echo "usage: backup.sh REGISTRY STATE OUT" >&2; exit 2; }
registry=$1 state=$2 out=$3 lock=$1/..cycle.lock
[ ! -e "$out" ] || { echo "backup.sh: $out is there already; choose another folder" >&2; exit 2; }
aliases=$(readlink "$registry/.aliases") || { echo "backup.sh: $registry holds no registry" >&2; exit 2; }

# held until this script ends, unless the cycle that held it before has just removed the file
until exec 9>>"$lock" && flock --timeout 3600 9 && [ "$lock" -ef /proc/self/fd/9 ]; do sleep 1; done

part=$out.part
rm -rf "$part"
mkdir -p "$part/registry"
aliases=$(readlink "$registry/.aliases")  # first: what it names stays, whatever is promoted while this copies
tar -C "$registry" --exclude=./.aliases --exclude='./.*lock' --exclude=./.cycle -cf - . | tar -C "$part/registry" -xf -
ln -s "$aliases" "$part/registry/.aliases"
case $state in
*://*)
    [ -z "${MGOE_REDIS_PASSWORD:-}" ] || export REDISCLI_AUTH="$MGOE_REDIS_PASSWORD"
    redis-cli -u "${state%%\?*}" --rdb "$part/store.rdb" >/dev/null ;;
*)
    # answers second: each exposure that is copied finds the answer that it names
    python - "$state" "$part" log.sqlite answers/answers.sqlite <<'END' ;;
import os, sqlite3, sys
for name in sys.argv[3:]:
    places = [os.path.join(folder, name) for folder in sys.argv[1:3]]
    if name != "log.sqlite" and not os.path.exists(places[0]):
        continue  # there was no experiment and no shadow
    os.makedirs(os.path.dirname(places[1]), exist_ok=True)
    source, copy = (sqlite3.connect(f"file:{place}?mode={mode}", uri=True) for place, mode in zip(places, ("ro", "rwc")))
    source.backup(copy)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",), f"the copy of {name} is damaged"
END
esac
mgoe describe "$part/registry/current" --json >/dev/null  # which compares every file with its checksum
sync -f "$part"
mv "$part" "$out"
echo "$out"
