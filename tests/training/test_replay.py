"""Tables that grow, and the memory of rows that are replayed."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mgoe
from mgoe.data import Prepared
from mgoe.errors import TrainingError
from mgoe.graph import MacroGraph
from mgoe.training import Feed, Replay, ReplayFeed
from mgoe.training.checkpoint import grown


@given(rows=st.integers(1, 6), more=st.integers(0, 5), width=st.integers(0, 3))
def test_known_rows_stay_and_new_ones_are_as_the_unseen(rows: int, more: int, width: int):
    table = torch.arange(rows * width, dtype=torch.float32).reshape(rows, width)
    found = grown({"t": table, "other": table}, {"t": torch.empty(rows + more, width)})
    assert set(found) == {"t"}
    assert torch.equal(found["t"][: rows - 1], table[:-1])
    assert all(torch.equal(row, table[-1]) for row in found["t"][rows - 1 :])


@pytest.mark.parametrize("shape", [(3, 3), (2, 2), (3,), ()])
def test_weights_of_another_model_are_refused(shape: tuple[int, ...]):
    with pytest.raises(TrainingError, match="'t' must have the shape"):
        grown({"t": torch.zeros(3, 2)}, {"t": torch.empty(shape)})


class Rows:
    """A feed of rows that are their own numbers."""

    def __init__(self, first: int, n: int):
        self.first, self.n = first, n

    def __len__(self) -> int:
        return self.n

    def block(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        numbers = torch.from_numpy(rows + self.first)
        return {"labels": numbers[:, None].float(), "weight": torch.ones(len(rows)), "user": numbers}


@given(days=st.lists(st.integers(0, 40), min_size=1, max_size=5), most=st.integers(0, 30))
def test_a_memory_is_a_sample_of_everything_that_it_was_shown(days: list[int], most: int):
    memory, total = None, 0
    for seed, n in enumerate(days):
        feed = cast(Feed, Rows(total, n))
        memory = memory.joined(feed, most, seed) if memory is not None else Replay.of(feed, most, seed)
        total += n
        numbers = memory.rows["user"].tolist()
        assert len(set(numbers)) == len(numbers) == len(memory) <= most
        assert set(numbers) <= set(range(total))
        assert memory.seen == total
    assert memory is not None
    if most >= total:
        assert len(memory) == total


@pytest.fixture(scope="module")
def fed(finished: Path) -> dict[str, Any]:
    """What a feed is made of."""
    model = mgoe.load(finished / "bundle").model
    prepared = Prepared.open(finished / "data")
    return {
        "encoders": prepared,
        "graph": MacroGraph.open(finished / "graph"),
        "needs": model.needs,
        "spec": model.spec,
    }


def test_a_replayed_row_is_what_was_read_at_its_time(fed: dict[str, Any], tmp_path: Path):
    train, valid = (fed["encoders"].examples(split) for split in ("train", "valid"))
    first = Feed(examples=train, **fed)
    Replay.of(first, most=50).save(tmp_path / "memory")
    memory = Replay.load(tmp_path / "memory")
    both = ReplayFeed(examples=valid, memory=memory, number=20, seed=1, **fed)
    assert len(both) == len(valid) + 20
    rows = np.arange(len(valid) - 5, len(both))
    new = Feed(examples=valid, **fed).block(rows[:5])
    stored = both.examples.take(rows[5:]).user
    for name, values in both.block(rows).items():
        assert torch.equal(values[:5], new[name]), name
        assert torch.equal(values[5:], memory.rows[name][stored]), name


@given(
    rows=st.integers(0, 50),
    width=st.integers(0, 3),
    kind=st.sampled_from(["float32", "float16", "int64", "uint8", "bool"]),
    seed=st.integers(0, 9),
)
def test_a_memory_is_kept_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: int, width: int, kind: str, seed: int
):
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (rows, width)).astype(kind))
    held = {"labels": drawn, "user": torch.arange(rows)}
    file = tmp_path_factory.mktemp("replay") / "memory"
    Replay(held, seen=99).save(file)
    found = Replay.load(file)
    assert (found.seen, found.rows.keys()) == (99, held.keys())
    for name, values in held.items():
        assert found.rows[name].dtype == values.dtype
        assert torch.equal(found.rows[name], values)


def test_the_unseen_stay_unseen_where_tables_grow(fed: dict[str, Any]):
    spec, train = fed["spec"], fed["encoders"].examples("train")
    memory = Replay.of(Feed(examples=train, **fed), most=30)
    memory.rows["user"][:3] = spec.n_users
    larger = replace(spec, n_users=spec.n_users + 7)
    moved = memory.for_spec(spec, larger, fed["needs"]).rows["user"]
    unseen = memory.rows["user"] == spec.n_users
    assert (moved[unseen] == larger.n_users).all()
    assert torch.equal(moved[~unseen], memory.rows["user"][~unseen])
