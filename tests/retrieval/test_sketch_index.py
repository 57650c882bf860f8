"""An index that is updated finds what it would find if all vectors were placed in its cells anew."""

from pathlib import Path

import faiss
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.graph.sketch import unit_rows
from mgoe.retrieval.sketch_index import FormerIndex, SketchIndex, write_index
from tests.effort import up_to

RANK = 4
ITEMS = 400


def random_vectors(rng: np.random.Generator, items: int) -> np.ndarray:
    vectors = rng.normal(size=(items, RANK)).astype(np.float32)
    vectors[rng.random(items) < 0.1] = 0
    return vectors


def changed_vectors(rng: np.random.Generator, vectors: np.ndarray, share: float, more: int) -> np.ndarray:
    changed = np.flatnonzero(rng.random(len(vectors)) < share)
    after = vectors.copy()
    after[changed] = random_vectors(rng, len(changed))
    return np.concatenate([after, random_vectors(rng, more)])


@up_to(10)
@given(seed=st.integers(0, 1 << 16), share=st.floats(0, 0.3), more=st.integers(0, 60))
def test_an_update_equals_placing_every_item_again(tmp_path_factory, seed: int, share: float, more: int):
    folder, rng = tmp_path_factory.mktemp("index"), np.random.default_rng(seed)
    before = random_vectors(rng, ITEMS)
    after = changed_vectors(rng, before, share, more)
    write_index(before, folder / "before")
    write_index(after, folder / "after", FormerIndex(before, folder / "before", 0))
    anew = faiss.read_index(str(folder / "before"))
    assert anew.nlist > 1
    anew.reset()
    there = np.flatnonzero(after.any(axis=1))
    anew.add_with_ids(unit_rows(after[there]), there)
    faiss.write_index(anew, str(folder / "anew"))
    found, wanted = SketchIndex(folder / "after"), SketchIndex(folder / "anew")
    for query in rng.normal(size=(20, RANK)).astype(np.float32):
        assert_array_equal(found.nearest(query, 50), wanted.nearest(query, 50))


def test_nothing_changed_keeps_an_index_whose_cells_are_of_other_vectors(tmp_path: Path):
    rng = np.random.default_rng(0)
    before = random_vectors(rng, ITEMS)
    after = changed_vectors(rng, before, 0.2, 10)
    write_index(before, tmp_path / "before")
    placed = write_index(after, tmp_path / "one", FormerIndex(before, tmp_path / "before", 0))
    assert write_index(after, tmp_path / "two", FormerIndex(after, tmp_path / "one", placed)) == placed > 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert write_index(after, tmp_path / "new") == 0
    assert (tmp_path / "one").read_bytes() != (tmp_path / "new").read_bytes()


def test_cells_are_learned_again_after_many_small_updates(tmp_path: Path):
    rng = np.random.default_rng(4)
    vectors, placed, seen = random_vectors(rng, ITEMS), 0, list[int]()
    write_index(vectors, tmp_path / "index")
    for _ in range(6):
        after = changed_vectors(rng, vectors, 0.2, 0)
        placed = write_index(after, tmp_path / "index", FormerIndex(vectors, tmp_path / "index", placed))
        vectors = after
        seen.append(placed)
    assert 0 in seen
    assert max(seen) <= ITEMS / 2


def learned_again(folder: Path, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether an update of the index of some vectors equals an index of the later ones alone."""
    write_index(before, folder / "before")
    write_index(after, folder / "updated", FormerIndex(before, folder / "before", 0))
    write_index(after, folder / "new")
    return (folder / "updated").read_bytes() == (folder / "new").read_bytes()


def test_cells_are_learned_again_if_most_vectors_changed(tmp_path: Path):
    rng = np.random.default_rng(1)
    before = random_vectors(rng, ITEMS)
    assert learned_again(tmp_path, before, random_vectors(rng, ITEMS))
    assert not learned_again(tmp_path, before, changed_vectors(rng, before, 0.2, 10))


def test_cells_are_learned_again_where_there_were_none_or_too_few(tmp_path: Path):
    rng = np.random.default_rng(2)
    none, few = np.zeros((ITEMS, RANK), np.float32), np.zeros((ITEMS, RANK), np.float32)
    few[:40] = rng.normal(size=(40, RANK))
    some = none.copy()
    some[7] = 1.0
    assert learned_again(tmp_path, none, some)
    more = few.copy()
    more[40:200] = rng.normal(size=(160, RANK))  # fewer than half changed
    assert learned_again(tmp_path, few, more)


def test_a_sketch_of_another_rank_is_indexed_anew(tmp_path: Path):
    rng = np.random.default_rng(3)
    before = rng.normal(size=(50, RANK + 2)).astype(np.float32)
    assert learned_again(tmp_path, before, random_vectors(rng, 50))
