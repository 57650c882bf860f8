"""Whatever is set, killed, lost or damaged: a folder ends like a fresh one, and nothing is made twice."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from mgoe._util.files import read_json, write_json
from mgoe._util.processes import Job, Outcome
from mgoe.errors import OutputError, TrainingError
from mgoe.work.node import Node, is_damaged
from mgoe.work.store import Store
from tests.effort import up_to

BEFORE = {
    "data": (),
    "graph": ("data",),
    "search": ("graph",),
    "first": ("graph", "search"),
    "second": ("graph", "search"),
    "lists": ("first",),
}
"""What each node is made from: prepared data, a graph, a search, two cells, and the lists of the first."""
FOLLOWS = {"search": ("first", "second"), "first": ("lists",)}
READ = ("search", "first", "second", "lists")
"""Nodes whose files are read, so that damage is found."""
WANTED = ("first", "second", "lists")
NAMES = st.sampled_from(sorted(BEFORE))


class Killed(Exception):
    """The process of a run ended here."""


class Work:
    """Makes nodes: each file holds the node's value and all that it is made from.

    Args:
        folder: The folder.
        dies_at: Number of nodes after which the process is killed.
    """

    def __init__(self, folder: Path, dies_at: int = 99):
        self.folder, self.dies_at = folder, dies_at
        self.made = list[str]()

    def make(self, name: str, value: int) -> str:
        if len(self.made) == self.dies_at:
            raise Killed
        self.made.append(name)
        inputs = {one: read_json(self.folder / f"{one}.json") for one in BEFORE[name]}
        write_json(self.folder / f"{name}.json", {"value": value, "inputs": inputs})
        if name == "data":
            write_json(self.folder / "sums.json", {"of": value})
        return f"{name} {value}"

    def nodes(self, values: Mapping[str, int]) -> list[Node]:
        found = dict[str, Node]()
        for name, before in BEFORE.items():
            file = self.folder / f"{name}.json"
            follows = tuple(self.folder / f"{one}.json" for one in FOLLOWS.get(name, ()))
            sums = (self.folder / "sums.json",) if name == "data" else ()
            found[name] = Node(
                name,
                f"the {name}",
                file,
                {"value": values[name]},
                1,
                "",
                self.make,
                (name, values[name]),
                before=tuple(found[one] for one in before),
                reads=() if name in ("data", "graph") else (found["data"],),
                follows=(*follows, *sums),
                files=(file, *sums),
                results=(file, *follows),
                damaged=partial(is_damaged, file, read_json) if name in READ else lambda: False,
            )
        return [*found.values()]

    def run(self, values: Mapping[str, int], overwrite: bool) -> None:
        store = Store(self.folder, self.nodes(values))
        for node in store.stale(overwrite):
            node.remove()
        for node in store.damaged():
            node.remove()
        for _ in store.bring([store.nodes[self.folder / f"{name}.json"] for name in WANTED]):
            pass


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.iterdir())}


class Folder(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.values = dict.fromkeys(BEFORE, 0)
        self.scratch = TemporaryDirectory(prefix="mgoe-")
        self.folder = Path(self.scratch.name, "own")
        self.folder.mkdir()

    def teardown(self) -> None:
        self.scratch.cleanup()

    @rule(name=NAMES, value=st.integers(0, 1))
    def set(self, name: str, value: int) -> None:
        self.values[name] = value

    @rule(name=NAMES)
    def damage(self, name: str) -> None:
        if name in READ and (file := self.folder / f"{name}.json").exists():
            file.write_text('{"value": ')

    @rule(name=st.sampled_from([*sorted(BEFORE), "sums"]), note=st.booleans())
    def lose(self, name: str, note: bool) -> None:
        """A process was killed while it removed, or somebody made room."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        if note:
            (self.folder / f"{name}.json.asked.json").unlink(missing_ok=True)

    @rule(at=st.integers(0, 5))
    def kill(self, at: int) -> None:
        try:
            Work(self.folder, at).run(self.values, overwrite=True)
        except Killed:
            return

    @rule(overwrite=st.booleans())
    def run(self, overwrite: bool) -> None:
        before, fresh = contents(self.folder), self.fresh()
        work = Work(self.folder)
        differs = {
            name for name in BEFORE if (now := before.get(f"{name}.json")) and now != fresh[f"{name}.json"]
        }
        try:
            work.run(self.values, overwrite)
        except OutputError:
            assert not overwrite, "what may be removed is not refused"
            assert differs, "only another result than the one asked for is refused"
            assert contents(self.folder) == before, "what is refused stays as it was"
            return
        after, made = contents(self.folder), len(work.made)
        assert after.items() <= fresh.items()
        assert {f"{name}.json" for name in WANTED} <= after.keys()
        assert made == len(set(work.made))
        lost = differs | {name for name in READ if f"{name}.json" not in before}
        for name in work.made:
            absent = f"{name}.json" not in before or (name == "data" and "sums.json" not in before)
            assert absent or lost & {name, *ancestors(name)}, f"{name} was finished"
        work.run(self.values, overwrite)
        assert len(work.made) == made, "a finished folder has nothing to do"

    def fresh(self) -> dict[str, str]:
        with TemporaryDirectory(prefix="mgoe-") as scratch:
            Work(Path(scratch)).run(self.values, overwrite=False)
            return contents(Path(scratch))


def ancestors(name: str) -> Iterator[str]:
    for one in BEFORE[name]:
        yield one
        yield from ancestors(one)


TestFolder = Folder.TestCase
TestFolder.settings = settings(up_to(40), stateful_step_count=20)


def test_a_node_has_one_of_five_states(tmp_path: Path):
    values = dict.fromkeys(BEFORE, 0)
    states = lambda: {node.path.stem: node.state() for node in Work(tmp_path).nodes(values)}  # noqa: E731
    assert set(states().values()) == {"absent"}
    Work(tmp_path).run(values, overwrite=False)
    assert set(states().values()) == {"done"}
    (tmp_path / "sums.json").unlink()
    (tmp_path / "second.json").write_text("{")
    values["first"] = 1
    assert states() == {
        "data": "unfinished",
        "graph": "done",
        "search": "done",
        "first": "stale",
        "second": "damaged",
        "lists": "stale",
    }


@pytest.mark.parametrize("jobs", [0, 2])
def test_what_needs_a_failed_node_fails_for_the_same_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
):
    def fail(*_: object) -> None:
        raise TrainingError("search", "every trial failed")

    def here(jobs: Sequence[Job], *_: object) -> Iterator[Outcome]:
        assert [job.name for job in jobs] == [f"the {name}" for name in BEFORE if name != "lists"]
        assert set(jobs[-1].needs) == {"the data", "the graph", "the search"}
        yield Outcome(jobs[2], failed="every trial failed")

    monkeypatch.setattr("mgoe._util.processes.run_jobs", here)
    work = Work(tmp_path)
    monkeypatch.setattr(work, "make", fail)
    nodes = work.nodes(dict.fromkeys(BEFORE, 0))
    ended = Store(tmp_path, nodes).bring(nodes[3:5], jobs)
    if jobs:
        assert [(node.path.stem, outcome.failed) for node, outcome in ended] == [
            ("search", "every trial failed")
        ]
    else:
        with pytest.raises(TrainingError, match="every trial failed"):
            next(ended)
