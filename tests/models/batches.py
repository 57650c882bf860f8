"""Random specs and batches in the shape that the trainer's feed makes them."""

import torch

from mgoe.features.spec import RateSpec
from mgoe.models import Batch, CategoricalSpec, FeatureSpec, TaskSpec

UNTRAINED = ("rates", "popularity", "history", "constant")
"""Models that read a group of their own and learn an intercept alone."""
RATES = tuple(
    RateSpec(name, tuple((side, side) for side in sides), len(sides) == 1)
    for name, sides in {"user": ["user"], "item": ["item"], "hour x brand": ["context", "item"]}.items()
)
"""Groups of exposures."""


def make_spec(
    tasks: tuple[TaskSpec, ...] | int = 3, dense: tuple[int, int, int, int] = (5, 4, 3, 15), **changes
) -> FeatureSpec:
    """A spec with every kind of feature; `dense` are the widths of counts, pair, sketch and edges."""
    if isinstance(tasks, int):
        tasks = tuple(TaskSpec(f"t{t}") for t in range(tasks))
    widths = dict(zip(("counts", "pair", "sketch", "edges"), dense, strict=True))
    widths |= {"user_side_numeric": 2, "item_side_numeric": 1, "context_numeric": 1}
    if "rates" in changes:
        widths["rates"] = sum(one.width(len(tasks)) for one in changes["rates"])
    generator = torch.Generator().manual_seed(1)
    moments = {
        key: (
            tuple(torch.randn(n, generator=generator).tolist()),
            tuple((torch.rand(n, generator=generator) + 0.5).tolist()),
        )
        for key, n in widths.items()
    }
    spec = {
        "n_users": 30,
        "n_items": 40,
        "macro_users": 5,
        "macro_items": 7,
        "recents": 4,
        "widths": widths,
        "moments": moments,
        "user_side": (CategoricalSpec("age", 6), CategoricalSpec("tags", 5, multi=True)),
        "item_side": (CategoricalSpec("brand", 8),),
        "context": (CategoricalSpec("hour", 4),),
        "positions": 3,
        "task_mask_scores": tuple(float(bin(code).count("1")) for code in range(1 << len(tasks))),
    }
    return FeatureSpec(tasks=tasks, **(spec | changes))


def random_batch(spec: FeatureSpec, rows: int = 64, seed: int = 0) -> Batch:
    """Every key a batch can hold: some rows cold, some recents and tags empty, a tenth of the labels
    missing."""
    g = torch.Generator().manual_seed(seed)

    def codes(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, (rows, *shape), generator=g)

    tasks, recents, ku, ki = len(spec.tasks), spec.recents, spec.macro_users, spec.macro_items
    batch: Batch = {
        "user": codes(0, spec.n_users + 1),
        "item": codes(0, spec.n_items + 1),
        "user_macro": codes(0, ku + 1),
        "item_macro": codes(0, ki + 1),
        "position": codes(0, max(spec.positions, 1)),
        "table_user": codes(0, ki + 1, tasks),
        "table_item": codes(0, ku + 1, tasks),
        "weight": torch.rand(rows, generator=g) + 0.5,
    }
    for key, width in spec.widths.items():
        batch[key] = torch.randn(rows, width, generator=g) * 2
    for key, nodes in (("u1", ki), ("u2", ku), ("i1", ku), ("i2", ki)):
        edges = torch.rand(rows, nodes, generator=g) * 4 * (torch.rand(rows, nodes, generator=g) < 0.6)
        batch[key] = edges * (torch.rand(rows, 1, generator=g) < 0.9)
    for key, size, cold in (("recent_items", spec.n_items, ki), ("recent_users", spec.n_users, ku)):
        padded = torch.arange(recents)[None] >= codes(0, recents + 1)[:, None]
        batch[key] = codes(0, size, recents).masked_fill(padded, -1)
        batch[f"{key}_macro"] = codes(0, cold + 1, recents).masked_fill(padded, cold)
        batch[f"{key}_task_mask"] = codes(1, 1 << tasks, recents).masked_fill(padded, 0)
    for kind in ("user_side", "item_side", "context"):
        for feature in getattr(spec, kind):
            shape = (3,) if feature.multi else ()
            batch[f"{kind}.{feature.name}"] = codes(-1 if feature.multi else 0, feature.size, *shape)
    labels = torch.randint(0, 2, (rows, tasks), generator=g).float()
    batch["labels"] = labels.masked_fill(torch.rand(rows, tasks, generator=g) < 0.1, torch.nan)
    return batch


def take(batch: Batch, rows: slice | torch.Tensor) -> Batch:
    return {key: value[rows] for key, value in batch.items()}
