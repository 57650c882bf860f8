"""When each input of a model is read to score one user's candidates, of the snapshot or of the live state.

Axes: `B` candidates, `U` users.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe.bundle import Bundle
from mgoe.features import Arrays, Reader, Source, View, batch_keys, input_groups
from mgoe.graph.pair_rows import Side
from mgoe.models import Batch, Decomposition
from mgoe.serving.online.overlay import LiveView

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes

Context = Mapping[str, NDArray]
"""Encoded context features of a request, one row each."""


class ScoringInputs:
    """Reads what a model reads: once per request, once per item, and for every candidate.

    Args:
        bundle: What is served.
        decomposition: Its model taken apart by what it reads: of the user, of the item, and of both.
        live: The live state; None reads the snapshot alone.

    Attributes:
        no_context: The context of a request that gives none.
    """

    def __init__(self, bundle: Bundle, decomposition: Decomposition, live: LiveNodes | None = None):
        spec, needs = bundle.model.spec, bundle.model.needs
        keys, own = (
            batch_keys(spec, needs),
            {name: {key.name for key in group.keys(spec)} for name, group in input_groups(needs).items()},
        )
        late = frozenset() if decomposition.whole else decomposition.keys & keys.keys()
        # keys of the user or of the item that `join` reads beside the pair's
        shared = {name: keys[name].parts[0] for name in late if "pair" not in keys[name].parts}

        def reader(names: Collection[str], side: Side) -> Reader:
            return Reader([name for name in needs if not own[name].isdisjoint(names)], spec, side=side)

        self._decomposition, self._shared = decomposition, shared
        self._read_users = reader(decomposition.user_keys | shared.keys(), "user")
        self._read_items = reader(decomposition.item_keys, "item")
        self._read_others = reader(shared, "item")
        self._read_late = Reader(needs if late else (), spec, part="pair")
        self._read_pairs = Reader(needs, spec)
        view = View.of(bundle.graph.latest, bundle.encoders.user_side, bundle.encoders.item_side)
        self._source: Source = view if live is None else LiveView(view, live)
        self.no_context: Context = bundle.encoders.context_features.encode({}, 1)

    def reading(self) -> AbstractContextManager[View]:
        """Return a context in which the view that is read does not change."""
        return self._source.reading()

    def of_users(self, view: View, users: NDArray[np.int64], context: Context) -> Batch:
        """Read what is the users', once per request. One row each."""
        return _batch(self._read_users(view, users, np.full(len(users), -1), context))

    def of_items(self, view: View, items: NDArray[np.int64]) -> Batch:
        """Read what is the items', once per item."""
        return self._of_items(view, items, self._read_items)

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
        if not self._decomposition.keys:
            return {}
        users = each[own]
        if self._decomposition.whole:
            return self.of_pairs(view, users, items, context)
        batch = _batch(self._read_late(view, users, items, context))
        if self._shared:
            others = self._of_items(view, items, self._read_others)
            whose = known if len(each) == 1 else {name: values[own] for name, values in known.items()}
            batch |= {
                name: (whose if part == "user" else others)[name] for name, part in self._shared.items()
            }
        return batch

    def of_pairs(
        self, view: View, users: NDArray[np.int64], items: NDArray[np.int64], context: Context
    ) -> Batch:
        """Read all that the model reads of pairs, as its own `predict` does."""
        return _batch(self._read_pairs(view, users, items, context))

    def samples(self) -> tuple[Batch, Batch]:
        """Read what `user` and `rest` read of an unknown user and three items, as graphs are traced on it."""
        user, context = np.array([-1]), self.no_context
        with self.reading() as view:
            known = self.of_users(view, user, context)
            items = np.array([-1, 0, 0])
            candidates = self.of_candidates(view, user, np.zeros(3, np.int64), items, context, known)
        return part_of(known, self._decomposition.user_keys), candidates

    def _of_items(self, view: View, items: NDArray[np.int64], read: Reader) -> Batch:
        return _batch(read(view, np.full(len(items), -1), items, self.no_context))


def part_of(batch: Batch, keys: frozenset[str]) -> Batch:
    """Return the keys of a batch that are among some."""
    return {key: batch[key] for key in keys & batch.keys()}


def _batch(arrays: Arrays) -> Batch:
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
