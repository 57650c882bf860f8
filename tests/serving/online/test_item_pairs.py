"""The index of a graph's pairs by item: written once, durable, and replaced when it is damaged."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from mgoe.data import Vocabulary
from mgoe.serving.events.event import Event
from mgoe.serving.online.base_values import INDEX, item_rows
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.state import LiveBase
from tests.graph.histories import BUCKET
from tests.serving.online.worlds import BEHAVIORS, World, read


def test_an_index_in_a_folder_is_made_once_and_reads_the_same(large: World, tmp_path: Path):
    users, items = (Vocabulary(pa.array(np.arange(n))) for n in (large.users, large.items))
    ids = {"user": users, "item": items}
    (tmp_path / "index-of-another").mkdir()
    first = LiveNodes(LiveBase.of(large.graph, ids, BEHAVIORS, tmp_path))
    held = [path.name for path in tmp_path.glob("*index-*")]
    assert len(held) == 1
    made = (tmp_path / held[0] / "other.npy").stat().st_mtime_ns
    second = LiveNodes(LiveBase.of(large.graph, ids, BEHAVIORS, tmp_path))
    assert (tmp_path / held[0] / "other.npy").stat().st_mtime_ns == made
    for live in (first, second):
        live.apply([Event(0, i, "buy", 10 * BUCKET) for i in range(20)])
    a, b = (read(live, 5, 30) for live in (first, large_with(large, 20)))
    for name in a:
        assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("part", INDEX)
@pytest.mark.parametrize("size", [None, 0, 100, -1])
def test_a_damaged_index_is_written_again(large: World, tmp_path: Path, part: str, size: int | None):
    wanted = item_rows(large.graph, tmp_path)
    file = next(tmp_path.glob("index-*")) / f"{part}.npy"
    held = file.read_bytes()
    file.unlink()  # it is mapped
    if size is not None:
        file.write_bytes(held[:size])
    found = item_rows(large.graph, tmp_path)
    for name in INDEX:
        assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert [path.name for path in tmp_path.glob("*") if path.is_dir()] == [file.parent.name]
    made = file.stat().st_mtime_ns
    item_rows(large.graph, tmp_path)
    assert file.stat().st_mtime_ns == made


def large_with(large: World, items: int) -> LiveNodes:
    live = large.live()
    live.apply([Event(0, i, "buy", 10 * BUCKET) for i in range(items)])
    return live
