"""What a scorer reads: batches of the snapshot, or of the live state on top of it.

Axes: `B` candidates, `U` users.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe.bundle import Bundle
from mgoe.features import Arrays, Reader, Source, View
from mgoe.models import Batch
from mgoe.serving.online.overlay import LiveView
from mgoe.serving.scoring.plan import ScoringPlan

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes

Context = Mapping[str, NDArray]
"""Encoded context features of a request, one row each."""


class ScoringInputs:
    """Reads what a plan says, at each of its three times.

    Args:
        bundle: What is served.
        plan: What to read.
        live: The live state; None reads the snapshot alone.

    Attributes:
        no_context: The context of a request that gives none.
    """

    def __init__(self, bundle: Bundle, plan: ScoringPlan, live: LiveNodes | None):
        self._plan = plan
        view = View.of(bundle.graph.latest, bundle.encoders.user_side, bundle.encoders.item_side)
        self._source: Source = view if live is None else LiveView(view, live)
        self.no_context: Context = bundle.encoders.context_features.encode({}, 1)

    def reading(self) -> AbstractContextManager[View]:
        """Return a context in which the view that is read does not change."""
        return self._source.reading()

    def of_users(self, view: View, users: NDArray[np.int64], context: Context) -> Batch:
        """Read what is the users', once per request. One row each."""
        return _batch(self._plan.user(view, users, np.full(len(users), -1), context))

    def of_items(self, view: View, items: NDArray[np.int64]) -> Batch:
        """Read what is the items', once per item."""
        return self._of_items(view, items, self._plan.item)

    def of_candidates(
        self,
        view: View,
        each: NDArray[np.int64],
        own: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Context,
        known: Batch,
    ) -> Batch:
        """Read what `join` reads of every candidate.

        Args:
            each: The users. Shape (U,).
            own: Which of them each candidate is for. Shape (B,).
            items: The candidates. Shape (B,).
            known: `of_users`. The keys of a single user keep their one row.
        """
        plan = self._plan
        if not plan.decomposition.keys:
            return {}
        users = each[own]
        if plan.decomposition.whole:
            return self.of_pairs(view, users, items, context)
        batch = _batch(plan.pair(view, users, items, context))
        if plan.shared:
            others = self._of_items(view, items, plan.others)
            whose = known if len(each) == 1 else {name: values[own] for name, values in known.items()}
            batch |= {
                name: (whose if plan.keys[name].parts[0] == "user" else others)[name] for name in plan.shared
            }
        return batch

    def of_pairs(
        self, view: View, users: NDArray[np.int64], items: NDArray[np.int64], context: Context
    ) -> Batch:
        """Read all that the model reads of pairs, as its own `predict` does."""
        return _batch(self._plan.whole(view, users, items, context))

    def _of_items(self, view: View, items: NDArray[np.int64], read: Reader) -> Batch:
        return _batch(read(view, np.full(len(items), -1), items, self.no_context))


def _batch(arrays: Arrays) -> Batch:
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
