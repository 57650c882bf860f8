"""What memory a build needs, and that a graph does not depend on how much of it there is."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from mgoe._util.files import GIB
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph import Observer, build_graph, fold, pair_rows, update_graph
from mgoe.graph.build import clusters, snapshot_builder
from mgoe.graph.build import sizes as module
from mgoe.graph.build.sizes import BYTES_PER_SAMPLED_PAIR, PROCESS, check_memory, memory_needed
from mgoe.graph.build.workplace import building
from mgoe.graph.engines import local
from tests.effort import SOAK
from tests.graph.histories import contents, differences, history, planted


class Measured(Observer):
    """Bytes that Python and NumPy held at most in each stage, beyond what they held when it began."""

    def __init__(self):
        self.peak: dict[str, int] = {}
        self.name, self.held = "", 0

    def stage(self, name, total, unit):
        held, peak = tracemalloc.get_traced_memory()
        self.peak[self.name] = peak - self.held
        self.name, self.held = name, held
        tracemalloc.reset_peak()
        return lambda done: None


@pytest.mark.parametrize(
    ("users", "items", "events", "settings"),
    [
        pytest.param(300, 9000, 40_000, {}, id="items"),
        pytest.param(9000, 3000, 40_000, {"sample": 1000}, id="a sample"),
        pytest.param(2000, 600, 200_000, {"rank": 4}, id="pairs"),
        *[
            pytest.param(9000, 300, 40_000, {}, id="users"),
            pytest.param(4000, 4000, 40_000, {}, id="both"),
            pytest.param(2000, 6000, 40_000, {"rank": 100}, id="rank"),
        ]
        * SOAK,
    ],
)
def test_learning_the_sketch_needs_what_was_said(tmp_path, users, items, events, settings):
    log = history(planted(users, items, 4, events), cuts=())
    for name, sample in (("all", 1000), ("some", 100)):
        history(planted()).build(tmp_path / name, sample=sample)  # machine code is loaded
    seen = Measured()
    tracemalloc.start()
    try:
        graph = log.build(tmp_path / "graph", observer=seen, resolutions=[(2, 2)], **{"rank": 48, **settings})
    finally:
        tracemalloc.stop()
    said = memory_needed(
        graph.latest.n_users,
        graph.latest.n_items,
        GraphSettings(resolutions=[(2, 2)], **{"rank": 48, **settings}),
        graph.manifest.pairs[-1],
    )
    assert seen.peak["00: sketch"] == pytest.approx(said - PROCESS, rel=0.15)


def test_the_rule_for_many_items_is_twelve_bytes_an_item_and_number():
    settings = GraphSettings(rank=118)
    assert memory_needed(0, 10**6, settings) - memory_needed(0, 0, settings) == 3 * 4 * 128 * 10**6
    assert memory_needed(10**6, 10**6, settings) == memory_needed(
        settings.sample, 10**6, settings
    )  # a sample learns
    assert (
        memory_needed(10**6, 0, settings, 10**7) - memory_needed(10**6, 0, settings)
        == BYTES_PER_SAMPLED_PAIR * 2 * 10**6
    )


def test_too_little_memory_is_refused_before_anything_is_read(tmp_path):
    """What is known of the source suffices: its history could not even be read here."""
    source = replace(
        history(planted()).source(tmp_path / "log.parquet"), items_at=np.array([10, 10, 10, 3_000_000])
    )
    source = replace(source, history=None)  # type: ignore[arg-type]
    with pytest.raises(GraphError) as error:
        build_graph(source, GraphSettings(), tmp_path / "graph")
    assert str(error.value) == (
        "memory: the sketch must be learned in memory, "
        "and 3,000,000 items and 150 users at rank 128 need 4.80 GiB, found 4; "
        "raise memory, or lower graph.rank or graph.sample"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


@pytest.mark.parametrize(("memory", "rank"), [(5, 128), (4, 100), (4, 64)])
def test_the_fix_of_the_message_works(memory, rank):
    check_memory(150, 3_000_000, GraphSettings(rank=rank), memory)
    check_memory(10**9, 10**4, GraphSettings(sample=10**6), 4)
    with pytest.raises(GraphError, match="10,000 items and 4,000,000 users"):
        check_memory(10**9, 10**4, GraphSettings(sample=4 * 10**6), 4)


def test_pairs_that_do_not_fit_are_refused_once_they_are_counted_and_the_build_resumes_with_more(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "BYTES_PER_SAMPLED_PAIR", 1 << 20)
    source = history(planted()).source(tmp_path / "log.parquet")
    with pytest.raises(GraphError, match=r"150 users at rank 8 need 2.* GiB, found 0.25"):
        build_graph(source, GraphSettings(rank=8), tmp_path / "graph", memory=0.25)
    seen = Measured()
    build_graph(source, GraphSettings(rank=8), tmp_path / "graph", seen, memory=9)
    assert "pairs" not in seen.peak


def test_a_graph_that_keeps_macro_nodes_learns_nothing_and_needs_nothing(tmp_path, monkeypatch):
    graph = history(planted()).build(tmp_path / "graph")
    monkeypatch.setattr(module, "PROCESS", 100 * GIB)
    with pytest.raises(GraphError, match=r"^memory: "):
        history(planted()).build(tmp_path / "again")
    history(planted()).build(tmp_path / "again", keep=graph)


# --- more of it changes nothing ---


@pytest.fixture(scope="module")
def roomy(tmp_path_factory):
    """With memory for everything at once."""
    return history(planted(events=6000)).build(
        tmp_path_factory.mktemp("memory") / "graph", memory=64, resolutions=[(4, 4), (8, 8)]
    )


def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First and last item of each pass over the pairs, as they are made."""
    made, whole = [], pair_rows.some_by_item

    def noted(rows, item_indptr, first, last, threads=1):
        made.append((first, last))
        return whole(rows, item_indptr, first, last, threads)

    monkeypatch.setattr(pair_rows, "some_by_item", noted)
    return made


def test_little_memory_gives_the_same_graph_in_many_passes(roomy, tmp_path, monkeypatch):
    """Chunks, blocks and shares of the memory so small that every loop over them runs many times."""

    made, blocks_of = passes(monkeypatch), pair_rows.PairRows.blocks
    again = history(planted(events=6000)).build(tmp_path / "same", memory=64, resolutions=[(4, 4), (8, 8)])
    assert len(made) == len(again.snapshots)
    made.clear()
    monkeypatch.setattr(local, "BY_ITEM_SHARE", 2e-6)
    monkeypatch.setattr(snapshot_builder, "MATRIX_SHARE", 0.0)
    for place, name, size in (
        (fold, "CHUNK", 100),
        (snapshot_builder, "NODES_AT_ONCE", 7),
        (clusters, "ROWS", 9),
    ):
        monkeypatch.setattr(place, name, size)
    monkeypatch.setattr(pair_rows.PairRows, "blocks", lambda rows: blocks_of(rows, pairs=50, nodes=6))
    little = history(planted(events=6000)).build(
        tmp_path / "graph", memory=0.25, resolutions=[(4, 4), (8, 8)], threads=2
    )
    assert len(made) > 20 * len(little.snapshots)
    for s in range(len(roomy.snapshots)):
        assert differences(contents(little, s), contents(roomy, s)) == [], s
    assert little.manifest.drift == roomy.manifest.drift


def test_macro_nodes_are_learned_again_only_where_memory_suffices(tmp_path, monkeypatch):
    graph = history(planted()).build(tmp_path / "graph")
    monkeypatch.setattr(module, "PROCESS", int(graph.manifest.settings.memory * GIB))
    with pytest.raises(GraphError, match=r"^memory: the sketch must be learned in memory"):
        update_graph(graph, None, recluster=True)
    assert not building(graph.path).exists()
