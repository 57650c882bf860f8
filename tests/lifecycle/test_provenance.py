"""Each row of a service counts once, whichever way it comes into a bundle, or a step is refused."""

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mgoe
from mgoe._util.files import sha256
from mgoe.bundle import MANIFEST, Bundle
from mgoe.bundle.held import (
    FILES,
    HELD,
    NEW_STORE,
    Held,
    Mark,
    exposures_of,
    joined,
    mark_of,
    read_held,
    write_held,
)
from mgoe.errors import DataError, MgoeError, OtherLogError
from mgoe.lifecycle.acceptance import window_of
from mgoe.lifecycle.new_bundle import with_files
from mgoe.lifecycle.new_rows import NewRows, Sources, learned_until
from mgoe.lifecycle.taken import export
from mgoe.pipeline.sources import held_by_files
from mgoe.serving import Consumer, open_log
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.online.live_rates import ExposureFollower
from tests.effort import SOAK
from tests.lifecycle.test_update import stream

LONG_AGO = 1_600_000_000_000_000
SECOND = 1_000_000
STEPS = ("serve", "serve", "export", "export-new", "update", "from-file", "full", "back", "copy", "restore")


@dataclass
class Version:
    """A bundle, and how often its graph holds each row of the service, by the time of the row."""

    bundle: Bundle
    rows: Counter[int] = field(default_factory=Counter)


class Deployment:
    """A service with its log, files of its rows, and the versions that were current.

    Rows are read, checked and left out by the library; what a graph would count of them is noted. Weights and
    graphs themselves are those of one bundle.
    """

    def __init__(self, shown: Bundle, folder: Path):
        self.folder, self.state, self.shown = folder, folder / "state", shown
        self.until, self.number = learned_until(shown), 0
        self.log = ServiceLog(self.state / "log.sqlite")
        self.files: list[Path] = []
        self.refused: list[str] = []
        self.versions = [self.version(read_held(shown.path), Counter())]

    @property
    def current(self) -> Version:
        return self.versions[-1]

    @property
    def held(self) -> Mark:
        """Up to where the current version holds the exposures of the log."""
        return mark_of(read_held(self.current.bundle.path), exposures_of(self.log.identity))

    def version(self, held: dict[str, Held], rows: Counter[int]) -> Version:
        """A bundle whose graph holds these rows."""
        self.number += 1
        path = self.folder / f"version {self.number}"
        path.mkdir()
        for file in self.shown.path.iterdir():
            if file.name not in (HELD, MANIFEST):
                (path / file.name).symlink_to(file)
        write_held(path, held)
        sums = self.shown.manifest.checksums | {HELD: sha256(path / HELD)}
        self.shown.manifest.model_copy(update={"checksums": sums}).save(path)
        return Version(Bundle.open(path, verify=False), rows)

    def serve(self, late: bool) -> None:
        """Take some exposures, as a service of the current version does."""
        mark = self.held
        self.log.check(mark)
        times = []
        for _ in range(3):
            self.number += 1
            times.append(self.until + (-1 if late and self.number % 4 == 0 else 1) * self.number * SECOND)
        rows = [Exposure(f"r{time}", "1", "2", time, None, None, None) for time in times]
        labels = [Label(f"r{time}", "", "2", "click", time, float(time % 2)) for time in times]
        self.log.append((), rows, labels, now=LONG_AGO + self.number, after=mark)

    def export(self, new: bool) -> None:
        file = self.folder / f"taken {len(self.files)}.parquet"
        export(self.current.bundle.path, self.state, file, "exposures", new)
        self.files.append(file)

    def update(self, sources: Sources) -> None:
        current = self.current
        with tempfile.TemporaryDirectory() as work:
            new = NewRows.of(current.bundle, sources, Path(work))
            times = [int(time) for part in new.parts for time in part.times]
        held = joined(read_held(current.bundle.path), new.ends)
        self.versions.append(self.version(held, current.rows + Counter(times)))

    def train(self, files: Sequence[Path]) -> None:
        """Train from scratch on the first log and on files."""
        run = with_files(self.shown.settings, [*map(str, files)])
        held = held_by_files(run) | {FILES: read_held(self.shown.path)[FILES]}
        column = run.data.time
        times = [time for file in files for time in pq.read_table(file)[column].cast("int64").to_pylist()]
        self.versions.append(self.version(held, Counter(times)))

    def rollback(self) -> None:
        if len(self.versions) > 1:
            self.versions.pop()

    def back_up(self) -> None:
        shutil.rmtree(self.folder / "copy", ignore_errors=True)
        (self.folder / "copy").mkdir()
        with (
            sqlite3.connect(self.state / "log.sqlite") as log,
            sqlite3.connect(self.folder / "copy" / "log.sqlite") as copy,
        ):
            log.backup(copy)

    def restore(self) -> None:
        if (self.folder / "copy").exists():
            self.log.close()
            shutil.rmtree(self.state)
            shutil.copytree(self.folder / "copy", self.state)

    def check(self) -> None:
        """Each row that the log holds counts once, in the current graph or live, or the service refuses."""
        held = self.held
        try:
            self.log.check(held)
        except OtherLogError:
            return
        follower = ExposureFollower(self.log, self.shown.settings.tasks, held)
        live = 0
        while (changes := follower.read()) is not None:
            live += int(changes.counts[:, 0].sum())
        rows = self.log._store.read("SELECT time, id > ? FROM exposures", (held.number,))
        assert live == sum(later for _, later in rows)
        for time, later in rows:
            assert self.current.rows[time] + later == 1, time
        assert max(self.current.rows.values(), default=0) <= 1

    def step(self, name: str, data: st.DataObject) -> None:
        some = st.sampled_from(self.files) if self.files else st.none()
        steps: dict[str, Callable[[], object]] = {
            "serve": lambda: self.serve(data.draw(st.booleans(), "late")),
            "export": lambda: self.export(new=False),
            "export-new": lambda: self.export(new=True),
            "update": lambda: self.update(Sources(events=self.state)),
            "from-file": lambda: (file := data.draw(some)) and self.update(Sources(str(file))),
            "full": lambda: self.train(
                data.draw(st.lists(some, max_size=3, unique=True), "files") if self.files else []
            ),
            "back": self.rollback,
            "copy": self.back_up,
            "restore": self.restore,
        }
        try:
            steps[name]()
        except MgoeError as error:
            self.refused.append(f"{name}: {error}")
        self.check()


@settings(max_examples=500 if SOAK else 8, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_each_row_counts_once_in_any_sequence_of_steps(shown: Path, data: st.DataObject):
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(mgoe.load(shown / "bundle"), Path(folder))
        for name in data.draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=9), "steps"):
            deployment.step(name, data)  # which checks all counts
        assert all(refusal.partition(": ")[2] for refusal in deployment.refused), "each says why"


def test_the_steps_that_must_work_do(shown: Path, tmp_path: Path):
    deployment = Deployment(mgoe.load(shown / "bundle"), tmp_path)
    deployment.serve(late=True)
    deployment.export(new=False)
    deployment.train(deployment.files)
    deployment.check()
    assert deployment.current.rows.total() == 3
    deployment.serve(late=False)
    deployment.export(new=True)
    deployment.update(Sources(events=deployment.state))
    deployment.rollback()
    deployment.check()
    deployment.export(new=False)  # half of it is held already
    deployment.update(Sources(str(deployment.files[-1])))
    assert deployment.current.rows.total() == 6
    deployment.train(deployment.files[:2])
    assert deployment.current.rows.total() == 6
    deployment.check()
    with pytest.raises(DataError, match=r"must begin where .* ends, after position 3, found 0"):
        deployment.train(deployment.files)
    with pytest.raises(DataError, match="must begin at the start of the log, found the rows after pos"):
        deployment.train(deployment.files[1:2])
    deployment.versions = deployment.versions[:1]
    with pytest.raises(DataError, match="must continue after position 0 of the log"):
        deployment.update(Sources(str(deployment.files[1])))


def test_rows_of_a_service_without_their_marks_are_refused(shown: Path, tmp_path: Path):
    deployment = Deployment(mgoe.load(shown / "bundle"), tmp_path)
    deployment.serve(late=False)
    deployment.export(new=False)
    plain = tmp_path / "plain.parquet"
    pq.write_table(pq.read_table(deployment.files[0]).replace_schema_metadata(), plain)
    first = deployment.current
    deployment.update(Sources(events=deployment.state))
    with pytest.raises(DataError, match="must come after the rows of a service that the bundle holds"):
        deployment.update(Sources(str(plain)))
    with pytest.raises(DataError, match=r"most rows are from before .* that may hold the same rows"):
        deployment.train([plain, deployment.files[0]])
    deployment.versions.append(first)
    deployment.update(Sources(str(plain)))  # of a bundle that holds nothing of the service
    with pytest.raises(DataError, match="most rows are from before"):
        deployment.update(Sources(events=deployment.state))


def test_a_release_test_reads_no_row_that_one_of_both_versions_has_learned(shown: Path, tmp_path: Path):
    deployment = Deployment(mgoe.load(shown / "bundle"), tmp_path)
    deployment.serve(late=False)
    deployment.export(new=False)
    first = deployment.current.bundle
    deployment.train(deployment.files)
    trained, state = deployment.current.bundle, Sources(events=deployment.state)
    assert window_of(trained, first, state) is None
    deployment.serve(late=False)
    deployment.export(new=False)
    for sources in (state, Sources(str(deployment.files[-1]))):
        for pair in ((trained, first), (first, trained)):
            window = window_of(*pair, sources)
            assert window is not None
            assert len(window[0]) == len(window[1]) == 3
    new = NewRows.of(trained, state, folder_in(tmp_path))
    times = sorted(int(time) for time in new.parts[0].times)
    held = read_held(first.path) | {FILES: Held("", "", times[0])}
    unknown = deployment.version(held, Counter()).bundle  # of files that may hold rows of the service
    window = window_of(first, unknown, state)
    assert window is not None
    assert len(window[0]) == 2
    held[FILES] = Held("", "", times[-1])
    with pytest.raises(DataError, match=r"most rows are from before .* that may hold the same rows"):
        window_of(deployment.version(held, Counter()).bundle, first, state)


def test_events_that_were_written_as_a_log_are_those_of_the_service(finished: Path, tmp_path: Path):
    bundle, log = mgoe.load(finished / "bundle"), open_log(tmp_path / "state")
    events = stream(bundle, 12)
    log.append([*events, events[8]])  # one is sent twice
    file = tmp_path / "events.parquet"
    assert export(bundle.path, tmp_path / "state", file, "events") == 12
    sources = Sources(str(file)), Sources(events=tmp_path / "state")
    written, stored = (NewRows.of(bundle, one, folder_in(tmp_path)) for one in sources)
    assert written.ends == stored.ends
    assert sorted(written.parts[0].times) == sorted(stored.parts[0].times)
    log.append(stream(bundle, 5, seed=1))
    assert export(bundle.path, tmp_path / "state", file, "events", new=True) == 17
    log.forget(log.read()[5][0].number)
    assert export(bundle.path, tmp_path / "state", file, "events") == 11
    with pytest.raises(DataError, match="must continue after position 0 of the log"):
        NewRows.of(bundle, sources[0], folder_in(tmp_path))


def test_a_store_that_has_lost_everything_is_said_to_be_new(
    shown: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """One that holds exposures alone, whose log of events is another, is none."""
    deployment = Deployment(mgoe.load(shown / "bundle"), tmp_path)
    deployment.serve(late=False)
    deployment.update(Sources(events=deployment.state))
    bundle = deployment.current.bundle
    for folder, said in ((deployment.state, 0), (tmp_path / "emptied", 1)):
        log = open_log(folder)
        Consumer.of(log, bundle)
        assert caplog.messages.count(NEW_STORE) == said
        NewRows.of(bundle, Sources(events=folder), folder_in(tmp_path))
        assert caplog.messages.count(NEW_STORE) == 2 * said


def folder_in(path: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=path))
