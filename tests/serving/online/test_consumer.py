"""A consumer that fails while it applies events starts again from the snapshot."""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from mgoe.bundle.held import START, Mark
from mgoe.serving.events.event import Event
from mgoe.serving.events.stores import open_log, with_query
from mgoe.serving.online.live import Consumer, LiveNodes
from tests.graph.histories import BUCKET
from tests.serving.events.stores import Server
from tests.serving.online.worlds import World, read_of

READ_AT_ONCE = 3


class Listed:
    """A log in memory; positions count events."""

    identity = "listed"

    def __init__(self, events: list[Event]):
        self.events = events

    def check(self, mark: Mark) -> None:
        pass

    def claim(self, tasks: Sequence[str], deployment: str | None = None) -> None:
        pass

    def read(self, after: Mark = START) -> list[tuple[Mark, Event]]:
        first = after.number
        return [
            (Mark(str(first + k + 1)), event) for k, event in enumerate(self.events[first:][:READ_AT_ONCE])
        ]


def lines_of_a_commit(
    work: Callable[[], object], fail_at: tuple[str, int] | None = None
) -> set[tuple[str, int]]:
    """The lines of this package that run from `_commit` on; at one of them memory ends."""
    seen: set[tuple[str, int]] = set()
    inside = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal inside
        ours = "mgoe/serving" in frame.f_code.co_filename
        begins = frame.f_code.co_name == "commit"
        inside += (event == "call") * begins - (event == "return") * begins
        if event == "line" and ours and inside:
            seen.add(line := (frame.f_code.co_filename, frame.f_lineno))
            if line == fail_at:
                raise MemoryError
        return trace if ours else None

    before = sys.gettrace()  # that of a measurement of coverage
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen


def test_a_failure_at_any_line_of_a_commit_leaves_no_trace(large: World, monkeypatch: pytest.MonkeyPatch):
    """With known nodes, newcomers that move, a repeated id, and an event that the snapshot holds."""
    monkeypatch.setattr("mgoe.serving.online.live.EVENTS_PER_READ", READ_AT_ONCE)
    moment = 10 * BUCKET
    first = [
        Event(0, 1, "click", moment, "a"),
        Event(10_000, 2, "buy", moment, "b"),
        Event(10_000, 10_001, "click", moment, "c"),
    ]
    second = [
        Event(0, 1, "buy", moment, "d"),
        Event(10_000, 3, "cart", moment, "a"),
        Event(10_002, 10_001, "buy", moment, "e"),
    ]
    held, snapshot = Event(0, 5, "buy", moment, "f"), large.live()
    snapshot.skip([held])
    wanted = LiveNodes(snapshot.base)
    wanted.apply([*first, *second])

    def begun() -> Consumer:
        consumer = Consumer(Listed([held, *first]), LiveNodes(snapshot.base))  # type: ignore[arg-type]
        consumer.catch_up()
        consumer.log.events += [*second, held]  # type: ignore[attr-defined]
        return consumer

    lines = lines_of_a_commit(begun().catch_up)
    assert len(lines) > 100
    for line in sorted(lines):
        consumer = begun()
        version = consumer.live.version
        with pytest.raises(MemoryError):
            lines_of_a_commit(consumer.catch_up, line)
        assert consumer.catch_up() > 0
        assert consumer.catch_up() == 0
        assert set(consumer.live.touched("item", version).tolist()) >= set(
            consumer.live.look_up("item", [1, 10_001]).tolist()
        )
        assert {name: consumer.live.stats[name] for name in ("events", "late")} == {
            name: wanted.stats[name] for name in ("events", "late")
        }
        found, expected = (
            read_of(live, [0, 1, 2, 3, 10_000, 10_001, 10_002]) for live in (consumer.live, wanted)
        )
        for name in expected:
            assert_array_equal(found[name], expected[name], err_msg=f"{name} after {line}")


def test_an_event_on_redis_costs_two_commands(large: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One adds it, and one asks for what is new."""
    server = Server(tmp_path / "redis")
    with closing(open_log(with_query(server.url, state=tmp_path / "a"))) as log:
        consumer, commands, moment = Consumer(log, large.live()), list[str](), 30 * BUCKET
        client = log._server.client  # type: ignore[attr-defined]
        consumer.catch_up()
        log.append([Event(0, 1, "click", moment)])
        consumer.catch_up()
        run = client.execute_command

        def noted(*words: Any, **options: Any) -> Any:
            commands.append(words[0])
            return run(*words, **options)

        monkeypatch.setattr(client, "execute_command", noted)
        log.append([Event(0, 2, "click", moment)])
        assert consumer.catch_up() == 1
    server.kill()
    assert commands == ["EVALSHA", "XRANGE"]
