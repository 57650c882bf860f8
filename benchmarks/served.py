"""A bundle of any size in a few minutes: a random log, its true macro graph, and a model with fresh weights.

Macro nodes are random, since their members do not change the speed of a service; the rest is as `mgoe run`
writes it.

python benchmarks/served.py OUT [--users 1000000] [--items 200000] [--k 100] [--tasks 3] [--models mgoe paper]
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mgoe._util.files import write_json
from mgoe.bundle import write_bundle
from mgoe.bundle.population import POPULATION, Population
from mgoe.config import RetrievalSettings, RunSettings, make_settings
from mgoe.data import Prepared, Vocabulary
from mgoe.data.example_file import ExampleWriter
from mgoe.data.features import FeatureEncoders
from mgoe.data.side import SideFeatures
from mgoe.features import View, read
from mgoe.graph import MacroGraph, Source, build_graph
from mgoe.models import FeatureSpec, TaskSpec, make_model, resolve
from mgoe.training.checkpoint import save_checkpoint

MODELS = {
    "mgoe": {"name": "mgoe", "base": "mgoe"},
    "paper": {
        "name": "paper",
        "base": "mgoe-paper",
        "inputs": ["ids", "side", "context", "aggregates"],
        "options": {"width": 32},
    },
}
"""`mgoe` as a run builds it by default; `paper`, the form of the paper without recents, as in `train.py`."""
TASKS = ("click", "favour", "cart", "buy")
EVENTS = 10
"""A user, on average."""
DAYS = 30
DAY = 86_400_000_000
BESIDE = ((6, 8), (12, 20), (25, 50), (300, 300))
"""Resolutions beside the dense one."""


def made_up_bundle(
    out: Path,
    users: int = 1_000_000,
    items: int = 200_000,
    k: int = 100,
    tasks: int = 3,
    models: Sequence[str] = ("mgoe",),
    retrieval: RetrievalSettings | None = None,
) -> list[Path]:
    """Write one bundle per model, on one graph.

    Args:
        out: Their folder.
        users, items: How many.
        k: Macro nodes of either side at the dense resolution.
        tasks: T.
        models: Names of `MODELS`, each of a bundle.
        retrieval: How candidates are retrieved; None if the whole catalogue is ranked.
    """
    resolutions = sorted([*BESIDE, (k, k)])
    settings = make_settings(
        {
            "data": {"log": "made-up.parquet"},
            "tasks": list(TASKS[:tasks]),
            "negatives": {"distribution": "uniform"},
            "graph": {
                "resolutions": [list(sizes) for sizes in resolutions],
                "dense": resolutions.index((k, k)),
                "clusters": "random",
                "rounds": 0,
                "power_iterations": 1,
                "snapshots": "last",
                "sample": 20_000,
            },
            "models": [MODELS[name] for name in models],
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        folder = Path(scratch)
        prepared = _encoders(folder / "data", users, items, settings)
        graph = build_graph(
            _history(folder / "history.parquet", users, items, settings), settings.graph, folder / "graph"
        )
        spec = _spec(graph, settings, users, items)
        for model in settings.models:
            resolved, cell = resolve(model), folder / model.name
            cell.mkdir()
            (cell / "spec.json").write_text(spec.to_json(), encoding="utf-8")
            write_json(cell / POPULATION, Population(scores={}, inputs={}).model_dump())
            save_checkpoint(cell / "model.safetensors", make_model(resolved, spec, seed=0).state_dict(), {})
            write_bundle(
                out / model.name,
                settings=settings,
                model=resolved,
                cell=cell,
                prepared=prepared,
                graph=graph,
                metrics=[],
                retrieval=retrieval,
            )
    return [out / model.name for model in settings.models]


def id_of(index: np.ndarray) -> np.ndarray:
    """Return the ids of nodes by index."""
    return index * 7 + 11


def _encoders(folder: Path, users: int, items: int, settings: RunSettings) -> Prepared:
    folder.mkdir()
    for name, n in (("users", users), ("items", items)):
        Vocabulary(pa.array(id_of(np.arange(n, dtype=np.int64)))).save(folder / f"{name}.parquet")
    for name in ("user_side", "item_side"):
        SideFeatures(FeatureEncoders(), {}).save(folder / name)
    FeatureEncoders().save(folder / "context")
    with ExampleWriter(
        folder, np.arange(3, dtype=np.int32), settings.tasks
    ) as none:  # what bundles count negatives in
        none.write(*np.empty((3, 0), np.int64), np.empty((0, len(settings.tasks)), np.float32))
    summary = {
        "negatives_per_positive": 4.0,
        "positives_per_user_bucket": 2.0,
        "rows": users * EVENTS,
        "users": users,
        "items": items,
        "dropped_rows": {},
        "warnings": [],
        "splits": {},
    }
    at = {"cuts": [], "users_at": [users], "items_at": [items], "until": 0}
    return Prepared(
        folder,
        {
            "settings": settings.model_dump(mode="json"),
            "summary": summary,
            "tasks": settings.task_names,
            **at,
        },
    )


def _history(file: Path, users: int, items: int, settings: RunSettings) -> Source:
    """Every node has an event; degrees are skewed on both sides."""
    rng = np.random.default_rng(0)
    n = users * EVENTS
    columns = {
        "user": skewed(rng, n, users),
        "item": rng.permutation(skewed(rng, n, items)),
        "time": rng.integers(0, DAYS * DAY, n),
        "task": (rng.random(n) ** 3 * len(settings.tasks)).astype(np.int8),
    }
    pq.write_table(pa.table(columns), file)
    at = np.array([users]), np.array([items])
    return Source(
        ibis.duckdb.connect(threads=2).read_parquet(file), np.empty(0, np.int32), *at, settings.ranks, DAY
    )


def skewed(rng: np.random.Generator, n: int, nodes: int) -> np.ndarray:
    """Draw n nodes, each at least once, those of small indices more often."""
    return np.concatenate([np.arange(nodes), (rng.random(n - nodes) ** 2 * nodes).astype(np.int64)])


def _spec(graph: MacroGraph, settings: RunSettings, users: int, items: int) -> FeatureSpec:
    latest, rng = graph.latest, np.random.default_rng(1)
    sample = read(
        View.of(latest),
        rng.integers(0, users, 2000),
        rng.integers(0, items, 2000),
        ("counts", "pair", "sketch", "edges", "aggregates", "repeats", "trend", "links"),
    )
    floats = {key: values for key, values in sample.items() if values.dtype == np.float32}
    dense = {key: torch.from_numpy(values).double() for key, values in floats.items()}
    return FeatureSpec(
        tasks=tuple(TaskSpec(name) for name in settings.task_names),
        n_users=users,
        n_items=items,
        macro_users=latest.macro_users,
        macro_items=latest.macro_items,
        recents=settings.graph.recents,
        widths={key: values.shape[1] for key, values in dense.items()},
        moments={
            key: (tuple(values.mean(0).tolist()), tuple(values.std(0).tolist()))
            for key, values in dense.items()
        },
        task_mask_scores=graph.task_mask_scores,
    )


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    for name, default in (("users", 1_000_000), ("items", 200_000), ("k", 100), ("tasks", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mgoe"])
    print(*made_up_bundle(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
