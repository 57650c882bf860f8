"""Switches of MGOE."""

from typing import Literal

from pydantic import Field

from mgoe.config import Settings
from mgoe.models.layers.inputs import Knots
from mgoe.models.layers.stacked import Widths
from mgoe.models.layers.towers import Transfer


class MGOEOptions(Settings):
    """Switches of MGOE. The defaults are the configuration that led the design search."""

    form: Literal["mlp", "paper"] = "mlp"
    """Output of expert t: `paper`, MGE_t = [e_u, h_u1, h_u2, e_i, h_i1, h_i2] itself; `mlp`, an MLP over [all
    dense inputs, MGE_t]."""
    width: int = Field(default=16, ge=1)
    """D, the width of id, category, macro node and table embeddings."""
    aggregate: int = Field(default=16, ge=1)
    """H, the width of each order's aggregate and of the recents' summaries; 2D in the paper."""
    hidden: Widths = (128, 64)
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
    attention: Literal["none", "target"] = "none"
    """`target` weighs macro nodes by the candidate; `none` keeps aggregates free of it, so that serving can
    cache them."""
    second_order: bool = True
    """Read the edges to macro nodes of the node's own kind, too."""
    shared_macro: bool = False
    """Let all experts read the same macro node embeddings."""
    edge_vectors: bool = True
    """Let experts and gates read the macro edges as numbers beside their aggregates: the softmax keeps only
    proportions, and the total number of edges separates tasks."""
    knots: Knots = (-1.0, 0.0, 1.0)
    """Knots of the piecewise-linear features, in standard deviations from the mean: each dense number `v` is
    also read as `max(0, v - k)` for each knot k. Target edges, products, projections and gates that read
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
    members: int = Field(default=4, ge=1)
    """M, the number of sets of experts, gates and towers. Each is trained on its own loss; the prediction is
    the mean of their logits."""
