"""MGOE, the Macro Graph of Experts (arXiv 2506.10520), with every choice that the paper leaves open as a switch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mgoe.config import Settings
from mgoe.errors import ConfigError
from mgoe.models.base import RankingModel
from mgoe.models.decomposition import AdditiveHalves, Halves, Owners
from mgoe.models.layers.experts import MacroExperts
from mgoe.models.layers.gates import Gates, mix
from mgoe.models.layers.inputs import DenseInputs, Knots
from mgoe.models.layers.nodes import NodeRows, Nodes, ProjectedNodes
from mgoe.models.layers.recents import Recents
from mgoe.models.layers.stacked import StackedMLP, Widths, for_products, uniform
from mgoe.models.layers.towers import MacroTaskTable, Towers, Transfer
from mgoe.models.mgoe.folded import Folded, FoldedHalves
from mgoe.models.mgoe.products import Products
from mgoe.models.spec import Batch, FeatureSpec, batch_keys


class MGOEOptions(Settings):
    """Switches of MGOE; the defaults are the configuration that led the design search."""

    form: Literal["mlp", "paper"] = "mlp"
    """What expert t puts out: `paper`, MGE_t = [e_u, h_u1, h_u2, e_i, h_i1, h_i2] itself; `mlp`, an MLP over [all dense inputs, MGE_t]."""
    width: int = Field(default=16, ge=1)
    """D: of id, category, macro node and table embeddings."""
    aggregate: int = Field(default=16, ge=1)
    """H: of each order's aggregate and of the recents' summaries; 2D in the paper's form."""
    hidden: Widths = (128, 64)
    """Layers of the experts of form `mlp`."""
    activation: Literal["relu", "silu"] = "silu"
    """Of the layers of the experts."""
    products: int = Field(default=0, ge=0)
    """P: products of the user's features with the item's that the experts of form `mlp` read; 0 for none. They pay where tastes oppose
    between tasks, and fit noise elsewhere: worth a search (`tune`)."""
    tower_hidden: Widths = (64, 32)
    tau: float = Field(default=1.3, gt=0, allow_inf_nan=False)
    """Temperature of the edge weights."""
    mask_empty: bool = True
    """No weight for macro nodes without an edge."""
    attention: Literal["none", "target"] = "none"
    """`none` keeps aggregates free of the candidate, so that serving can cache them."""
    second_order: bool = True
    shared_macro: bool = False
    """All experts read the same macro node embeddings."""
    edge_vectors: bool = True
    """Experts and gates read the macro edges as numbers beside their aggregates: the softmax keeps proportions alone, and how much a
    node has of everything tells tasks apart."""
    knots: Knots = (-1.0, 0.0, 1.0)
    """Where the dense numbers bend, in standard deviations from their means: whoever reads all of them reads `v` as `max(0, v - k)` too,
    for each knot k. Target edges, products, projections and gates that read counts do not bend."""
    task_ids: bool = True
    """`e_u` and `e_i` a task, or one for all."""
    gate_query: Literal["counts", "ids", "inputs", "experts"] = "counts"
    """What gates read: how much is known of both (the input group `counts`), `[e_u, e_i]`, every input or, as Figure 2 draws it, the
    experts' outputs. `inputs`, and where there are none `experts`, stand in for one that the inputs leave empty. Gates that read
    everything fit noise."""
    one_gate: bool = True
    """One gate for all tasks; towers and transfer still tell them apart. A gate a task, as in the paper, fits noise on small logs."""
    table: bool = False
    """Towers read the macro task table (with the input group `aggregates`)."""
    transfer: Transfer = "concat"
    """What tower t hears of tower t-1."""
    members: int = Field(default=4, ge=1)
    """M: sets of experts, gates and towers side by side. Each learns alone; the model says the mean of their logits."""


class MGOE(RankingModel):
    """One macro graph expert a task, mixed by a gate a task, read by towers that pass on what they know.

    Expert t sees `MGE_t = [e_u, h_u1, h_u2, e_i, h_i1, h_i2]`; with ids off, `e_u` and `e_i` are projections of side features and of both
    sides' counts (in form `paper`, or as targets of attention; an MLP reads those features anyhow). Tower t reads its mix, summaries of
    the recent neighbours, its two macro task table entries, what tower t-1 passes on and, in form `paper`, any dense inputs.
    """

    Options = MGOEOptions
    options: MGOEOptions
    counts: Tensor

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MGOEOptions):
        super().__init__(spec, inputs, options)
        tasks, o = len(spec.tasks), options
        by_id, recents, graph = "ids" in inputs, "recents" in inputs, "aggregates" in inputs
        paper, target = o.form == "paper", graph and o.attention == "target"
        copies = tasks if o.task_ids else 1
        self.inputs = DenseInputs(spec, inputs, o.width, o.edge_vectors, o.knots)
        self.by_id, self.reads_nodes = by_id, by_id or paper
        self.nodes = (
            Nodes(spec, by_id, recents, copies * o.width if by_id else o.width) if by_id or recents else None
        )
        self.projected = (
            ProjectedNodes(self.inputs, copies, o.width) if not by_id and (paper or target) else None
        )
        widths = (o.width, o.width) if by_id else self.projected.widths if self.projected else (0, 0)
        if target and not all(widths):
            rule = "`target` needs inputs that tell users and items apart; add ids, side or counts, or use `none`"
            raise ConfigError("options.attention", rule)
        switches = o.model_dump(
            include={"width", "aggregate", "tau", "mask_empty", "second_order", "shared_macro"}
        )
        experts = o.members * tasks
        self.macro = (
            MacroExperts(spec, experts, **switches, target=o.width if target else 0) if graph else None
        )
        own = (sum(widths) if self.reads_nodes else 0) + (self.macro.width if self.macro else 0)
        if not own and (paper or not self.inputs.width):
            raise ConfigError(
                "inputs",
                f"leave the experts of form {o.form!r} nothing to read, found {sorted(inputs)}; add `aggregates`",
            )
        activation = F.silu if o.activation == "silu" else torch.relu_
        self.experts = None if paper else StackedMLP(experts, self.inputs.width, own, o.hidden, activation)
        products = None if paper else Products(self.inputs, o.products)
        self.products = products if products is not None and products.width else None
        fan_in = self.inputs.width + own + o.products
        self.read_products = (
            uniform(o.products, experts * o.hidden[0], fan_in=fan_in) if self.products is not None else None
        )
        out = self.experts.width if self.experts else own
        counts, ids = self.inputs.columns("counts"), 2 * copies * o.width * by_id
        queries = {
            "counts": len(counts),
            "ids": ids,
            "inputs": self.inputs.width + ids,
            "experts": tasks * out,
        }
        self.query = next(name for name in (o.gate_query, "inputs", "experts") if queries[name])
        self.register_buffer("counts", torch.tensor(counts, dtype=torch.int64), persistent=False)
        self.gates = Gates(
            1 if o.one_gate else tasks, tasks, queries[self.query], o.members, apart=self.query == "experts"
        )
        self.recents = (
            Recents(spec, self.nodes.width, o.aggregate) if self.nodes is not None and recents else None
        )
        self.table = (
            MacroTaskTable(tasks, spec.macro_users, spec.macro_items, o.width) if o.table and graph else None
        )
        common = (self.inputs.width if paper else 0) + (self.recents.width if self.recents else 0)
        self.towers = Towers(
            tasks,
            common,
            out + (self.table.width if self.table else 0),
            o.tower_hidden,
            o.transfer,
            o.members,
        )

    def logits(self, batch: Batch) -> Tensor:
        return self._mean(self._logits(batch))

    def each(self, batch: Batch) -> Tensor:
        raw = self._logits(batch).float().unflatten(1, (self.options.members, -1)).transpose(0, 1)
        return self.at_position(raw, batch)

    def _logits(self, batch: Batch) -> Tensor:
        """Of every member, (B, M T)."""
        rows = self._rows(batch)
        return self._rest(self.first(batch, self.inputs(batch), rows), batch, rows)

    def _mean(self, logits: Tensor) -> Tensor:
        """Over members: (B, M T) -> (B, T)."""
        members = self.options.members
        return logits if members == 1 else logits.unflatten(1, (members, -1)).mean(1)

    def first(self, batch: Batch, x: Tensor, rows: NodeRows | None = None) -> list[Tensor]:
        """What all later layers read, each (..., B, W): experts before their first activation and the factors of products (in form `paper`
        the inputs `x` (B, X) and the experts themselves), then the scores of gates that read no experts.

        With attention `none` it is affine in `x`, and the sum of what the batch says of the user and what it says of the item.
        """
        rows = self._rows(batch) if rows is None else rows
        nodes = self._nodes(x, rows)
        own = self._own(batch, *(self._a_task(node) for node in nodes))
        if self.experts is not None:
            parts = [self.experts.first(x, own)]
            if self.products is not None:
                parts.append(self.products.factors(x))
        else:
            assert own is not None
            parts = [x, own]
        if self.gates.score is not None and self.query != "experts":
            ids = nodes if self.by_id else ()
            read = {"counts": (x[:, self.counts],), "ids": ids, "inputs": (x, *ids)}[self.query]
            parts.append(self.gates.score(torch.cat(read, 1)))
        return parts

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        """Logits (B, T) from `first`, and from what the batch holds of recent neighbours and the macro task table."""
        return self._mean(self._rest(first, batch))

    def _rest(self, first: list[Tensor], batch: Batch, rows: NodeRows | None = None) -> Tensor:
        """As `rest`, of every member, (B, M T)."""
        experts, gates = self._bottom(first)
        own = mix(gates, experts, self.options.members)
        if self.table is not None:
            entries = self.table(batch["table_user"], batch["table_item"])
            own = torch.cat([self._by_task(own), entries.repeat(self.options.members, 1, 1)], 2)
        common = [first[0]] if self.experts is None else []
        if self.recents is not None:
            rows = rows or self._rows(batch)
            assert rows is not None
            common.append(self.recents(batch, rows))
        return self.towers(torch.cat(common, 1) if common else None, own)

    def halves(self, owners: Owners) -> Halves:
        """Additive with attention `none`; a candidate that is the target of the user's edges leaves nothing to compute ahead."""
        if self.macro is not None and len(self.macro.key):
            return super().halves(owners)
        late = self.nodes.reads if self.recents is not None and self.nodes is not None else set()
        keys = batch_keys(self.spec, self.needs)
        if self.experts is None and self.options.members == 1:
            return FoldedHalves(Folded(self), self.inputs, keys, owners, late)
        tables = {"table_user", "table_item"} if self.table is not None else set()
        return AdditiveHalves(self, self.inputs, keys, owners, late | tables)

    def watch(self, batch: Batch) -> dict[str, Tensor]:
        """`gates`: the mean weight of each expert for each task, (T, S)."""
        with torch.no_grad():
            return {"gates": self._gates(self.first(batch, self.inputs(batch))).mean(0)}

    def explain(self, batch: Batch) -> dict[str, Tensor]:
        rows, x = self._rows(batch), self.inputs(batch)
        out = {"gates": self._gates(self.first(batch, x, rows))}
        if self.macro is not None:
            out |= self.macro.weights(batch, *(self._a_task(node) for node in self._nodes(x, rows)))
        if self.recents is not None and rows is not None:
            out |= self.recents.weights(batch, rows)
        return out

    def _rows(self, batch: Batch) -> NodeRows | None:
        """What stands for single users and items."""
        return None if self.nodes is None else self.nodes(batch)

    def _nodes(self, x: Tensor, rows: NodeRows | None) -> tuple[Tensor, Tensor]:
        """`e_u` and `e_i`, (B, copies * D), of width 0 where there are none."""
        if rows is not None and self.by_id:
            return rows.user, rows.item
        return (x[:, :0], x[:, :0]) if self.projected is None else self.projected(x)

    def _own(self, batch: Batch, user: Tensor, item: Tensor) -> Tensor | None:
        """Inputs that each expert has for itself, (S, B, W)."""
        parts = [user, item] if self.reads_nodes else []
        if self.macro is not None:
            of_user, of_item = self.macro(batch, user, item)
            parts = [user, of_user, item, of_item] if self.reads_nodes else [of_user, of_item]
        return torch.cat(parts, 2) if parts else None

    def _bottom(self, first: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Experts (M S, B, W) and gates (B, M T, S), or (B, M, S) where one gate serves all tasks."""
        experts = first[1] if self.experts is None else self.experts.rest(self._with_products(first))
        if self.gates.score is None or self.query == "experts":
            return experts, self.gates(
                experts.unflatten(0, (self.options.members, -1)).transpose(1, 2).flatten(2)
            )
        return experts, self.gates.weights(first[-1])

    def _with_products(self, first: list[Tensor]) -> Tensor:
        """Experts before their first activation, (M S, B, W), with what they read of the products."""
        if self.products is None:
            return first[0]
        assert self.read_products is not None
        read = for_products(self.products(first[1])) @ self.read_products
        return first[0] + read.unflatten(1, (len(first[0]), -1)).transpose(0, 1)

    def _gates(self, first: list[Tensor]) -> Tensor:
        """Weight of each expert for each task, of the first member: experts of another are others. Shape (B, T, S)."""
        return (
            self._bottom(first)[1]
            .unflatten(1, (self.options.members, -1))[:, 0]
            .expand(-1, len(self.spec.tasks), -1)
        )

    def _by_task(self, mixed: Tensor) -> Tensor:
        """What one gate mixes for all tasks of a member, once for each of them: (M, B, W) or (M T, B, W) -> (M T, B, W)."""
        experts = self.options.members * len(self.spec.tasks)
        return mixed.repeat_interleave(experts // len(mixed), 0)

    def _a_task(self, node: Tensor) -> Tensor:
        """(B, copies * D) -> (M S, B, D), S = T; one copy serves all tasks."""
        tasks, members = len(self.spec.tasks), self.options.members
        if not self.options.task_ids:
            return node.expand(members * tasks, -1, -1)
        return node.unflatten(1, (tasks, -1)).transpose(0, 1).expand(members, -1, -1, -1).flatten(0, 1)
