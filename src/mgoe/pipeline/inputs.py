"""What the cells of a run read: its prepared log, its graph, and what follows from both, such as quotas of
the generators of candidates, chosen on validation.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mgoe._util.progress import hidden
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.sampling import Sampling, prior_of
from mgoe.bundle.scored_model import ScoredModel
from mgoe.config import ModelSettings, RetrievalSettings, RunSettings, retrieval_of
from mgoe.data import Prepared, Split
from mgoe.evaluation import make_slices
from mgoe.features import GROUPS, FeatureSpec, View
from mgoe.graph import MacroGraph, Snapshot
from mgoe.models import RankingModel
from mgoe.pipeline.stages import build
from mgoe.retrieval import Retrieval, best_quotas
from mgoe.training import make_spec

IDS_MIN_POSITIVES = 50
"""Positives of the median training user and item from which `ids: auto` keeps ids (ours).

On a log with 19 and 9 they overfit.
"""
QUOTA_USERS = 2000
"""Users of the validation window, at most, whose items are to be found."""
LEAST: dict[str, float] = {"recent": 0.04, "popular": 0.02, "unseen": 0.06}
"""Shares of the candidates that are not chosen, of generators with a default quota: new items and unknown
users are rare on validation, and nothing else serves them."""


class Inputs:
    """The prepared log and the graph, opened once per process, and what cells derive from them.

    Args:
        settings: Settings of the run.
        prepared: The log.
        graph: Its graph.
    """

    def __init__(self, settings: RunSettings, prepared: Prepared, graph: MacroGraph):
        self.prepared, self.graph = prepared, graph
        self._settings, self._specs = settings, dict[tuple[frozenset[str], tuple[Split, ...]], FeatureSpec]()

    @classmethod
    def open(cls, run: Path, settings: RunSettings, graph: Path | None = None) -> Self:
        """Open `run/data` and a graph, `run/graph` by default; build the snapshots that it lacks."""
        prepared = Prepared.open(run / "data")
        with hidden():
            found = build(settings, prepared, graph or run / "graph")
        return cls(settings, prepared, found)

    @property
    def spec(self) -> FeatureSpec:
        """Specification of the features that every model reads, for training rows."""
        return self._spec(frozenset(GROUPS), ("train",))

    def spec_of(self, model: ModelSettings, learned: tuple[Split, ...] = ("train",)) -> FeatureSpec:
        """Return the specification of what a resolved model reads, with the inputs of extensions, if it
        learns some splits."""
        return self._spec(frozenset({*GROUPS, *(model.inputs or ())}), learned)

    def _spec(self, groups: frozenset[str], learned: tuple[Split, ...]) -> FeatureSpec:
        if (groups, learned) not in self._specs:
            self._specs[groups, learned] = make_spec(self.prepared, self.graph, groups, learned)
        return self._specs[groups, learned]

    @cached_property
    def sampling(self) -> Sampling | None:
        """How negatives were drawn; None if none were."""
        if self._settings.form == "exposures":
            return None
        return Sampling.fit(self.prepared, self.graph, self._settings.negatives)

    def prior(self, snapshot: Snapshot) -> NDArray[np.float32]:
        """Return what undoing the sampling adds to the log-odds of each item, see `prior_of`."""
        return prior_of(self.sampling, snapshot)

    def scored(
        self,
        model: RankingModel,
        snapshot: Snapshot,
        calibration: Calibration = Calibration(),
        retrieval: Retrieval | None = None,
    ) -> ScoredModel:
        """Return a model as its bundle would score as of a snapshot; by default it is not calibrated and
        ranks every item."""
        given = model, snapshot, self.prepared, self._settings, self.sampling
        return ScoredModel(*given, calibration, retrieval)

    @cached_property
    def retrieval(self) -> RetrievalSettings | None:
        """How a bundle retrieves candidates, with quotas chosen on validation; None if it ranks all items."""
        how, before = self._retrieval, self.retrieval_before_validation
        return (
            None if how is None or before is None else how.model_copy(update={"quotas": dict(before.quotas)})
        )

    @cached_property
    def retrieval_before_validation(self) -> Retrieval | None:
        """What candidates are retrieved from at the snapshot before validation, with quotas chosen there."""
        if (how := self._retrieval) is None:
            return None
        self._folder = TemporaryDirectory(prefix="mgoe-")  # removed with these inputs
        view = View.of(self.graph.snapshots[self.prepared.valid_window])
        built = Retrieval.build(view, Path(self._folder.name, "retrieval"), how)
        if how.quotas is not None:
            return built
        quotas = chosen_quotas(built, view, self._settings, self.prepared, how.candidates)
        return built if quotas is None else replace(built, quotas=quotas)

    @property
    def _retrieval(self) -> RetrievalSettings | None:
        return retrieval_of(self._settings.retrieval, self.graph.latest.n_items)

    @cached_property
    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """Slices of the test examples that are measured on their own."""
        test = self.prepared.streamed("test")
        cut = self.prepared.settings["data"].get("history", "cut") == "cut"
        found = make_slices(
            *(test.column(name) for name in ("user", "item", "bucket", "snapshot")),
            cuts=self.prepared.cuts,
            users_at=self.prepared.users_at,
            items_at=self.prepared.items_at,
            history=self.prepared.history_parts("snapshot" if cut else "time"),
            upto=None if cut else test.column("moment") - 1,
            uniform=test.column("uniform") if self.prepared.settings["data"].get("uniform") else None,
        )
        nobody = self.prepared.settings["data"]["user"] is None
        of_users = ("new-pairs", "unseen-users", "activity-") if nobody else ()
        return {name: rows for name, rows in found.items() if not name.startswith(of_users)}

    @cached_property
    def ids_pay(self) -> bool:
        """Whether the median user and item have enough training positives to learn an embedding from."""
        counts = [np.zeros(nodes.size, np.int64) for nodes in (self.prepared.users, self.prepared.items)]
        for train in self.prepared.streamed("train").parts():
            done = (np.nan_to_num(train.labels) > 0).any(axis=1)
            for count, nodes in zip(counts, (train.user, train.item), strict=True):
                count += np.bincount(nodes[done & (nodes >= 0)], minlength=len(count))
        return all(count.any() and np.median(count[count > 0]) >= IDS_MIN_POSITIVES for count in counts)

    def resolve_ids(self, model: ModelSettings) -> ModelSettings:
        """Return a resolved model with `ids: auto` decided by the log."""
        if model.ids == "on" or (model.ids == "auto" and self.ids_pay):
            return model
        return model.model_copy(update={"inputs": tuple(key for key in model.inputs or () if key != "ids")})


def chosen_quotas(
    retrieval: Retrieval, view: View, settings: RunSettings, prepared: Prepared, n: int
) -> dict[str, int] | None:
    """Return the quotas of n candidates that find most of what users do in the validation window.

    Every user counts the same.

    Args:
        retrieval: Lists as of the snapshot before the window.
        view: Of this snapshot.
        settings: Of the run.
        prepared: The log.
        n: Number of candidates.

    Returns:
        None if nobody does anything.
    """
    valid, binary = prepared.streamed("valid"), [task.kind == "binary" for task in settings.tasks]
    done = (np.nan_to_num(valid.labels[:, binary]) > 0).any(axis=1)
    wanted = np.unique(np.stack([valid.user[done], valid.column("item")[done]]), axis=1)
    users = np.unique(wanted[0])
    if not len(users):
        return None
    users = np.sort(np.random.default_rng(0).permutation(users)[:QUOTA_USERS])
    found, weights = list[dict[str, np.ndarray]](), []
    for user in users.tolist():
        items = wanted[1, slice(*np.searchsorted(wanted[0], [user, user + 1]))]
        lists = retrieval.generate(view, user, n)
        found.append({name: _places(items, one, n) for name, one in lists.items()})
        weights.append(np.full(len(items), 1 / len(items)))
    places = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    least = {name: int(np.ceil(share * n)) for name, share in LEAST.items() if name in retrieval.quotas}
    best = best_quotas(places, np.concatenate(weights), max(n - sum(least.values()), 1))
    return {name: quota + least.get(name, 0) for name, quota in best.items()}


def _places(items: np.ndarray, found: np.ndarray, n: int) -> np.ndarray:
    """Return the place of each item in a list, n for those that are not in it."""
    same = items[:, None] == found
    return np.where(same.any(axis=1), same.argmax(axis=1), n) if len(found) else np.full(len(items), n)
