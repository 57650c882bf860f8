"""The section of a report on the macro graph: a heat map, and tables of its macro nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mgoe.evaluation.report.data import MOST, MacroView
from mgoe.evaluation.tables import Cell, Table
from mgoe.features.macro_nodes import MacroNode


def macro_section(view: MacroView) -> dict[str, Any]:
    """Return what the template shows of a macro graph."""
    return {
        "view": view,
        "size": view.lift.shape,
        "most": MOST,
        "user_table": member_table(view.users, view.items, view.lift, "users"),
        "item_table": member_table(view.items, view.users, view.lift.T, "items"),
    }


def member_table(
    nodes: Sequence[MacroNode], others: Sequence[MacroNode], lift: np.ndarray, kind: str
) -> Table:
    """Return macro nodes by size: members, share, features, typical members, the closest of the other side.

    Args:
        nodes, others: Macro nodes of the two sides.
        lift: Shape (nodes, others).
        kind: What the members are, `users` or `items`.
    """
    whole = sum(one.members for one in nodes) or 1
    has_features = any(node.features for node in nodes)
    columns, lines = ["group"], []
    for node in sorted(nodes, key=lambda one: -one.members)[:MOST]:
        closest = np.argsort(-lift[node.node], kind="stable")[:3]
        goes = "; ".join(
            f"{others[k].name} (×{lift[node.node, k]:.1f})" for k in closest if lift[node.node, k] > 1
        )
        texts = {
            kind: f"{node.members:,}",
            "share": f"{node.members / whole:.1%}",
            "typical": ", ".join(node.typical_names) or "–",
            "what sets them apart": "; ".join(node.features) or "–",
            "go with": goes or "–",
        }
        if not has_features:
            del texts["what sets them apart"]
        columns = ["group", *texts]
        lines.append((str(node.node), list(map(Cell, texts.values()))))
    return Table(columns, lines)
