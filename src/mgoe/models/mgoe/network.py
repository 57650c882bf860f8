"""What MGOE computes, with every choice that the paper leaves open as a switch."""

from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mgoe.config import Settings
from mgoe.errors import ConfigError
from mgoe.models.base import RankingModel
from mgoe.models.layers.experts import Gates, MacroExperts, mix
from mgoe.models.layers.inputs import DenseInputs, Knots, NodeRows, Nodes, ProjectedNodes, Recents
from mgoe.models.layers.stacked import (
    MacroTaskTable,
    StackedMLP,
    Towers,
    Transfer,
    Widths,
    for_products,
    uniform,
)
from mgoe.models.spec import Batch, FeatureSpec


class MGOEOptions(Settings):
    """Switches of MGOE. The defaults are the cheapest configuration that was not clearly behind in the design
    search.

    Example:
        >>> MGOEOptions(width=8).width
        8
    """

    form: Literal["mlp", "paper"] = "mlp"
    """Output of expert t: `paper`, MGE_t = [e_u, h_u1, h_u2, e_i, h_i1, h_i2] itself; `mlp`, an MLP over [all
    dense inputs, MGE_t]."""
    width: int = Field(default=16, ge=1)
    """D, the width of id, category, macro node and table embeddings."""
    aggregate: int = Field(default=16, ge=1)
    """H, the width of each order's aggregate and of the recents' summaries; 2D in the paper."""
    hidden: Widths = (128, 32)
    """Layers of the experts of form `mlp`."""
    activation: Literal["relu", "silu"] = "silu"
    """Activation of the experts' layers."""
    products: int = Field(default=0, ge=0)
    """P, the number of products of user and item features that experts of form `mlp` read; 0 for none. They
    help where tastes oppose between tasks, and fit noise elsewhere: worth a search (`tune`)."""
    tower_hidden: Widths = (64, 32)
    """Layers of the towers."""
    tau: float = Field(default=1.3, gt=0, allow_inf_nan=False)
    """Temperature of the edge weights."""
    mask_empty: bool = True
    """Give no weight to macro nodes without an edge."""
    second_order: bool = True
    """Read the edges to macro nodes of the node's own kind, too."""
    shared_macro: bool = False
    """Let all experts read the same macro node embeddings."""
    edge_vectors: bool = True
    """Let experts and gates read the macro edges as numbers beside their aggregates: the softmax keeps only
    proportions, and the total number of edges separates tasks."""
    knots: Knots = (-1.0, 0.0, 1.0)
    """Knots of the piecewise-linear features, in standard deviations from the mean: each dense number `v` is
    also read as `max(0, v - k)` for each knot k. Macro edges, products, projections and gates that read
    counts have none."""
    gate_query: Literal["counts", "inputs", "experts"] = "counts"
    """What gates read: how much is known of user and item (the input group `counts`), every input, or the
    experts' outputs (Figure 2 of the paper). `inputs`, then `experts`, replace a query that the inputs leave
    empty. Gates that read every input fit noise."""
    one_gate: bool = True
    """One gate for all tasks; towers and transfer still differ per task. One gate per task, as in the paper,
    fits noise on small logs."""
    table: bool = False
    """Let towers read the macro task table (with the input group `aggregates`)."""
    transfer: Transfer = "concat"
    """How tower t uses the last hidden layer of tower t-1."""


class Products(nn.Module):
    """`LayerNorm((x_u A) * (x_i B))`, a bilinear form of low rank over side features and macro edges (ours).

    An MLP over both sides needs many units for each product. Each factor depends on one side, so a service
    computes the user's once per request and the item's once per refresh.

    Args:
        inputs: The dense inputs; without columns of one side there is no product, and `width` is 0.
        width: P, the number of products per pair.
    """

    def __init__(self, inputs: DenseInputs, width: int):
        super().__init__()
        user, item = inputs.columns("user_side", "u1", "u2"), inputs.columns("item_side", "i1", "i2")
        self.width = width if user and item else 0
        if not self.width:
            return
        self.user_columns = nn.Buffer(torch.tensor(user), persistent=False)
        self.item_columns = nn.Buffer(torch.tensor(item), persistent=False)
        self.user = uniform(len(user), width, fan_in=len(user))
        self.item = uniform(len(item), width, fan_in=len(item))
        self.norm = nn.LayerNorm(width)

    def factors(self, x: Tensor) -> Tensor:
        """Return the factors of user and item: dense inputs (B, inputs) -> (2, B, P)."""
        return torch.stack([x[:, self.user_columns] @ self.user, x[:, self.item_columns] @ self.item])

    def forward(self, factors: Tensor) -> Tensor:
        """(2, B, P) -> (B, P)."""
        user, item = factors.unbind()
        return self.norm(user * item)


class MacroGraphNetwork(RankingModel):
    """One macro graph expert per task, mixed by gates, read by towers that pass information on.

    ```text
    h_o   = w_o (E_s V_so)                            aggregate of order o (u1, u2, i1, i2) for expert s
    MGE_s = [e_u, h_u1, h_u2, e_i, h_i1, h_i2]        what expert s reads for itself
    z_s   = MGE_s  or  MLP_s([x, MGE_s])              forms `paper` and `mlp`; x: the dense inputs
    g_t   = softmax over s of (W_t q)                 q: `gate_query`
    b_t   = sum_s g_ts z_s
    y_t   = tower_t([b_t, recents, table_t, x], p_t)  p_t: from tower t-1; x in form `paper` alone
    ```

    With ids off, `e_u` and `e_i` are projections of side features and of both sides' counts in form `paper`;
    an MLP reads those features anyway.
    """

    Options = MGOEOptions
    options: MGOEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MGOEOptions):
        super().__init__(spec, inputs, options)
        o, tasks, recents = options, len(spec.tasks), "recents" in inputs
        self.paper = o.form == "paper"
        self.by_id = "ids" in inputs
        self.reads_nodes = self.by_id or self.paper
        self.inputs = DenseInputs(spec, inputs, o.width, o.edge_vectors, o.knots)

        # The vectors e_u and e_i of a pair.
        width = tasks * o.width if self.by_id else o.width
        self.nodes = Nodes(spec, self.by_id, recents, width) if self.by_id or recents else None
        projects = self.paper and not self.by_id
        self.projected = ProjectedNodes(self.inputs, tasks, o.width) if projects else None
        widths = self.projected.widths if self.projected else (o.width, o.width) if self.by_id else (0, 0)
        out = self._build_experts(sum(widths))

        # Gates read the first query that is not empty.
        counts = self.inputs.columns("counts")
        ids = 2 * tasks * o.width if self.by_id else 0
        queries = {"counts": len(counts), "inputs": self.inputs.width + ids, "experts": tasks * out}
        self.query = next(name for name in (o.gate_query, "inputs", "experts") if queries[name])
        self.counts = nn.Buffer(torch.tensor(counts, dtype=torch.int64), persistent=False)
        self.gates = Gates(1 if o.one_gate else tasks, tasks, queries[self.query])

        # Towers, and what they read beside the experts.
        self.recents = Recents(spec, width, o.aggregate) if recents else None
        self.table = (
            MacroTaskTable(tasks, spec.macro_users, spec.macro_items, o.width)
            if o.table and self.macro is not None
            else None
        )
        common = (self.inputs.width if self.paper else 0) + (self.recents.width if self.recents else 0)
        own = out + (self.table.width if self.table else 0)
        self.towers = Towers(tasks, common, own, o.tower_hidden, o.transfer)

    def _build_experts(self, node_width: int) -> int:
        """Make the macro graph aggregates and the experts. Returns the width of an expert's output."""
        o, experts = self.options, len(self.spec.tasks)
        switches = o.model_dump(
            include={"width", "aggregate", "tau", "mask_empty", "second_order", "shared_macro"}
        )
        self.macro = MacroExperts(self.spec, experts, **switches) if "aggregates" in self.needs else None
        own = node_width + (self.macro.width if self.macro else 0)
        if not own and (self.paper or not self.inputs.width):
            raise ConfigError(
                "inputs",
                f"leave the experts of form {o.form!r} nothing to read, found {sorted(self.needs)}; "
                "add `aggregates`",
            )
        self.experts = self.products = self.read_products = None
        if self.paper:
            return own
        activation = F.silu if o.activation == "silu" else torch.relu_
        self.experts = StackedMLP(experts, self.inputs.width, own, o.hidden, activation)
        products = Products(self.inputs, o.products)
        if products.width:
            self.products = products
            fan_in = self.inputs.width + own + o.products
            self.read_products = uniform(o.products, experts * o.hidden[0], fan_in=fan_in)
        return self.experts.width

    def logits(self, batch: Batch) -> Tensor:
        rows = self._rows(batch)
        return self.rest(self.first(batch, self.inputs(batch), rows), batch, rows)

    def first(self, batch: Batch, x: Tensor, rows: NodeRows | None = None) -> list[Tensor]:
        """Return what all later layers read, each (..., B, W).

        These are the experts before their first activation and the factors of products (in form `paper` the
        inputs `x` (B, X) and the experts themselves), then the scores of gates that do not read experts. They
        are affine in `x`, and the sum of a term of the user and a term of the item.
        """
        rows = self._rows(batch) if rows is None else rows
        user, item = self._nodes(x, rows)
        own = self._expert_inputs(batch, user, item)
        if self.experts is not None:
            parts = [self.experts.first(x, own)]
        else:
            assert own is not None
            parts = [x, own]
        if self.products is not None:
            parts.append(self.products.factors(x))
        if self.gates.score is not None and self.query != "experts":
            read = [x[:, self.counts]] if self.query == "counts" else [x, user, item] if self.by_id else [x]
            parts.append(self.gates.score(torch.cat(read, 1)))
        return parts

    def rest(self, first: list[Tensor], batch: Batch, rows: NodeRows | None = None) -> Tensor:
        """Return logits (B, T) from `first`, and from the batch's recent neighbours and macro task table."""
        experts, gates = self._bottom(first)
        own = mix(gates, experts)
        if self.table is not None:
            entries = self.table(batch["table_user"], batch["table_item"])
            own = torch.cat([own.expand(len(entries), -1, -1), entries], 2)
        common = [first[0]] if self.experts is None else []
        if self.recents is not None:
            rows = rows or self._rows(batch)
            assert rows is not None
            common.append(self.recents(batch, rows))
        return self.towers(torch.cat(common, 1) if common else None, own)

    def expert_weights(self, batch: Batch) -> Tensor:
        return self._bottom(self.first(batch, self.inputs(batch)))[1]

    def explain(self, batch: Batch) -> dict[str, Tensor]:
        rows, x = self._rows(batch), self.inputs(batch)
        gates = self._bottom(self.first(batch, x, rows))[1]
        out = {"gates": gates.expand(-1, len(self.spec.tasks), -1)}
        if self.macro is not None:
            out |= self.macro.weights(batch)
        if self.recents is not None and rows is not None:
            out |= self.recents.weights(batch, rows)
        return out

    def _rows(self, batch: Batch) -> NodeRows | None:
        """Look up the rows of single users and items."""
        return None if self.nodes is None else self.nodes(batch)

    def _nodes(self, x: Tensor, rows: NodeRows | None) -> tuple[Tensor, Tensor]:
        """Return `e_u` and `e_i` for every task, (B, T D), of width 0 where there are none."""
        if rows is not None and self.by_id:
            return rows.user, rows.item
        return (x[:, :0], x[:, :0]) if self.projected is None else self.projected(x)

    def _expert_inputs(self, batch: Batch, user: Tensor, item: Tensor) -> Tensor | None:
        """Return MGE of every expert, (S, B, W)."""
        user, item = self._per_expert(user), self._per_expert(item)
        parts = [user, item] if self.reads_nodes else []
        if self.macro is not None:
            of_user, of_item = self.macro(batch)
            parts = [user, of_user, item, of_item] if self.reads_nodes else [of_user, of_item]
        return torch.cat(parts, 2) if parts else None

    def _bottom(self, first: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return experts (S, B, W) and gates (B, T, S), or (B, 1, S) where one gate serves all tasks."""
        experts = first[1] if self.experts is None else self.experts.rest(self.with_products(first))
        if self.gates.score is not None and self.query != "experts":
            return experts, self.gates.weights(first[-1])
        return experts, self.gates(experts.transpose(0, 1).flatten(1))

    def with_products(self, first: list[Tensor]) -> Tensor:
        """Return the experts before their first activation, (S, B, W), with what they read of the
        products."""
        if self.products is None or self.read_products is None:
            return first[0]
        read = for_products(self.products(first[1])) @ self.read_products
        return first[0] + read.unflatten(1, (len(first[0]), -1)).transpose(0, 1)

    def _per_expert(self, node: Tensor) -> Tensor:
        """Give each expert the vector of its task: (B, T D) -> (S, B, D), S = T."""
        return node.unflatten(1, (len(self.spec.tasks), -1)).transpose(0, 1)
