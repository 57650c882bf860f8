"""Scores candidates of one user, or of several at once.

What a user adds to a model's first layers is computed once per request and what an item adds is stored, so
only the few columns of each pair and the deeper layers are computed for every candidate.

Axes: `B` candidates, `U` users, `T` tasks, `F` floats per row of the first layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from mgoe.bundle import Bundle
from mgoe.bundle.steps import Steps, finished
from mgoe.features import View
from mgoe.models import Batch
from mgoe.serving.scoring.inputs import Context, ScoringInputs, part_of
from mgoe.serving.scoring.item_rows import ItemRows
from mgoe.serving.scoring.onnx_process import export_elsewhere, sessions_of
from mgoe.serving.scoring.onnx_sessions import Sessions
from mgoe.serving.scoring.runtime import Runtime

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes
    from mgoe.serving.online.session import Session

BLOCK_ROWS = 2048
"""Candidates that are scored at once, in about five milliseconds."""


class Scorer:
    """Scores pairs of indices as `Bundle.score_indices` does, including live events.

    Any number of threads may score at once. A block of candidates reads its user and its items as of one
    moment: with all of a batch of events or none of it.

    Args:
        bundle: What is served.
        live: Its live state; None scores with the snapshot alone.
        runtime: What runs the model, and how precisely.
        cache: Folder that keeps exported graphs from one start to the next. If they are not there yet,
            PyTorch runs the model until `await_graphs`; without a cache they are exported at once.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        StoreError: Graphs that are exported at once cannot be written.

    Example:
        >>> from mgoe.serving.scoring.runtime import Runtime
        >>> scorer = Scorer(bundle, runtime=Runtime(engine="torch"))
        >>> scorer.score(0, np.array([3, 4])).shape
        (2, 2)
    """

    @torch.inference_mode()
    def __init__(
        self,
        bundle: Bundle,
        live: LiveNodes | None = None,
        runtime: Runtime = Runtime(),
        cache: Path | None = None,
    ):
        self.tasks, self._bundle, self._live = bundle.tasks, bundle, live
        self._decomposition = parts = bundle.model.decompose().eval()
        self._inputs = ScoringInputs(bundle, parts, live)
        self._version = 0 if live is None else live.version
        dtype = torch.float32 if runtime.precision == "float32" else torch.bfloat16
        with self._inputs.reading() as view:
            compute = partial(self._compute_rows, view)
            self._rows = ItemRows(compute, self.n_items, parts.width, dtype)
        self._export: Callable[[], None] | None = None
        self._steps = parts if runtime.engine == "torch" else self._sessions(cache)

    @property
    def n_items(self) -> int:
        """Items of the catalogue, including those added by live events."""
        return self._bundle.encoders.items.size if self._live is None else self._live.size("item")

    def score(
        self, user: int, items: NDArray[np.int64], context: Context | None = None
    ) -> NDArray[np.float32]:
        """Return the probability of each binary task and the value of each regression.

        Args:
            user: An index; -1 was never seen.
            items: Indices likewise. Shape (B,).
            context: Encoded features, one row each; None if all are unknown.

        Returns:
            Shape (B, T).
        """
        return finished(self.in_blocks(np.full(len(items), user), items, context))

    def reading(self) -> AbstractContextManager[View]:
        """Return a context in which the view that is scored does not change."""
        return self._inputs.reading()

    def in_blocks(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Context | None = None,
        session: Session | None = None,
    ) -> Steps[NDArray[np.float32]]:
        """As `score`, but yield between blocks, so that a service can answer others meanwhile.

        Pairs of several users need the engine `torch`, since a graph is of one user. With a session, its
        visitor is the user.
        """
        context = self._inputs.no_context if context is None else context
        logits = np.empty((len(items), len(self.tasks)), np.float32)
        known, rows, version, pieces = Batch(), None, self._version, self._decomposition.pieces
        each, of_pair = np.unique(users, return_inverse=True)
        for start in range(0, len(items), BLOCK_ROWS):
            if start:
                yield
            block, own = items[start : start + BLOCK_ROWS], of_pair[start : start + BLOCK_ROWS]
            with torch.inference_mode():
                with self._inputs.reading() as view:
                    self.refresh()
                    view = view if session is None else session.over(view)
                    if rows is None or version != self._version:
                        known, version = self._inputs.of_users(view, each, context), self._version
                        rows = self._user_rows(known)
                    batch = self._inputs.of_candidates(view, each, own, block, context, known)
                    first = self._rows.take(block, rows, own, pieces)  # last: the rows are still in the cache
                # No event has to wait for the deeper layers.
                logits[start : start + BLOCK_ROWS] = self._steps.rest(first, batch).numpy()
        model = self._bundle.model
        stds, means, tops = (values.numpy() for values in (model.stds, model.means, model.tops))
        values = np.where(model.regression.numpy(), np.clip(logits * stds + means, 0, tops), expit(logits))
        return self._bundle.recalibrate(values, items)

    @torch.inference_mode()
    def weights(self, user: int, item: int, context: Context | None = None) -> dict[str, NDArray[np.float32]]:
        """Return what carried one score, one row per name, see `RankingModel.explain`."""
        context = self._inputs.no_context if context is None else context
        with self._inputs.reading() as view:
            batch = self._inputs.of_pairs(view, np.array([user]), np.array([item]), context)
        return {name: values[0].numpy() for name, values in self._bundle.model.explain(batch).items()}

    @torch.inference_mode()
    def refresh(self) -> None:
        """Recompute the rows of items that live events have touched since the last refresh."""
        if self._live is None or self._live.version == self._version:
            return
        with self._inputs.reading() as view:
            compute = partial(self._compute_rows, view)
            self._rows.update(self._live.touched("item", self._version), self.n_items, compute)
            self._version = self._live.version

    @property
    def awaits_graphs(self) -> bool:
        """Whether graphs are still to be exported."""
        return self._export is not None

    def await_graphs(self) -> None:
        """Have graphs exported by another process if there are none, and run the model by them.

        Raises:
            StoreError: None were exported; PyTorch goes on running the model.
        """
        if self._export is not None and isinstance(self._steps, Sessions):
            try:
                self._export()
                self._steps.open()
            finally:
                self._export = None

    @torch.inference_mode()
    def rehearse(self, live: LiveNodes, users: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Read nodes of another live state as this one's are read, so that all kernels are compiled."""
        inputs = ScoringInputs(self._bundle, self._decomposition, live)
        with inputs.reading() as view:
            for user in users.tolist():
                inputs.of_pairs(view, np.full(len(items), user), items, inputs.no_context)

    def _sessions(self, cache: Path | None) -> Sessions:
        """Run the model by its graphs, as soon as there are any."""
        sessions = sessions_of(self._bundle, self._decomposition, cache)
        if not sessions.exported:
            if cache is None:
                sessions.export()
            else:
                self._export = partial(export_elsewhere, self._bundle, cache)
        return sessions

    def _compute_rows(self, view: View, items: NDArray[np.int64]) -> Tensor:
        """What items add to the first layers. Shape (B, F)."""
        batch = self._inputs.of_items(view, items)
        return self._decomposition.item(part_of(batch, self._decomposition.item_keys))

    def _user_rows(self, known: Batch) -> Tensor:
        """What users add to the first layers. Shape (U, F)."""
        return self._steps.user(part_of(known, self._decomposition.user_keys))


class SessionScores:
    """Scores items for the visitor of a session.

    Args:
        scorer: Scores with the live state.
        session: The visitor, whose index is the user.
    """

    def __init__(self, scorer: Scorer, session: Session):
        self._scorer, self._session = scorer, session

    @property
    def n_items(self) -> int:
        """Items of the catalogue, including those added by live events."""
        return self._scorer.n_items

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Hold what is scored as it is, and return the view with the visitor."""
        with self._scorer.reading() as view:
            yield self._session.over(view)

    def in_blocks(
        self, users: NDArray[np.int64], items: NDArray[np.int64], context: Context | None = None
    ) -> Steps[NDArray[np.float32]]:
        """As `Scorer.in_blocks`."""
        return self._scorer.in_blocks(users, items, context, self._session)
