"""What of the exposures helps: `mgoe` again, each time without one thing.

    python benchmarks/ablation.py RUN [--seeds 0,1,2]

RUN is the folder of a run on an exposure log. Every variant is trained on its examples and its graph, stopped
early on its validation window and measured on its test window. In a variant

- `no_exposures` models read no rates: what was shown and not done is forgotten;
- `no_given`, `no_learned` groups by categories, or by macro nodes, are not counted;
- `no_windows` groups over the last buckets are not counted;
- `no_adjusted` there are no rates against what user, item and context alone would give;
- `no_shrinkage` the weight of every prior is 1 label instead of the one that is fitted;
- `merged` groups by macro nodes have one rate for all tasks together instead of one per task (this and
  `no_learned` differ from `mgoe` only if `graph.rates` names macro nodes);
- `one_expert` a shared bottom reads the same inputs, with the same knots.

One line per figure, `{name, value, unit, against, ratio}`: `ablation.VARIANT.mean`, `.auc`, `.gauc`, means
over tasks and seeds; `against` is `mgoe`, and the ratio is the figure less that of `mgoe`, with `.low` and
`.high`, the least and the largest difference over seeds of the mean.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import line
from mgoe.config import ModelSettings, RunSettings, load_settings
from mgoe.evaluation import measure
from mgoe.experiments.cell import fit_model
from mgoe.experiments.inputs import Inputs
from mgoe.graph.rates import RateGroup, Rates, RateTable
from mgoe.graph.shrinkage import fit_prior
from mgoe.models import resolve
from mgoe.training import predict

FULL = ModelSettings(name="mgoe", base="mgoe")
ONE_EXPERT = ModelSettings(name="one_expert", base="shared-bottom+mgoe", options={"knots": [-1.0, 0.0, 1.0]})
METRICS = {"mean": "ranking", "auc": "auc", "gauc": "gauc"}
Change = Callable[[Rates], Rates]


def without(left_out: Callable[[RateGroup], bool]) -> Change:
    """Return a change that leaves groups out."""

    def change(rates: Rates) -> Rates:
        kept = [g for g, group in enumerate(rates.groups) if not left_out(group)]
        return replace(
            rates,
            groups=tuple(rates.groups[g] for g in kept),
            tables=tuple(rates.tables[g] for g in kept),
            adjusted=tuple(rates.adjusted[g] for g in kept),
        )

    return change


def has(kind: str) -> Callable[[RateGroup], bool]:
    """Return whether a group has an axis of a kind."""
    return lambda group: any(axis.kind == kind for axis in group.axes)


def not_adjusted(rates: Rates) -> Rates:
    """Return the same with adjusted rates of 0."""
    nothing = tuple(None if one is None else np.zeros_like(one) for one in rates.adjusted)
    return replace(rates, adjusted=nothing)


def not_shrunk(rates: Rates) -> Rates:
    """Return the same with priors of one label."""
    tables = [
        table._replace(prior=np.stack([table.prior[:, 0], np.ones(len(table.prior))], axis=1))
        for table in rates.tables
    ]
    return replace(rates, tables=tuple(tables))


def merged(rates: Rates) -> Rates:
    """Return the same with the labels of all tasks together in groups by macro nodes."""
    tables = [
        _merged(table, len(rates.regressions)) if has("macro")(group) else table
        for group, table in zip(rates.groups, rates.tables, strict=True)
    ]
    return replace(rates, tables=tuple(tables))


def _merged(table: RateTable, tasks: int) -> RateTable:
    counts: NDArray[np.int64] = np.array(table.counts, np.int64)
    counts[:, 1 : 1 + tasks] = counts[:, 1 : 1 + tasks].sum(axis=1, keepdims=True)
    counts[:, 1 + tasks :] = counts[:, 1 + tasks :].sum(axis=1, keepdims=True)
    cells = slice(int(table.indptr[0]), int(table.indptr[-1]))
    prior = np.array([fit_prior(counts[cells, 1], counts[cells, 1 + tasks])] * tasks)
    return table._replace(counts=counts, prior=prior)


VARIANTS: dict[str, Change] = {
    "no_given": without(has("category")),
    "no_learned": without(has("macro")),
    "no_windows": without(lambda group: group.last is not None),
    "no_adjusted": not_adjusted,
    "no_shrinkage": not_shrunk,
    "merged": merged,
}


def main() -> None:
    """Train and measure every variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run on an exposure log")
    parser.add_argument("--seeds", default="0,1,2", help="0,1,2 by default")
    given = parser.parse_args()
    settings, seeds = load_settings(given.run / "settings.yaml"), [*map(int, given.seeds.split(","))]

    def inputs(change: Change = lambda rates: rates) -> Inputs:
        found = Inputs.open(given.run, settings)
        for snapshot in found.graph.snapshots:
            assert snapshot.rates is not None, "the run must be on an exposure log"
            object.__setattr__(snapshot, "rates", change(snapshot.rates))
        return found

    as_is = inputs()
    full = fitted(FULL, settings, as_is, seeds)
    no_rates = [name for name in as_is.decided(resolve(FULL)).inputs or () if name != "rates"]
    show("mgoe", full, full)
    show("no_exposures", fitted(FULL.model_copy(update={"inputs": no_rates}), settings, as_is, seeds), full)
    for name, change in VARIANTS.items():
        show(name, fitted(FULL, settings, inputs(change), seeds), full)
    show("one_expert", fitted(ONE_EXPERT, settings, as_is, seeds), full)


def fitted(
    model: ModelSettings, settings: RunSettings, inputs: Inputs, seeds: list[int]
) -> list[dict[str, float]]:
    """Return the figures of a model for each seed."""
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            trained, feeds, _ = fit_model(
                inputs.resolve_ids(resolve(model)), seed, settings, inputs, Path(folder)
            )
            examples = feeds["test"].examples
            rows = measure(
                predict(trained, feeds["test"]), examples.labels, examples.user, inputs.spec.tasks,
                model=model.name, seed=seed, split="test",
            )  # fmt: skip
        values = {row["metric"]: float(row["value"]) for row in rows if row["task"] == "all"}
        found.append({name: values[metric] for name, metric in METRICS.items()})
    return found


def show(name: str, found: list[dict[str, float]], full: list[dict[str, float]]) -> None:
    """Print what a variant has, against the full model."""
    for metric in METRICS:
        value, against = (mean(one[metric] for one in several) for several in (found, full))
        line(f"ablation.{name}.{metric}", value, "auc", against, value - against)
    differences = [one["mean"] - other["mean"] for one, other in zip(found, full, strict=True)]
    line(f"ablation.{name}.low", min(differences), "auc")
    line(f"ablation.{name}.high", max(differences), "auc")


if __name__ == "__main__":
    main()
