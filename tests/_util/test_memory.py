"""Memory of the machine, its container and this process."""

from pathlib import Path

import numpy as np
import pytest

from mgoe._util import memory


def test_a_container_limits_the_available_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    machine = memory.available_memory()
    assert machine > 0
    (tmp_path / "memory.current").write_text("60000\n")
    for limit, expected in (("100000\n", 40_000), ("50000\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert memory.available_memory() == expected
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 100_000


def test_anonymous_memory_counts_arrays_and_not_mapped_files(tmp_path: Path):
    size = 64 << 20
    np.save(tmp_path / "array.npy", np.ones(size, np.uint8))
    before = memory.anonymous_memory()
    mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
    assert mapped.sum() == size
    assert memory.anonymous_memory() - before < size // 2
    array = np.ones(size, np.uint8)
    assert memory.anonymous_memory() - before > size // 2
    assert array.size == size
