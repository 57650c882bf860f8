"""What a scorer reads: batches of the snapshot, or of the live state on top of it.

Axes: `B` candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe.bundle import Bundle
from mgoe.models import Batch, owner_of
from mgoe.serving.scoring.gather import PairGather
from mgoe.serving.scoring.plan import ScoringPlan
from mgoe.training.assemble import assemble

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes

Context = Mapping[str, NDArray]
"""Encoded context features of a request, one row each."""


class ScoringInputs:
    """Gathers what a plan reads, at each of its three times.

    Args:
        bundle: What is served.
        plan: What to read.
        live: The live state; None reads the snapshot alone.

    Attributes:
        lock: Held by the caller while it gathers.
    """

    def __init__(self, bundle: Bundle, plan: ScoringPlan, live: LiveNodes | None):
        self._plan, self._encoders = plan, bundle.encoders
        self._graph = live or bundle.graph.latest
        self._pairs = PairGather(bundle.graph.latest, live)
        self.lock: AbstractContextManager = nullcontext() if live is None else live.lock

    def of_user(self, user: int, context: Context) -> Batch:
        """Read what is the user's, once per request. One row."""
        return self._gather(np.array([user]), np.array([-1]), context, self._plan.user_groups)

    def of_items(self, items: NDArray[np.int64]) -> Batch:
        """Read what is the items', once per item."""
        return self._gather(np.full(len(items), -1), items, {}, self._plan.item_groups)

    def of_candidates(self, user: int, items: NDArray[np.int64], context: Context, known: Batch) -> Batch:
        """Read what `join` reads of every candidate; `known` is `of_user`, whose keys keep their one row."""
        plan = self._plan
        if plan.decomposition.whole:
            return self.of_pairs(np.full(len(items), user), items, context)
        batch = {
            key: torch.from_numpy(values) for key, values in self._pairs(user, items, plan.pair_keys).items()
        }
        if plan.shared_keys:
            others = self._gather(np.full(len(items), -1), items, {}, plan.shared_groups)
            batch |= {key: (known if owner_of(key) == "user" else others)[key] for key in plan.shared_keys}
        return batch

    def of_pairs(self, users: NDArray[np.int64], items: NDArray[np.int64], context: Context) -> Batch:
        """Read all that the model reads of pairs, as its own `predict` does."""
        each = {name: np.repeat(values, len(items), axis=0) for name, values in context.items()}
        return self._gather(users, items, each, self._plan.model.needs)

    def _gather(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Context,
        groups: Collection[str],
    ) -> Batch:
        arrays = assemble(
            self._graph, users, items, context, needs=frozenset(groups), spec=self._plan.model.spec,
            user_side=self._encoders.user_side, item_side=self._encoders.item_side,
        )  # fmt: skip
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
