"""`mgoe erase`: removes users from the stores, versions and logs of a deployment, and says what remains.

Everything is removed by the list of erasures, to which new users are added first. So the same command
finishes what was interrupted, and without users it applies the list to what has come back from a backup. An
erasure is no release: the new version is the current one without the users, needs no test, and becomes
current.
"""

import logging
import mmap
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mgoe._util.files import atomic_file, exclusive, remove_folder
from mgoe.bundle import Bundle
from mgoe.bundle.membership import check_deployment, deployment_of
from mgoe.data.arrow import pc, texts
from mgoe.data.erasures import Erasures
from mgoe.data.log_files import files_of, kind_of
from mgoe.errors import ConfigError, DataError
from mgoe.lifecycle.erased_bundle import held_by, stated, user_tables, without
from mgoe.lifecycle.registry import CURRENT, Registry
from mgoe.serving import EventReader, every, open_log
from mgoe.serving.events.answer_log import read_answers
from mgoe.serving.events.event import read_id
from mgoe.serving.events.stores import store_at, with_query

logger = logging.getLogger(__name__)

SEARCHED = 8
"""Fewest characters of an id whose bytes are searched; shorter ones, and numbers, are anywhere by chance."""
OPTION = "--log"


class Deployment(ExitStack):
    """A registry, the stores of its services and files of the log: where users are.

    Args:
        registry: Folder of the registry.
        state: State folder of the service, `REGISTRY/current.state` by default if it is there; or what
            `redis` is.
        redis: Redis server that stores the live events instead.
        log: Parquet files, folders or globs of the log.

    Raises:
        MgoeError: One of them cannot be opened.
    """

    def __init__(
        self,
        registry: Path | str,
        state: Path | str | None,
        redis: str | None = None,
        log: Sequence[str] = (),
    ):
        super().__init__()
        self.registry, self.log = Registry(registry), log
        self.current = Bundle.open(self.registry.place(CURRENT))
        beside = self.registry.path / "current.state"
        own = state if state and not store_at(state) else beside if beside.is_dir() else None
        self.folder = None if own is None else Path(own)
        self.log_of_service, self.answers = None, None
        if self.folder is not None and (answers := read_answers(self.folder)) is not None:
            self.answers = self.enter_context(closing(answers))
        if (where := redis or state or own) is None:
            return
        place = with_query(redis, state=own) if redis else where
        found = self.log_of_service = self.enter_context(closing(open_log(place, make=False)))
        check_deployment(found.place, found.deployment, deployment_of(self.current))

    @property
    def not_reached(self) -> list[str]:
        """What no option names, so that users may still be there."""
        named = {
            "events, exposures and labels (--state or --redis)": self.log_of_service is not None,
            "the log of answers (--state)": self.folder is not None,
            "files of the log (--log)": bool(self.log),
        }
        return [what for what, is_named in named.items() if not is_named]

    @property
    def versions(self) -> list[Bundle]:
        """All versions."""
        return [Bundle.open(self.registry.place(one.name), verify=False) for one in self.registry.versions]

    def texts(self, users: Sequence[str]) -> list[str]:
        """Return ids as the log has them, as texts.

        Raises:
            EventError: An id is not of the log's type.
        """
        kind = EventReader.of(self.current).kinds["user"]
        return sorted({str(read_id(user, kind, "user")) for user in users})

    def holds(self, erasures: Erasures) -> dict[str, Counter[str]]:
        """Return how often each user of a list is in which version, store or file. A version counts a user
        once."""
        found = {str(bundle.path): Counter(held_by(erasures, bundle)) for bundle in self.versions}
        until = erasures.until()
        return found | self.stored(until) | rows_of(self.log, self.current.settings.data.user_column, until)

    def stored(self, until: Mapping[str, int]) -> dict[str, Counter[str]]:
        """Return how often each of some users is in which store, up to a time for each."""
        found = {}
        if (log := self.log_of_service) is not None:
            found["events"] = Counter(str(one.user) for _, one in every(log) if one.is_of(until))
            found["exposures and labels"] = Counter(log.users(until))
        if self.answers is not None:
            found["answers"] = Counter(self.answers.users(until))
        return found

    def erase(self, erasures: Erasures) -> dict[str, int]:
        """Apply a list to the stores. Return the removed records; nothing if none was to be removed."""
        until, number = erasures.until(), len(erasures.entries)
        log = self.log_of_service
        if log is None or not until or (log.erased >= number and not any(self.stored(until).values())):
            return {}
        done = {} if self.answers is None else {"answers": self.answers.erase(until)}
        return done | log.erase(until, number)  # last: it notes that all is done


def erase(
    registry: Path | str,
    users: Sequence[str] = (),
    *,
    state: Path | str | None = None,
    redis: str | None = None,
    log: Sequence[str] = (),
) -> dict[str, Any]:
    """Erase users from the stores and versions of a deployment, and from files of its log.

    Args:
        registry, state, redis, log: See `Deployment`. Files of the log are rewritten.
        users: Their ids; without any, the list of erasures is applied again. Nothing is done about those who
            were erased before and of whom nothing is left.

    Returns:
        What was done: see `mgoe erase --json`.

    Raises:
        DataError: A user is not known anywhere; nothing is changed then.
        EventError: An id is not of the type of the log's.
        BusyError: A cycle or another erasure is running.
        MgoeError: Something cannot be read or written. The same call finishes what was begun.
    """
    with (
        exclusive(Path(registry) / ".cycle", "an erasure", "runs"),
        Deployment(registry, state, redis, log) as ours,
    ):
        former, asked = Erasures.of(ours.registry.path), ours.texts(users)
        found = set[str]().union(*ours.holds(former.with_users(asked)).values()) if asked else set()
        for user in sorted({*asked} - former.until().keys() - found):
            rule = f"user {user!r} is in no version, store or named log; leave it out (nothing was changed)"
            raise DataError(registry, rule)
        asked = [user for user in asked if user in found]  # of others nothing is left
        erasures = former.with_users(asked) if asked else former
        if not (until := erasures.until()):
            raise ConfigError("--user", "must name who is erased, found nobody; nobody was erased before")
        erasures.save()
        done = ours.erase(erasures)
        column = ours.current.settings.data.user_column
        for file in (rows := rows_of(log, column, until)):
            rewrite(Path(file), column, until)
        if ours.folder is not None:
            graphs = ours.folder.rglob("onnx/*") if user_tables(ours.current.model) else ()
            for made in (*ours.folder.rglob("index-*"), *graphs):
                shutil.rmtree(made)  # of former versions
        for left in (work := ours.registry.path / ".cycle").glob("*"):
            remove_folder(left)  # learned from the rows of these users
        seen = ours.current.manifest.erased
        if (
            seen < len(erasures.entries)
            or any(done.values())
            or any(held_by(erasures, one) for one in ours.versions)
        ):
            gone = {*erasures.until(seen), *held_by(erasures, ours.current)}
            without(ours.current, sorted(gone), work / "erased" / "bundle", len(erasures.entries))
            ours.registry.take_erased(work / "erased" / "bundle")
            remove_folder(work / "erased")
        elif not rows:
            logger.info("nothing is left to erase in what was read, so no version was made")
        removed, served = ours.registry.prune(keep=len(ours.versions))
        return {
            "users": len(asked),
            "version": ours.registry.aliases[CURRENT],
            "records": done,
            "rows": {file: held.total() for file, held in rows.items()},
            "removed": removed,
            "served": served,
            **stated(ours.current),
            "not_reached": ours.not_reached,
        }


def verify(
    registry: Path | str,
    users: Sequence[str] = (),
    *,
    state: Path | str | None = None,
    redis: str | None = None,
    log: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what remains of erased users: of each format by its own reader. Nothing is changed.

    Args:
        registry, state, redis, log: See `Deployment`.
        users: Ids of others who are looked for, too.

    Returns:
        `remains`, by place, besides what is `stated`: see `mgoe erase --json`.

    Raises:
        MgoeError: An id is not of the log's type, or something cannot be read.
    """
    with Deployment(registry, state, redis, log) as ours:
        listed = Erasures.of(ours.registry.path)
        others = [user for user in ours.texts(users) if user not in listed.until()]
        erasures = listed.with_users(others)
        remains = {
            place: [f"{held.total():,} of users"] for place, held in ours.holds(erasures).items() if held
        }
        texts = [user.encode() for user in erasures.until() if len(user) >= SEARCHED and not user.isdecimal()]
        for folder in {ours.registry.path, ours.folder or ours.registry.path}:
            for file in folder.rglob("*"):
                if texts and file.is_file() and file.stat().st_size:
                    with file.open("rb") as one, mmap.mmap(one.fileno(), 0, access=mmap.ACCESS_READ) as held:
                        if any(held.find(text) >= 0 for text in texts):
                            remains.setdefault(str(file), []).append("the bytes of an id")
        return {"remains": remains, **stated(ours.current), "not_reached": ours.not_reached}


def rows_of(log: Sequence[str], column: str, users: Collection[str]) -> dict[str, Counter[str]]:
    """Return how many rows of each of some users are in each file of a log that has any.

    Args:
        log: Files, folders or globs.
        column: Of the users.
        users: Ids, as texts.

    Raises:
        DataError: A file is no Parquet, or lacks the column.
    """
    found = {}
    for file in (file for path in log for file in files_of(path, OPTION)):
        if kind_of(file, OPTION) != "parquet":
            raise DataError(
                f"{OPTION} {file}", "must be Parquet, found CSV; rewrite it without them yourself"
            )
        if column not in pq.read_schema(file).names:
            rule = f"must have the column {column!r}, as the log of the bundle; name other files"
            raise DataError(f"{OPTION} {file}", rule)
        ids = texts(pq.read_table(file, columns=[column])[column]).to_pylist()
        if held := Counter(user for user in ids if user in users):
            found[str(file)] = held
    return found


def rewrite(file: Path, column: str, users: Collection[str]) -> None:
    """Rewrite a file without the rows of some users, see `rows_of`. It keeps its metadata.

    Raises:
        OutputError: It cannot be written; it is then as it was.
    """
    gone, source = pa.array(users, pa.string()), pq.ParquetFile(file)
    with atomic_file(file) as new, pq.ParquetWriter(new, source.schema_arrow, compression="zstd") as out:
        for rows in source.iter_batches():
            out.write_batch(rows.filter(pc.invert(pc.is_in(texts(rows[column]), gone))))
