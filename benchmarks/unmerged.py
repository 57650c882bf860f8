"""One graph per task instead of a merged one: what merging brings to the experts of mgoe.

    python benchmarks/unmerged.py examples/tmall.yaml --set data.log=tmall.parquet \\
        --set seeds=[0,1,2] --out runs/unmerged

Each task has a macro graph of its own, built of its events alone: other macro nodes, other edges. The expert
of a task reads the edges of its task's graph where in mgoe all read those of the merged one, as aggregates
and as numbers, so that both have as many parameters. What else a model reads (counts, pair history, sketch,
target edges) stays that of the merged graph.

One line per figure, test split, mean over seeds: `unmerged.TASK.METRIC`, `against` being mgoe's and `ratio`
the figure over it; then `unmerged.lead.mean`, by how much mgoe is ahead on the mean of all tasks' AUC and
GAUC, and its 95 % interval, `.low` and `.high`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line, use_cores
from mgoe import experiments
from mgoe._util.progress import shown
from mgoe.config import ModelSettings, RunSettings, load_settings
from mgoe.data import Prepared
from mgoe.errors import ConfigError
from mgoe.evaluation import ALL, Influence, estimate, find_leads
from mgoe.experiments.cell import fit_cell
from mgoe.experiments.folder import INFLUENCE
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.plan import Cell, Log, ModelVariant
from mgoe.experiments.stages import source_of
from mgoe.graph import MacroGraph, Snapshot, build_graph
from mgoe.models import MGOE, FeatureSpec, MGOEOptions, resolve
from mgoe.models.layers.experts import LEADS_TO, MacroExperts, edge_weights
from mgoe.models.layers.inputs import DenseInputs
from mgoe.models.layers.stacked import StackedMLP
from mgoe.models.spec import Batch


def unmerged(merged: Snapshot, of_tasks: Sequence[Snapshot]) -> Snapshot:
    """A snapshot whose dense edges come from the tasks' own graphs, side by side: T K wide.

    Args:
        merged: What all else is read from.
        of_tasks: Of each task's own graph, as of the same moment, with as many macro nodes.
    """
    arrays = dict(merged.arrays)
    for order in LEADS_TO:
        nodes = len(arrays[order])
        each = [snapshot.arrays[order] for snapshot in of_tasks]
        arrays[order] = np.concatenate([np.pad(one, ((0, nodes - len(one)), (0, 0))) for one in each], 1)
    return replace(merged, arrays=arrays)


class UnmergedGraph(MacroGraph):
    """The merged graph, whose snapshots read the tasks' graphs too."""

    of_tasks: tuple[MacroGraph, ...] = ()

    @classmethod
    def of(cls, merged: MacroGraph, of_tasks: Sequence[MacroGraph]) -> UnmergedGraph:
        graph = cls(merged.path, merged.meta)
        object.__setattr__(graph, "of_tasks", tuple(of_tasks))
        return graph

    @cached_property
    def snapshots(self) -> tuple[Snapshot, ...]:
        whole = MacroGraph(self.path, self.meta).snapshots
        each = zip(*(graph.snapshots for graph in self.of_tasks), strict=True)
        return tuple(unmerged(merged, of_tasks) for merged, of_tasks in zip(whole, each, strict=True))


class OwnNumbers(DenseInputs):
    """The macro edges of each expert's own task as numbers."""

    own: Tensor

    def __init__(self, spec: FeatureSpec):
        super().__init__(spec, ["aggregates"], 0, edge_vectors=True)
        blocks = torch.arange(len(self.names)).split([spec.widths[key] for key in self.keys])
        own = torch.cat([block.unflatten(0, (len(spec.tasks), -1)) for block in blocks], 1)
        self.register_buffer("own", own, persistent=False)  # (T, columns of a task)

    def forward(self, batch: Batch) -> Tensor:
        """-> (T, B, width / T)."""
        return super().forward(batch).T[self.own].transpose(1, 2)


class OwnGraphs(MacroExperts):
    """Experts that each aggregate the block of edges of their own task."""

    def of_order(self, order: str, edges: Tensor, target: Tensor | None = None) -> Tensor:
        """(B, T K) -> (T, B, H)."""
        values = self.nodes[LEADS_TO[order]] @ self.value[order]  # (T, K, H)
        own = edges.unflatten(1, (-1, values.shape[1])).transpose(0, 1)  # (T, B, K)
        weights = edge_weights(own, self.tau, self.mask_empty)
        return torch.bmm(weights, values)


class Unmerged(MGOE):
    """MGOE whose expert t reads graph t."""

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MGOEOptions):
        super().__init__(spec, inputs, options.model_copy(update={"edge_vectors": False}))
        switches = options.model_dump(
            include={"width", "aggregate", "tau", "mask_empty", "second_order", "shared_macro"}
        )
        experts = len(spec.tasks)
        self.macro = OwnGraphs(spec, experts, **switches)
        self.numbers = OwnNumbers(spec)
        own = self.macro.width + self.numbers.own.shape[1]
        self.experts = StackedMLP(experts, self.inputs.width, own, options.hidden, F.silu)

    def _expert_inputs(self, batch: Batch, user: Tensor, item: Tensor) -> Tensor:
        assert self.macro is not None
        return torch.cat([*self.macro(batch), self.numbers(batch)], 2)


def graphs_of_tasks(
    settings: RunSettings, prepared: Prepared, merged: MacroGraph, out: Path
) -> list[MacroGraph]:
    """A graph of each task's events, with the codes of users and items of all, and macro nodes as many as
    the merged graph's.
    """
    graphs = []
    for task, name in enumerate(settings.task_names):
        source = source_of(settings, prepared)
        say(f"building the macro graph of {name}")
        if not (out / name).exists():
            build_graph(
                replace(source, history=source.history.filter(source.history.task == task)),
                settings.graph,
                out / name,
            )
        graphs.append(MacroGraph.open(out / name))
    if (
        len(found := {(graph.latest.macro_users, graph.latest.macro_items) for graph in (merged, *graphs)})
        > 1
    ):
        rule = f"every graph needs as many macro nodes, found {sorted(found)}"
        raise ConfigError("graph.resolutions", f"{rule}; name resolutions that fit all tasks")
    return graphs


def influences(settings: RunSettings, inputs: Inputs, model: ModelSettings, out: Path) -> list[Influence]:
    """What each test user does to each metric, a seed each."""
    variant = ModelVariant(model.name, model.name, model)
    cells = [Cell(Log("", out, run=settings), variant, seed) for seed in settings.seeds]
    for cell in cells:
        if not cell.done:
            say(f"training {cell.title}")
            fit_cell(cell, inputs=inputs)
    return [Influence.load(cell.folder / INFLUENCE) for cell in cells]


def say(stage: str) -> None:
    print(stage, file=sys.stderr, flush=True)


def parsed(about: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """A configuration, changes to it, and where to keep what is made."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="keep what was prepared, built and trained there")
    return parser.parse_args(arguments)


@contextmanager
def built(asked: argparse.Namespace) -> Iterator[tuple[RunSettings, Path, Prepared, MacroGraph]]:
    """What was asked, the folder, and what it holds once examples are prepared and the graph is built."""
    use_cores()
    settings = load_settings(asked.config, asked.sets)
    with tempfile.TemporaryDirectory() as temporary:
        out = asked.out or Path(temporary) / "out"
        with shown("stderr"):
            merged = experiments.macro_graph(settings, out)
        yield settings, out, Prepared.open(out / "data"), merged


def held_against(name: str, ours: Sequence[Influence], theirs: Sequence[Influence]) -> None:
    """Print a model's metrics beside those of mgoe, and by how much mgoe is ahead."""
    for mine, other in zip(estimate(name, ours), estimate("mgoe", theirs), strict=True):
        if mine.metric in ("auc", "gauc"):
            line(
                f"{name}.{mine.task}.{mine.metric}",
                mine.value,
                "share",
                other.value,
                mine.value / other.value,
            )
    leads = find_leads("mgoe", dict(enumerate(theirs)), {name: dict(enumerate(ours))})
    [lead] = [one for one in leads if (one.task, one.metric) == (ALL, "ranking")]
    for end, value in (("", lead.value), (".low", lead.low), (".high", lead.high)):
        line(f"{name}.lead.mean{end}", value, "share")


def main(arguments: Sequence[str] | None = None) -> None:
    with built(parsed(__doc__, arguments)) as (settings, out, prepared, merged):
        apart = UnmergedGraph.of(merged, graphs_of_tasks(settings, prepared, merged, out / "tasks"))
        whole = resolve("mgoe")
        own = resolve(
            ModelSettings(name="unmerged", base=f"{__name__}:Unmerged", inputs=whole.inputs, ids=whole.ids)
        )
        inputs = Inputs(settings, prepared, merged)
        whole, own = inputs.resolve_ids(whole), inputs.resolve_ids(own)
        theirs = influences(settings, inputs, whole, out)
        inputs = Inputs.open(out, settings)
        inputs.graph = apart
        held_against("unmerged", influences(settings, inputs, own, out), theirs)


if __name__ == "__main__":
    from benchmarks.unmerged import (
        main as run,
    )  # so that the model's import path is the module's, not `__main__`'s

    run()
