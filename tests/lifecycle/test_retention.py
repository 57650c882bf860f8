"""Old rows leave the logs of a service, and no version that is kept misses one."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mgoe._util.files import sha256
from mgoe.bundle import Bundle
from mgoe.bundle.held import HELD, START, Held, exposures_of, write_held
from mgoe.errors import ConfigError
from mgoe.lifecycle import CycleSettings, Registry, Sources, update
from mgoe.lifecycle.cycle import MIN_AGE, last_before, trim
from mgoe.serving import Consumer, open_log
from mgoe.serving.events.log import ServiceLog
from tests.lifecycle.test_taken import LONG_AGO, requests, take
from tests.lifecycle.test_update import check_same, stream
from tests.serving.events.stores import Server, events
from tests.serving.http.test_live_service import change_manifest

SECOND = 1_000_000
LATE = 1 << 60
"""A moment at which all rows are old."""
EACH = 60
"""Events that each version learns."""


def test_every_version_that_is_kept_can_be_returned_to_and_misses_nothing(
    registry: Registry, finished: Path, tmp_path: Path
):
    first, state = Bundle.open(finished / "bundle"), str(tmp_path / "state")
    log, made = open_log(state), [first.path]
    for seed in range(3):
        log.append(stream(first, EACH, seed=seed))
        if seed < 2:
            update(made[-1], Sources(events=state), tmp_path / str(seed), weights="keep", groups="keep")
            made.append(registry.place(registry.add(tmp_path / str(seed))))
            registry.promote(force="a test")
    times = [event.time for _, event in log.read()]
    assert trim(registry, state, MIN_AGE, LATE)["events"] == "", "the first version needs all"
    assert len(log.read()) == len(times)
    registry.prune(0)
    kept = [Bundle.open(registry.place(alias)) for alias in ("previous", "current")]
    before = [Consumer.of(log, bundle).live for bundle in kept]
    for moment in (times[0], times[EACH // 2], LATE - MIN_AGE * SECOND):
        trim(registry, state, MIN_AGE, moment + MIN_AGE * SECOND)
        old = next((n for n, time in enumerate(times) if time >= moment), len(times))
        assert [event.time for _, event in log.read()] == times[max(0, min(old, EACH) - 1) :]
        for bundle, former in zip(kept, before, strict=True):
            check_same(Consumer.of(log, bundle).live, former)
    assert registry.rollback() == kept[0].name
    update(registry.place("current"), Sources(events=state), tmp_path / "next", weights="keep", groups="keep")
    assert Bundle.open(tmp_path / "next").graph.manifest.changes[-1]["events"] > 0


def test_exposures_leave_as_far_as_every_version_holds_them(shown: Path, tmp_path: Path):
    bundle = Bundle.open(shown / "bundle")
    log, registry = take(tmp_path, bundle, requests(bundle, 5)), Registry(tmp_path / "bundles")
    positions = [row[0] for row in rows(log)]  # labels are between the exposures
    for name, position in (("a", positions[7]), ("b", positions[11])):
        write_held(
            own := copied(bundle, tmp_path / name), {exposures_of(log.identity): Held(*log.mark(position))}
        )
        change_manifest(own, checksums=bundle.manifest.checksums | {HELD: sha256(own / HELD)})
        registry.promote(registry.add(own), force="a test")
    for now, newest in ((LONG_AGO, 1), (LONG_AGO + MIN_AGE * SECOND + 1, 8)):
        assert trim(registry, str(tmp_path), MIN_AGE, now)["exposures"] == (
            "" if newest == 1 else str(positions[7])
        )
        assert [row[0] for row in rows(log)] == positions[newest - 1 :]
        log.check(log.mark(positions[7]))


def test_events_that_follow_an_exposure_which_must_stay_are_not_said_to_be_gone(shown: Path, tmp_path: Path):
    bundle = Bundle.open(shown / "bundle")
    log, registry = take(tmp_path, bundle, requests(bundle, 5)), Registry(tmp_path / "bundles")
    log.append(events(3))
    write_held(
        own := copied(bundle, tmp_path / "a"), {log.identity: Held(*log.read()[-1][0])}
    )  # and no exposures
    change_manifest(own, checksums=bundle.manifest.checksums | {HELD: sha256(own / HELD)})
    registry.promote(registry.add(own), force="a test")
    assert trim(registry, str(tmp_path), MIN_AGE, LATE) == {"events": "", "exposures": ""}
    assert (len(log.read()), len(rows(log))) == (3, 20)


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_what_may_go_ends_before_the_first_row_that_is_too_new_or_not_held(kind: str, tmp_path: Path):
    """Even where a late row follows, which is older by its time."""
    server = Server(tmp_path) if kind == "redis" else None
    try:
        with closing(open_log(tmp_path if server is None else server.url)) as log:
            log.append([*events(9), replace(events(1)[0], id="late")])
            marks = [mark for mark, _ in log.read()]
            for upto, seconds, expected in ((6, 3, 2), (3, 6, 3), (0, 20, 0), (9, 20, 9), (9, 5, 4)):
                assert last_before(log, marks[upto], seconds * SECOND) == marks[expected]
            assert last_before(log, marks[9], 0) == last_before(log, START, LATE) == START
            log.forget(last_before(log, marks[6], 3 * SECOND).number)
            assert [mark for mark, _ in log.read()] == marks[2:]
            assert last_before(log, marks[9], 5 * SECOND) == marks[4]
    finally:
        if server is not None:
            server.kill()


def test_what_a_cycle_cannot_trim_is_refused():
    where = Path("bundles")
    with pytest.raises(ConfigError, match="must be at least 1d, found 23h; keep more"):
        CycleSettings(registry=where, state="state", retention="23h")
    with pytest.raises(ConfigError, match="trims `state`, found files, which stay; leave it out"):
        CycleSettings(registry=where, log=["log"], retention="30d")
    assert CycleSettings(registry=where, state="state", retention="30d").retention == "30d"


def copied(bundle: Bundle, to: Path) -> Path:
    """A version of its own."""
    shutil.copytree(bundle.path, to)
    change_manifest(to, note=to.name)
    return to


def rows(log: ServiceLog) -> list[tuple[object, ...]]:
    return [row for some in log.rows(["click"], 0, 1 << 40, 1 << 62, 0) for row in some]
