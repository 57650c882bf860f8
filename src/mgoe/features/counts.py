"""`counts`: how much both nodes have done, and of what."""

import numpy as np

from mgoe.features.group import ITEM, USER, Arrays, InputGroup, Key, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.counts import count_names
from mgoe.graph.pair_rows import SIDES


class Counts(InputGroup):
    """`mgoe.graph.counts.node_counts` of the user, then of the item. Shape (B, 4T + 6)."""

    name = "counts"

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        width = spec.widths.get("counts", 0)
        return (dense("counts", (USER, width // 2), (ITEM, width - width // 2)),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        names = count_names(snapshot.arrays["user_table"].shape[1])
        return {"counts": [f"{side}.{name}" for side in SIDES for name in names]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        return {
            "counts": np.concatenate(
                [view.rows("user", "counts", pairs.user), view.rows("item", "counts", pairs.item)], axis=1
            )
        }
