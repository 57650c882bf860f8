"""Is it the average of four members, or what they are? mgoe beside four bottoms that are averaged likewise.

    python benchmarks/members.py examples/tmall.yaml --set data.log=tmall.parquet \\
        --set seeds=[0,1,2] --out runs/members

The peer is Shared-Bottom with what else mgoe with four members has: its inputs, its knots, its activation,
its members. A member is a bottom and one tower per task, with the layers of `shared-bottom`; all share
embeddings and, but for a scale and a shift of each unit, the first layer. Each has a loss of its own, and
the model predicts the mean of their logits. What remains between the two are macro graph experts, their
gate, and the transfer between towers.

One line per figure, test split, mean over seeds: `members.TASK.METRIC`, `against` being mgoe's and `ratio`
the figure over it; then `members.lead.mean`, by how much mgoe is ahead on the mean of all tasks' AUC and
GAUC, and its 95 % interval, `.low` and `.high`."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.unmerged import built, held_against, influences, parsed
from mgoe.config import ModelSettings
from mgoe.experiments import Inputs
from mgoe.models import FeatureSpec, MGOEOptions, SharedBottom, SharedBottomOptions, resolve
from mgoe.models.layers.stacked import StackedMLP, Towers
from mgoe.models.spec import Batch

MEMBERS = 4


class Members(SharedBottom):
    """Bottoms side by side, each with towers of its own."""

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: SharedBottomOptions):
        super().__init__(spec, inputs, options)
        tasks = len(spec.tasks)
        hidden = options.hidden or (128 * tasks, 64)
        self.bottom = StackedMLP(1, self.inputs.width, 0, hidden, F.silu, MEMBERS)
        self.towers = Towers(tasks, 0, self.bottom.width, options.tower_hidden, "none", MEMBERS)

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        return self._all(first).mean(0)

    def each(self, batch: Batch) -> Tensor:
        return self.at_position(self._all(self.first(batch, self.inputs(batch))).float(), batch)

    def _all(self, first: list[Tensor]) -> Tensor:
        """Logits of every member, (M, B, T)."""
        bottoms = self.bottom.rest(first[0]).repeat_interleave(len(self.spec.tasks), 0)
        return self.towers(None, bottoms).unflatten(1, (MEMBERS, -1)).transpose(0, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    with built(parsed(__doc__, arguments)) as (settings, out, prepared, graph):
        whole = resolve(ModelSettings(name="mgoe", base="mgoe", options={"members": MEMBERS}))
        knots = {"knots": MGOEOptions().knots}
        bottoms = ModelSettings(
            name="members", base=f"{__name__}:Members", inputs=whole.inputs, ids=whole.ids, options=knots
        )
        inputs = Inputs(settings, prepared, graph)
        whole, own = inputs.resolve_ids(whole), inputs.resolve_ids(resolve(bottoms))
        theirs = influences(settings, inputs, whole, out)
        held_against("members", influences(settings, inputs, own, out), theirs)


if __name__ == "__main__":
    from benchmarks.members import (
        main as run,
    )  # so that the model's import path is the module's, not `__main__`'s

    run()
