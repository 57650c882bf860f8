"""A bundle whose model reads features of items, made of another one: its weights are drawn, not trained."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

import mgoe
from mgoe.bundle import seal
from mgoe.config import FeatureSettings, RetrievalSettings, check_settings, dump_settings
from mgoe.data import FeatureEncoders, SideFeatures, Vocabulary
from mgoe.data.vectors import Space
from mgoe.evaluation import read_rows
from mgoe.features import CategoricalSpec
from mgoe.models import make_model
from mgoe.retrieval import Retrieval
from mgoe.training import save_checkpoint

SHELVES = ["left", "middle", "right"]
ENCODERS = FeatureEncoders(
    (
        FeatureSettings(name="shelf"),
        FeatureSettings(name="tags", kind="multi"),
        FeatureSettings(name="price", kind="numeric"),
        FeatureSettings(name="look", kind="vector"),
    ),
    {"shelf": Vocabulary(pa.array(SHELVES)), "tags": Vocabulary(pa.array([1, 2, 3]))},
    {"tags": 2},
    {"price": (10.0, 4.0)},
    {"look": Space.fit(LOOKS := np.random.default_rng(1).normal(1, 2, (100, 3)), "looks")},
)
RED = {"shelf": "middle", "tags": [2, 3], "price": 12, "look": [1.0, 0.0, -2.5]}
BLUE = {"shelf": "right", "tags": [], "price": 4.5, "look": None}
"""Features of items."""


def stocked(bundle: Path, path: Path, how: RetrievalSettings | None = None) -> Path:
    """Copy a bundle; all of its items but the first have features, and the model reads them."""
    shutil.copytree(bundle, path)
    (path / "bundle.json").unlink()
    shutil.rmtree(path / "item_side")
    held, drawn = mgoe.load(bundle), np.random.default_rng(0)
    n = held.size("item")
    given = {
        "shelf": drawn.choice(SHELVES, n).tolist(),
        "tags": drawn.integers(1, 4, (n, 2)).tolist(),
        "price": drawn.normal(10, 4, n).tolist(),
        "look": LOOKS[:n],
    }
    SideFeatures(ENCODERS, ENCODERS.encode(given, n)).without(np.array([0])).save(path / "item_side")
    names = {"shelf": 4, "tags": 4}
    spec = replace(
        held.model.spec,
        item_side=tuple(CategoricalSpec(name, size, name == "tags") for name, size in names.items()),
        widths=held.model.spec.widths | {"item_side_numeric": 1, "item_content": 4},
        moments=held.model.spec.moments | {"item_side_numeric": ((0.0,), (1.0,))},
    )
    model = make_model(held.model_settings, spec, seed=0)
    save_checkpoint(path / "model.safetensors", model.state_dict(), {})
    (path / "spec.json").write_text(spec.to_json())
    if how is not None:
        Retrieval.build(held.view, path / "retrieval", how)
    item_side = {"path": "items.parquet", "id": "item_id", "features": [*ENCODERS.features]}
    data = held.settings.data.model_dump() | {"items": item_side}
    settings = check_settings(type(held.settings), held.settings.model_dump() | {"data": data}, path)
    (path / "settings.yaml").write_text(dump_settings(settings))
    seal(path, held.manifest, settings, read_rows(path / "metrics.json"))
    return path
