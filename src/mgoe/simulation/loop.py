"""Days of a world with a service: ask for pages, show them, and report what became of them.

Every page that was answered is in a journal, on the disk before its user acts. An interrupted day begins
again from the journal: users and their random numbers are as before, so the same pages are asked for, and
those of the journal are shown without asking. Reports that may have been lost with the interruption are sent
again, which a service counts once.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.files import atomic_file, exclusive, output_errors
from mgoe._util.memory import available_memory
from mgoe.errors import ConfigError, DataError, OutputError
from mgoe.simulation.settings import DEVICES
from mgoe.simulation.truth import Truth
from mgoe.simulation.visits import Outcomes, Page, Report, Visits

if TYPE_CHECKING:
    import httpx

Record = TypeVar("Record")
JOURNAL, OUTCOMES = "journal.jsonl", "outcomes"
GIB = 2**30
RECORDS_PER_REQUEST = 500
"""Most records that one request to the service holds."""


class Shown(NamedTuple):
    """A page as a policy made it.

    Attributes:
        items: Ids, the first position first.
        arm: Of the service's experiment; None if the user has none.
        bundle: What made it.

    Example:
        >>> Shown([500_017, 500_003]).arm is None
        True
    """

    items: Sequence[int]
    arm: str | None = None
    bundle: str = ""


class Policy(Protocol):
    """What makes pages: a service, or a rule that is compared with one."""

    async def show(self, page: Page, visits: Visits) -> Shown:
        """Make a page for a user who has asked for it."""
        ...

    async def tell(self, reports: Sequence[Report], time: int) -> None:
        """Take what became of earlier pages, at a time."""
        ...

    async def change(self, items: Sequence[dict[str, Any]], time: int) -> None:
        """Take items that arrive or go, at a time."""
        ...


class Clock:
    """The time of the world, which a service in this process reads.

    Attributes:
        now: Microseconds since the epoch.
    """

    def __init__(self, now: int = 0):
        self.now = now

    def __call__(self) -> int:
        """Return the time of the world."""
        return self.now


class Service(AbstractAsyncContextManager["Service"]):
    """A service that makes the pages of a world. It starts when it is first needed.

    Args:
        connect: Starts the service on a clock, and yields a client, which raises what the service refuses.
        visits: The world.
        objective: What pages are ranked by; None for the bundle's own.
    """

    def __init__(
        self,
        connect: "Callable[[Clock], AbstractAsyncContextManager[httpx.AsyncClient]]",
        visits: Visits,
        objective: str | None = None,
    ):
        self._connect, self._truth, self._objective = connect, visits.truth, objective
        self._clock, self._client, self._stack = Clock(), None, AsyncExitStack()
        self._tasks, self._context = set[str](), set[str]()

    async def __aexit__(self, *error: Any) -> bool | None:
        """Stop the service."""
        return await self._stack.__aexit__(*error)

    async def show(self, page: Page, visits: Visits) -> Shown:
        """Ask for recommendations, without what the session has shown."""
        client = await self._at(page.time)
        asked = {
            "user": int(self._truth.user_ids.of(np.array([page.user]))[0]),
            "k": self._truth.settings.positions,
            "objective": self._objective,
            "exclude": visits.seen(page),
            "context": {"device": DEVICES[page.device]} if "device" in self._context else {},
        }
        response = await client.post("/v1/recommend", json=asked, headers={"x-request-id": page.request})
        answer = response.json()
        return Shown(answer["items"], answer.get("arm"), answer["bundle"])

    async def tell(self, reports: Sequence[Report], time: int) -> None:
        """Send exposures and labels."""
        await self._at(time)  # which says what it reads
        for some in _parts(reports, RECORDS_PER_REQUEST // (2 * self._truth.settings.positions)):
            exposures = [one for report in some for one in report.exposures]
            known = [
                one | {"labels": _of(one["labels"], self._tasks)} for report in some for one in report.labels
            ]
            await self._send(
                "/v1/events",
                time,
                exposures=[one | {"context": _of(one["context"], self._context)} for one in exposures],
                labels=[one for one in known if one["labels"]],
            )

    async def change(self, items: Sequence[dict[str, Any]], time: int) -> None:
        """Register items that arrive, and withdraw those that go."""
        for some in _parts(items, RECORDS_PER_REQUEST):
            await self._send("/v1/items", time, items=[*some])

    async def _at(self, time: int) -> "httpx.AsyncClient":
        """Set the clock, and start the service if it does not run.

        Raises:
            DataError: Its users are not of this world.
            ConfigError: It has tasks that the world lacks.
        """
        self._clock.now = time
        if self._client is None:
            self._client = await self._stack.enter_async_context(self._connect(self._clock))
            about = (await self._client.get("/v1/about")).json()
            self._tasks, self._context = {*about["tasks"]}, {*about["context"]}
            known = [*self._truth.settings.names, "stay"]
            if other := [task for task in about["tasks"] if task not in known]:
                raise ConfigError(
                    "--serve",
                    f"every task must be a behaviour of the world or stay, found {other[0]!r}, of "
                    f"{', '.join(known)}; serve another bundle",
                )
            self._truth.indices(about["busiest_users"], [])
        return self._client

    async def _send(self, path: str, time: int, **records: list[dict[str, Any]]) -> None:
        if not any(records.values()):  # labels of tasks that the service lacks
            return
        answer = (await (await self._at(time)).post(path, json=records)).json()
        if answer["refused"]:
            wrong = next(one["error"] for one in answer["outcomes"] if one["error"])
            raise DataError(path, f"a service must take what its world reports, and refused: {wrong}")


def first_day(folder: Path) -> int | None:
    """Return the first day that a folder holds; None if it holds none."""
    path = folder / JOURNAL
    if not path.exists():
        return None
    with output_errors(path), path.open("rb") as file:
        return json.loads(file.readline() or b"{}").get("first")


async def play(
    visits: Visits,
    policy: Policy,
    folder: Path,
    days: range,
    on_progress: Callable[[int, int], None] | None = None,
    features: Sequence[str] = (),
) -> None:
    """Let a policy make the pages of some days, or of those of them that are left.

    Args:
        visits: The world, on the morning of the first day of the folder.
        policy: Makes the pages.
        folder: Gets the journal, and one file per day of what truly happened, in `outcomes`. A folder that
            holds earlier days of the same world and policy is continued.
        days: Numbers of days of the world. All days of one folder follow one another.
        on_progress: Called with the days that are over, and how many there are.
        features: What the policy knows of items; of these the world has `content`.

    Raises:
        MgoeError: The days do not fit into memory, the folder holds those of another world, or the service
            refuses what it is sent.

    Example:
        >>> import asyncio, numpy as np
        >>> from mgoe.simulation import Truth, VisitSettings, Visits
        >>> class Newest:
        ...     async def show(self, page, visits):
        ...         return Shown(visits.truth.item_ids.of(visits.alive(page.day)[-3:]).tolist())
        ...     async def tell(self, reports, time): ...
        ...     async def change(self, items, time): ...
        >>> visits = Visits(Truth.open(log.parent), VisitSettings())
        >>> asyncio.run(play(visits, Newest(), folder / "newest", range(2, 3)))
    """
    if (needed := visits.needed_memory(len(days))) > (free := available_memory()):
        raise ConfigError(
            "world",
            f"{len(days):,} days of visits must fit into memory and need about {needed / GIB:.2g} GiB, found "
            f"{free / GIB:.2g} GiB; play fewer days, lower `sessions`, or simulate fewer users",
        )
    with exclusive(folder, "the days of a world"), output_errors(folder):
        (folder / OUTCOMES).mkdir(parents=True, exist_ok=True)
        with closing(_Journal(folder / JOURNAL, visits, days.start)) as known:
            for number, day in enumerate(days):
                await _play_day(visits, policy, known, day, features)
                if on_progress is not None:
                    on_progress(number + 1, len(days))


async def _play_day(
    visits: Visits, policy: Policy, known: "_Journal", day: int, features: Sequence[str]
) -> None:
    """Play a day, or what the journal lacks of it."""
    outcomes, end = list[tuple[Outcomes, Shown]](), visits.start_of(day + 1)
    if day not in known.begun:
        if items := visits.changes(day, features, is_first=not known.begun):
            await policy.change(items, visits.start_of(day))
        known.begin(day)
    visits.open(day)
    while (page := visits.next_page()) is not None:
        reports = visits.due(page.time)
        if (shown := known.shown.get(page.request)) is None:
            if reports:
                await policy.tell(reports, page.time)
            shown = await policy.show(page, visits)
            known.add(page, shown)
        outcomes.append((visits.show(page, visits.truth.indices([], shown.items)[1]), shown))
    reports, file = visits.due(end), known.path.parent / OUTCOMES / f"day-{day:05}.parquet"
    if not file.exists():
        if reports:
            await policy.tell(reports, end)
        with atomic_file(file) as unfinished:
            pq.write_table(_table(outcomes, visits.truth), unfinished, compression="zstd")


class _Journal:
    """The pages that were answered, one per line, and the days that have begun.

    Args:
        path: The file.
        visits: The world.
        first: The first day.

    Raises:
        OutputError: It is of another world, or of other days.

    Attributes:
        shown: The page of each request.
        begun: Days that have begun.
    """

    def __init__(self, path: Path, visits: Visits, first: int):
        self.path, self.shown, self.begun = path, dict[str, Shown](), set[int]()
        world = visits.truth.settings.model_dump(mode="json")
        header = {"world": world, "visits": visits.settings.model_dump(mode="json"), "first": first}
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]  # the last line may have been cut off
        try:
            lines = [json.loads(line) for line in whole.splitlines()] or [header]
        except ValueError as error:
            raise OutputError(path, f"is damaged ({error}); play its days again in a new folder") from None
        if lines[0] != header:
            other = next(name for name in header if lines[0].get(name) != header[name])
            raise OutputError(
                path,
                f"holds days of another world: its {other} is not the present one; choose a new folder",
            )
        for line in lines[1:]:
            if "begins" in line:
                self.begun.add(line["begins"])
            else:
                self.shown[line["request"]] = Shown(line["items"], line["arm"], line["bundle"])
        self._file = path.open("r+b" if text else "wb")
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if not whole:
            self._write(header)

    def add(self, page: Page, shown: Shown) -> None:
        """Add a page."""
        self._write({"request": page.request, **shown._asdict()})

    def begin(self, day: int) -> None:
        """Note that a day has begun: its items are known."""
        self._write({"begins": day})
        self.begun.add(day)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _table(outcomes: Sequence[tuple[Outcomes, Shown]], truth: Truth) -> pa.Table:
    """Return a row per item that was shown, whether it was reported or not."""
    sizes = [len(one.items) for one, _ in outcomes]
    done = np.concatenate(
        [one.done for one, _ in outcomes] or [np.zeros((0, len(truth.settings.names)), bool)]
    )
    pages = [one.page for one, _ in outcomes]

    def of_pages(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(np.repeat(np.arange(len(sizes)), sizes)))

    def joined(name: str) -> NDArray:
        return np.concatenate([getattr(one, name) for one, _ in outcomes] or [np.zeros(0)])

    users = truth.user_ids.of(np.array([page.user for page in pages], np.int64))
    return pa.table(
        {
            "request": of_pages([page.request for page in pages], pa.string()),
            "time": of_pages([page.time for page in pages], pa.timestamp("us")),
            "user_id": of_pages(users, pa.int64()),
            "item_id": truth.item_ids.of(joined("items").astype(np.int64)),
            "position": np.concatenate([np.arange(size) for size in sizes] or [np.zeros(0, int)]),
            "arm": of_pages([shown.arm for _, shown in outcomes], pa.string()),
            "bundle": of_pages([shown.bundle for _, shown in outcomes], pa.string()),
            **{name: done[:, t].astype(np.int8) for t, name in enumerate(truth.settings.names)},
            "stay": joined("stay"),
            "value": joined("value"),
        }
    )


def _parts(records: Sequence[Record], most: int) -> Iterator[Sequence[Record]]:
    yield from (records[start : start + most] for start in range(0, len(records), most))


def _of(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the values that the service reads."""
    return {name: value for name, value in values.items() if name in names}
