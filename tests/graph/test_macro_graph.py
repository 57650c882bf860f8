import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgoe.errors import GraphError
from mgoe.graph import MacroGraph
from mgoe.graph.edges import SparseEdges
from mgoe.graph.snapshot import SKETCH
from tests.graph.histories import BUCKET, CUTS, contents, differences, history, planted

EVENTS = planted()
LATEST = len(CUTS)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> MacroGraph:
    return history(EVENTS).build(tmp_path_factory.mktemp("artefact") / "graph", resolutions=[(4, 4), (8, 8)])


@pytest.fixture
def copied(graph, tmp_path) -> MacroGraph:
    """One to damage."""
    shutil.copytree(graph.path, tmp_path / "copy")
    return MacroGraph.open(tmp_path / "copy")


def test_a_saved_graph_reopens_equal_and_memory_mapped(graph):
    again = MacroGraph.open(graph.path)
    assert again.manifest == graph.manifest
    for s, snapshot in enumerate(again.snapshots):
        held = dict(snapshot.arrays)
        for r, part in enumerate(snapshot.resolutions):
            for name, value in vars(part).items():
                if isinstance(value, SparseEdges):
                    held |= {f"r{r}.{name}.{column}": array for column, array in value._asdict().items()}
                else:
                    held[f"r{r}.{name}"] = value
        assert differences(held, contents(graph, s)) == []
        assert all(isinstance(array.base, np.memmap) for array in held.values() if array.size)


def test_a_sketch_is_as_exact_at_every_snapshot(graph, tmp_path):
    """It does not start from those before it: a model meets the same features in training and later."""
    few = history(EVENTS, CUTS[-1:]).build(tmp_path / "graph", resolutions=[(4, 4), (8, 8)])
    for one, other in zip(few.snapshots, graph.snapshots[-2:], strict=True):
        for name in SKETCH:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name])


def test_the_latest_snapshot_alone_is_a_graph(graph, tmp_path):
    graph.save_latest(tmp_path / "graph")
    alone = MacroGraph.open(tmp_path / "graph")
    assert differences(contents(alone, 0), contents(graph, LATEST)) == []
    assert (alone.latest.n_users, alone.latest.cut) == (graph.latest.n_users, graph.latest.cut)
    assert repr(alone) == repr(graph).replace("snapshots 4", "snapshots 1")


def test_the_description_is_of_the_latest_snapshot(graph):
    text = graph.describe()
    assert (text["users"], text["items"], text["snapshots"]) == (150, 100, 4)
    assert text["pairs"] == len({event[:2] for event in EVENTS})
    assert [part["macro_users"] for part in text["resolutions"]] == [4, 8]
    assert json.loads(json.dumps(text)) == text


def _damage_missing(folder):
    (folder / "snapshots" / "01" / "r0.user_macro.npy").unlink()


def _damage_truncated(folder):
    file = folder / "snapshots" / "01" / "user_vectors.npy"
    file.write_bytes(file.read_bytes()[:200])


def _damage_empty(folder):
    (folder / "snapshots" / "01" / "u1.npy").write_bytes(b"")


def _damage_pickle(folder):
    np.save(folder / "snapshots" / "01" / "i2.npy", np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _damage_missing,
            r"r0.user_macro.npy: the graph is damaged: this array is missing; build the graph again",
        ),
        (
            _damage_truncated,
            r"user_vectors.npy: the graph is damaged: this array cannot be read \(.*\); build the graph",
        ),
        (_damage_empty, r"u1.npy: the graph is damaged: this array cannot be read"),
        (_damage_pickle, r"i2.npy: the graph is damaged: this array cannot be read"),
    ],
)
def test_a_damaged_graph_says_which_array(tmp_path, damage, message):
    graph = history(EVENTS[:200]).build(tmp_path / "graph")
    damage(graph.path)
    with pytest.raises(GraphError, match=message):
        MacroGraph.open(graph.path).snapshots[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"holds no macro graph \(graph.json is missing\); `mgoe graph build` makes one"),
        ('{"format": 1', r"graph.json: cannot be read"),
        (
            '{"format": 99}',
            r"reads graph format 5, found 99; build the graph again .* or install the version of mgoe that",
        ),
        ('{"format": "4"}', r"reads graph format 5, found 4"),
        ("[]", r"reads graph format 5, found None"),
        ("{}", r"reads graph format 5, found None"),
    ],
)
def test_a_folder_that_is_no_graph_of_this_version_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "graph.json").write_text(text)
    with pytest.raises(GraphError, match=message):
        MacroGraph.open(tmp_path)


def test_a_manifest_that_lacks_what_a_graph_needs_is_refused(tmp_path):
    (tmp_path / "graph.json").write_text('{"format": 5}')
    with pytest.raises(
        GraphError, match=r"graph.json: the graph is damaged: 'engine' is missing; build the graph again"
    ):
        MacroGraph.open(tmp_path)


# --- what it says of itself ---


def test_the_manifest_says_what_the_graph_is_of(graph):
    manifest, times = graph.manifest, [event[2] for event in EVENTS]
    assert (manifest.format, manifest.engine, manifest.bucket) == (5, "local", BUCKET)
    assert (manifest.events, manifest.first, manifest.last) == (len(EVENTS), min(times), max(times))
    assert manifest.cuts == [*CUTS, max(times) // BUCKET]
    log = history(EVENTS)
    assert (manifest.users, manifest.items) == (log.users_at.tolist(), log.items_at.tolist())
    assert manifest.pairs == [len(log.until(s).drop_duplicates(["user", "item"])) for s in range(LATEST + 1)]
    assert manifest.settings.resolutions == manifest.resolutions == [(4, 4), (8, 8)]
    assert graph.task_mask_scores[0b101] == pytest.approx(np.log(5))


def test_every_file_is_listed_with_its_size_and_no_other_is_there(graph):
    files = {
        file.relative_to(graph.path).as_posix(): file.stat().st_size
        for file in graph.path.rglob("*")
        if file.is_file()
    }
    assert files.pop("graph.json")
    assert files == {name: file.bytes for name, file in graph.manifest.files.items()}
    assert {name.split("/")[0] for name in files} == {"snapshots"}


# --- checksums ---


def _one_bit(file: Path) -> None:
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    file.unlink()  # it may share its bytes with another graph
    file.write_bytes(held)


def _shorter(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("damage", "found"),
    [(_one_bit, "it differs"), (_shorter, "it differs"), (_longer, "it differs"), (_gone, "it is missing")],
)
def test_every_damaged_file_is_found(copied, damage: Callable[[Path], None], found):
    copied.verify()
    for name in copied.manifest.files:
        file = copied.path / name
        before = file.read_bytes()
        damage(file)
        with pytest.raises(GraphError) as error:
            copied.verify()
        assert str(error.value).startswith(
            f"{file}: the graph is damaged: every file must be as it was written, found that {found}"
        )
        file.write_bytes(before)
    copied.verify()


def test_the_latest_snapshot_alone_keeps_its_checksums(graph, tmp_path):
    graph.save_latest(tmp_path / "alone")
    alone = MacroGraph.open(tmp_path / "alone")
    alone.verify()
    assert len(alone.manifest.files) == len(graph.manifest.files) / (LATEST + 1)
    assert alone.manifest.since == CUTS[-1]
    _one_bit(alone.folder(0) / "u1.npy")
    with pytest.raises(GraphError, match=r"u1.npy: the graph is damaged"):
        alone.verify()


def test_the_checksum_of_a_graph_is_that_of_its_arrays(graph, copied, tmp_path):
    assert copied.checksum == graph.checksum
    other = history(EVENTS[1:]).build(tmp_path / "other", resolutions=[(4, 4), (8, 8)])
    assert other.checksum != graph.checksum
