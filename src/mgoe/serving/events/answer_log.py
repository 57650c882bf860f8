"""The log of answers: what each request got, of which arm and version, in a SQLite file.

All processes of a service on this machine write to it, and an answer is on the disk before it is sent. Lists
of another arm and scores of a shadow, which nobody gets, follow later. The file is as large as the newest
million answers, or as an experiment and the four weeks before it, whichever is larger.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe.errors import DataError
from mgoe.serving.events.event import is_erased
from mgoe.serving.events.store import Store

FOLDER, FILE = "answers", "answers.sqlite"
"""Where the file is in the folder of a service's state."""
MOST = 1_000_000
"""How many of the newest answers are kept, whatever an experiment needs."""
BEFORE = 28 * 86_400_000_000
"""How long before its first answer an experiment needs answers, in microseconds."""
MOST_OF_SHADOW = 100_000
"""How many of the newest answers of a shadow are kept."""
OF_SHADOW = "(shadow)"
"""What the table has as the experiment of these; no experiment has such a name."""
IS_OF_SHADOW = f"experiment = '{OF_SHADOW}'"
TRIM = 1000
"""Answers after which older ones are removed."""
AT_ONCE = 1000
"""Answers that are read at once."""
_SCHEMA = """
CREATE TABLE answers(
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, user TEXT, unit TEXT, experiment TEXT,
    answer TEXT NOT NULL);
CREATE INDEX answers_by_experiment ON answers(experiment, time);
"""
SCHEMA = pa.schema(
    {
        "time": pa.int64(),
        "request": pa.string(),
        "route": pa.string(),
        "user": pa.string(),
        "unit": pa.string(),
        "experiment": pa.string(),
        "phase": pa.string(),
        "arm": pa.string(),
        "brought": pa.bool_(),
        "use": pa.string(),
        "version": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
        "latency": pa.int64(),
        "items": pa.list_(pa.string()),
        "propensities": pa.list_(pa.float64()),
        "teams": pa.list_(pa.string()),
        "served": pa.string(),
        "shown": pa.int64(),
        "scores": pa.list_(pa.list_(pa.float64())),
        "served_scores": pa.list_(pa.list_(pa.float64())),
    }
)
"""Columns of exported answers."""


class Answer(NamedTuple):
    """What one arm said to one request.

    Attributes:
        time: When the request came, in microseconds since 1970; of a shadow, when it was answered.
        request: Its id.
        route: What it asked for.
        user: Its user; None for the visitor of a session.
        unit: What keeps its arm; None if it has none.
        experiment, phase, arm: None outside of an experiment; the arm also of an interleaved list.
        brought: Whether the request named the arm.
        use: Whether it was shown, or logged to be compared, or is of a shadow: one for each user of the
            request.
        version: Name of the bundle.
        status: Whether the arm answered, the control did in its place, or nobody.
        reason: Why the arm did not.
        latency: Microseconds until it was ready.
        items: The list. Of a shadow, those at the top of the answer, best first, then some of all that were
            scored, at random.
        propensities: The probability of each item given those above it; None if nothing explored.
        teams: The arm that brought each item of an interleaved list.
        served: The version that answered where a shadow scored. The rest is of a shadow alone, too.
        shown: How many items are from the answer.
        scores: One list per item with the probability (or value) of each task.
        served_scores: What the client got, or would have got, likewise.
    """

    time: int
    request: str
    route: Literal["rank", "recommend", "score"]
    user: str | None
    unit: str | None
    experiment: str | None
    phase: str | None
    arm: str | None
    brought: bool
    use: Literal["answer", "compare", "shadow"]
    version: str
    status: Literal["ok", "fallback", "error"]
    reason: str | None
    latency: int
    items: Sequence[str]
    propensities: Sequence[float] | None = None
    teams: Sequence[str] | None = None
    served: str | None = None
    shown: int | None = None
    scores: Sequence[Sequence[float]] | None = None
    served_scores: Sequence[Sequence[float]] | None = None


class AnswerLog:
    """The answers of a service.

    Args:
        state: Folder of the service's state.
        make: Whether to create what is missing.
        experiments: Ids of the experiments whose answers, and those of the time before, are kept beside the
            newest.
        most: How many of the newest.

    Raises:
        StoreError: The file cannot be opened, or is damaged.
    """

    def __init__(self, state: Path, make: bool = True, experiments: Sequence[str] = (), most: int = MOST):
        self._store = Store(state / FOLDER / FILE, _SCHEMA, make)
        self._experiments, self._most, self._appended = experiments, most, 0

    def append(self, *answers: Answer) -> None:
        """Write answers, all or none, and wait until they are on the disk.

        Raises:
            StoreError: They cannot be written.
        """
        rows = [
            (one.time, one.user, one.unit, OF_SHADOW if one.use == "shadow" else one.experiment, _text(one))
            for one in answers
        ]

        def write(connection: sqlite3.Connection) -> None:
            query = "INSERT INTO answers(time, user, unit, experiment, answer) VALUES (?, ?, ?, ?, ?)"
            connection.executemany(query, rows)
            self._appended += 1
            if self._appended % min(TRIM, self._most) == 0:
                self._trim(connection)

        self._store.write(write)

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Remove the oldest answers. They are stored in the order of their times, or nearly so."""
        ((last,),) = connection.execute("SELECT max(id) FROM answers")
        oldest = last - self._most
        for experiment in self._experiments:
            query = "SELECT min(time) FROM answers WHERE experiment = ?"
            ((began,),) = connection.execute(query, (experiment,))
            if began is not None:
                query = "SELECT id FROM answers WHERE time >= ? ORDER BY id LIMIT 1"
                oldest = min(oldest, connection.execute(query, (began - BEFORE,)).fetchone()[0] - 1)
        connection.execute("DELETE FROM answers WHERE id <= ?", (oldest,))
        query = (
            f"DELETE FROM answers WHERE {IS_OF_SHADOW} AND time <= "
            f"(SELECT time FROM answers WHERE {IS_OF_SHADOW} ORDER BY time DESC LIMIT 1 OFFSET ?)"
        )
        connection.execute(query, (min(self._most, MOST_OF_SHADOW),))

    def users(self, until: Mapping[str, int]) -> list[str]:
        """Return the users of the answers that `erase` would remove, once per answer."""
        return [user for _, user in self._of(until)]

    def erase(self, until: Mapping[str, int]) -> int:
        """Remove the answers to some users, up to a time for each, and return their number."""
        gone = [(number,) for number, _ in self._of(until)]
        query = "DELETE FROM answers WHERE id = ?"
        self._store.write(lambda connection: connection.executemany(query, gone))
        self._store.vacuum()
        return len(gone)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def __iter__(self) -> Iterator[Answer]:
        """Yield the answers, oldest first."""
        return self.where("TRUE")

    def where(self, condition: str) -> Iterator[Answer]:
        """Yield those of which a condition in SQL is true, such as `IS_OF_SHADOW`, oldest first."""
        for rows in self._store.stream(
            f"SELECT answer FROM answers WHERE {condition} ORDER BY id", {}, AT_ONCE
        ):
            yield from (Answer(*json.loads(text)) for (text,) in rows)

    def _of(self, until: Mapping[str, int]) -> Iterator[tuple[int, str]]:
        """Yield numbers and users: a user may also be the unit that a request brought."""
        for rows in self._store.stream("SELECT id, time, user, unit FROM answers ORDER BY id", {}, AT_ONCE):
            for number, time, *named in rows:
                if found := [one for one in named if one is not None and is_erased(until, one, time)]:
                    yield number, found[0]


def read_answers(state: Path) -> AnswerLog | None:
    """Return the log of a service's state; None if there is none.

    Raises:
        StoreError: The file is damaged.
    """
    return AnswerLog(state, make=False) if (state / FOLDER / FILE).exists() else None


def write_answers(state: Path, out: Path) -> int:
    """Write the answers of a service as a Parquet file. Return their number.

    Raises:
        DataError: There are none.
        StoreError: The file is damaged.
        OutputError: `out` cannot be written.
    """
    log = read_answers(state)
    if log is None:
        raise DataError(
            state / FOLDER,
            "must hold the log of answers, found none; name the --state of a service with --experiment or "
            "--shadow",
        )
    n, answers = 0, iter(log)
    with atomic_file(out) as new, pq.ParquetWriter(new, SCHEMA, compression="zstd") as file:
        while some := [*islice(answers, AT_ONCE)]:
            file.write_table(_table(some))
            n += len(some)
    return n


def _text(answer: Answer) -> str:
    """Return an answer as JSON, without the fields at its end that it lacks."""
    return json.dumps(answer[: max(n for n, field in enumerate(answer, 1) if field is not None)])


def _table(answers: Collection[Answer]) -> pa.Table:
    return pa.Table.from_pylist([answer._asdict() for answer in answers], SCHEMA)
