"""The benchmark of recommendations: what it builds from."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.recommend import GENERATORS, build, made_snapshot


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_is_built_from_a_made_up_snapshot(generator: str, tmp_path: Path):
    folder = made_snapshot(tmp_path / "snapshot", 2_000, 100)
    degree = np.diff(np.load(folder / "pairs.indptr.npy"))
    assert (degree > 0).all()
    assert degree.sum() == len(np.load(folder / "pairs.item.npy"))
    figures = build(generator, folder)
    assert figures["build"] > 0
    assert ("update" in figures) == (generator != "lists")
