#!/bin/sh
# Put back what backup.sh has copied. Stop services, cycle and Redis first, and set aside what is left of them:
#   restore.sh BACKUP REGISTRY STATE   STATE: the state folder, or the folder of Redis (`dir` of redis.conf)
# The store comes first and the registry second, so no version is there without the events that it has learned.
# Events after the backup are gone: send them again if a queue still has them; what is known counts once. Users in
# REGISTRY.erased.json, which is in no backup, are erased again; for that `mgoe` must be in PATH.
set -eu
[ $# -eq 3 ] || { echo "usage: restore.sh BACKUP REGISTRY STATE" >&2; exit 2; }
backup=$1 registry=$2 state=$3
[ -e "$backup/registry/.aliases" ] || { echo "restore.sh: $backup is no backup; name what backup.sh wrote" >&2; exit 2; }
for place in "$registry" "$state/log.sqlite" "$state/answers" "$state/appendonlydir"; do
    [ ! -e "$place" ] || { echo "restore.sh: $place is there; set it aside, so that nothing is mixed" >&2; exit 2; }
done

mkdir -p "$state"
if [ -e "$backup/store.rdb" ]; then # Redis reads its append-only file alone, whose base this becomes
    mkdir "$state/appendonlydir"
    cp "$backup/store.rdb" "$state/appendonlydir/appendonly.aof.1.base.rdb"
    echo "file appendonly.aof.1.base.rdb seq 1 type b" >"$state/appendonlydir/appendonly.aof.manifest"
else
    cp "$backup/log.sqlite" "$state/log.sqlite.part"
    mv "$state/log.sqlite.part" "$state/log.sqlite"
    [ ! -e "$backup/answers" ] || cp -R "$backup/answers" "$state/answers"
fi
cp -a "$backup/registry" "$registry.part"
mv "$registry.part" "$registry"
sync -f "$state" "$registry"
if [ -e "$registry.erased.json" ]; then
    if [ -e "$state/log.sqlite" ]; then
        mgoe erase --registry "$registry" --state "$state" >&2
    else
        echo "restore.sh: start Redis, and before the services run: mgoe erase --registry $registry --redis URL --redis-password-file FILE" >&2
    fi
fi
if [ "$(id -u)" = 0 ]; then # as whom the services run
    chown -R --reference="$(dirname "$registry")" "$registry" "$state"
fi
echo "$registry $state"
