"""The artefact that a service needs: a folder that scores without the training data.

bundle.json          format, versions, checksums, the model's settings, tasks, sampling, calibration, lineage
settings.yaml        settings of the run that wrote it
users.parquet, items.parquet, side and context encoders; withdrawn.parquet: items never to recommend
graph/               the latest snapshot, with the pairs and the records of exposures that updates need
MODEL_CARD.md        what it predicts, from what data, how well, and where it fails
model.safetensors    weights;  spec.json: what the model reads
metrics.json         metrics on validation and test
population.json      histograms of scores and inputs, which a service compares with what it answers
retrieval/           what candidates are retrieved from, unless the whole catalogue is ranked
"""

import os
from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mgoe._util.files import read_json, sha256
from mgoe._util.notebook import Shown
from mgoe._util.tables import Frame
from mgoe.bundle.calibration import Window, calibrated_sample
from mgoe.bundle.context import encode_one, encode_pairs, repeated
from mgoe.bundle.explanation import GROUPS, explain_pair, explain_user
from mgoe.bundle.items import WITHDRAWN, Item, checked_items, read_items
from mgoe.bundle.known_outcomes import warn_of_known
from mgoe.bundle.manifest import (
    MANIFEST,
    RETRIEVAL,
    BundleManifest,
    checked_model,
    read_manifest,
    read_settings,
)
from mgoe.bundle.population import POPULATION, Population
from mgoe.bundle.ranking import Query, columns, rank_users
from mgoe.bundle.request import RankingRequest, without_numpy
from mgoe.bundle.sampling import chain
from mgoe.bundle.scored_model import ScoredModel
from mgoe.bundle.steps import Scores
from mgoe.bundle.unseen_users import warn_of_unseen
from mgoe.config import ModelSettings, RunSettings, check_settings
from mgoe.data import Encoders, Examples, Vocabulary, to_arrow
from mgoe.errors import BundleError
from mgoe.evaluation import read_rows
from mgoe.features import FeatureSpec, read
from mgoe.graph import MacroGraph, Snapshot
from mgoe.graph.pair_rows import Side
from mgoe.models import Batch, RankingModel, Undrawn, make_model
from mgoe.retrieval import Retrieval
from mgoe.training import PairScorer, load_weights


class Bundle(ScoredModel, Shown):
    """A model with everything it needs to score: `mgoe.load(path)` opens one.

    Attributes:
        owner: What must live as long as the bundle, such as the temporary folder that holds it.
    """

    owner: object = None
    _scores: Scores | None = None
    _warned = False

    def __init__(self, path: Path, manifest: BundleManifest):
        self.path = path
        self.manifest = manifest
        self.tasks: tuple[str, ...] = tuple(task.name for task in manifest.tasks)
        self.sampling, self.calibration = manifest.sampling, manifest.calibration
        binary, found = self._binary, self.calibration.tasks
        if found and sorted(found) != sorted(binary):
            raise BundleError(
                path / MANIFEST,
                f"calibration.tasks must name the binary tasks ({', '.join(binary)}), found "
                f"{', '.join(found)}; copy the bundle again",
            )

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Self:
        """Open a bundle.

        Args:
            path: Its folder, or a link to it; files are read from where the link leads now, even if it
                changes later.
            verify: Check every file against its checksum.

        Raises:
            BundleError: The folder holds no bundle or one of another format, or a file is missing, changed or
                outside the folder.
        """
        path = Path(os.path.realpath(path))
        return cls(path, read_manifest(path, verify))

    @cached_property
    def name(self) -> str:
        """Start of the checksum of its manifest: its name in answers of a service and in lineages."""
        return sha256(self.path / MANIFEST)[:12]

    @cached_property
    def settings(self) -> RunSettings:
        """Settings of the run that wrote it."""
        return read_settings(self.path)

    @cached_property
    def model_settings(self) -> ModelSettings:
        """Settings of its model, with every switch."""
        return checked_model(self.path, self.manifest.model)

    @cached_property
    def encoders(self) -> Encoders:
        """Vocabularies, side features and context encoders."""
        return Encoders(self.path)

    @cached_property
    def graph(self) -> MacroGraph:
        """The macro graph with its latest snapshot."""
        return MacroGraph.open(self.path / "graph")

    @cached_property
    def snapshot(self) -> Snapshot:
        """The latest snapshot, which it scores from."""
        return self.graph.latest

    @cached_property
    def model(self) -> RankingModel:
        """The model with its weights, ready to score."""
        spec = FeatureSpec.from_json((self.path / "spec.json").read_text(encoding="utf-8"))
        with Undrawn():
            model = make_model(self.model_settings, spec, seed=0)
        load_weights(model, self.path / "model.safetensors", mapped=True)
        return model.eval()

    @cached_property
    def retrieval(self) -> Retrieval | None:
        """What candidates are retrieved from; None if the whole catalogue is ranked."""
        there = any(name.startswith(f"{RETRIEVAL}/") for name in self.manifest.checksums)
        return Retrieval.open(self.path / RETRIEVAL) if there else None

    @cached_property
    def population(self) -> Population:
        """Histograms of what it was last measured or trained on."""
        file = self.path / POPULATION
        return check_settings(Population, read_json(file), file)

    @property
    def strongest(self) -> str:
        """The strongest binary task, or the strongest task if none is binary: the default of a ranking."""
        return (self._binary or self.tasks)[-1]

    @property
    def objective(self) -> str:
        """The objective of doing the strongest task at all: `click * buy` if `buy` is given `click`."""
        return " * ".join(chain(self.strongest, self.settings.tasks))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Metrics: model, seed, split, slice, task, metric, value."""
        return pd.DataFrame(read_rows(self.path / "metrics.json"))

    def indices(self, side: Side, ids: ArrayLike | pa.Array) -> NDArray[np.int64]:
        """Return the indices of ids, -1 for unknown ones. Shape (n,)."""
        return self._vocabulary(side).indices(ids)

    def ids(self, side: Side, indices: NDArray[np.int64]) -> list[Any]:
        """Return the ids of indices."""
        return self._vocabulary(side).ids(indices).to_pylist()

    def size(self, side: Side) -> int:
        """Return the number of nodes that have an index."""
        return self._vocabulary(side).size

    @cached_property
    def withdrawn(self) -> NDArray[np.int64]:
        """Items that are never recommended, by index, rising."""
        if not (file := self.path / WITHDRAWN).exists():
            return ScoredModel.withdrawn
        return np.sort(self.encoders.items.indices(Vocabulary.load(file).every))

    def add_items(self, items: Frame) -> None:
        """Register items, in memory: they can be ranked and recommended at once.

        Args:
            items: A frame with columns of the side table of items: ids, features and names.

        Raises:
            EventError: A column is missing or unknown, a value breaks its rule, or an item has other features
                already; nothing is registered then.

        Example:
            >>> import pandas as pd
            >>> bundle.add_items(pd.DataFrame({"item_id": [987_654]}))
            >>> bundle.indices("item", [987_654]).item() == bundle.size("item") - 1
            True
        """
        self._take(read_items(items, self.settings.data, self.encoders))

    def withdraw(self, items: ArrayLike) -> None:
        """Withdraw items by their ids, in memory: they are never recommended again.

        Raises:
            EventError: An item is not known; none is withdrawn then.

        Example:
            >>> best = bundle.recommend(7, k=1)["item"]
            >>> bundle.withdraw(best)
            >>> best[0] in bundle.recommend(7, k=100)["item"].tolist()
            False
        """
        self._take([Item(one, withdrawn=True) for one in to_arrow(items, "items").to_pylist()])

    def _take(self, records: list[Item]) -> None:
        ids = [one.item for one in records]
        self.take_items(checked_items(records, self.indices("item", ids), self.encoders))
        if "item" in self.snapshot.placed:
            self.view.place("item", self.indices("item", ids))

    def _vocabulary(self, side: Side) -> Vocabulary:
        return self.encoders.users if side == "user" else self.encoders.items

    def run_by(self, predict: Callable[[Batch], Tensor]) -> "Bundle":
        """Return the same bundle with predictions computed by another engine."""
        other = copy(self)
        other._scorer = PairScorer(self.model, self._source, predict)
        return other

    def scored_by(self, scores: Scores) -> "Bundle":
        """Return the same bundle with the items of lists scored by another engine, such as a service's."""
        other = copy(self)
        other._scores = scores
        return other

    def predict(
        self,
        users: ArrayLike,
        items: ArrayLike,
        context: Mapping[str, ArrayLike] | None = None,
        recalibrated: bool = True,
    ) -> pd.DataFrame:
        """Score pairs.

        Args:
            users, items: Ids of one length, or one id for all of the other: lists, arrays, pandas, polars or
                Arrow columns. Unseen ids are scored as nodes without history.
            context: Context features by name, as in the log, one value per pair or one for all; a missing one
                is unknown.
            recalibrated: Undo the sampling of negatives and calibrate, see `recalibrate`; without it, the
                model's own probabilities.

        Returns:
            One row per pair: `user`, `item`, and the probability (or value) of each task.

        Raises:
            BundleError: The lists differ in length, or a context feature is unknown.
        """
        user_ids, item_ids = to_arrow(users, "users"), to_arrow(items, "items")
        user_ids, item_ids = repeated(user_ids, len(item_ids)), repeated(item_ids, len(user_ids))
        if len(user_ids) != len(item_ids):
            raise BundleError(
                "predict",
                f"users and items must be of one length, found {len(user_ids)} and {len(item_ids)}",
            )
        indices = self.indices("user", user_ids), self.indices("item", item_ids)
        self._warned = self._warned or warn_of_known(self.view, *indices)
        scores = self.score_indices(
            *indices,
            encode_pairs(self.encoders.context_features, context or {}, len(user_ids)),
            recalibrated,
        )
        return pd.DataFrame(
            {"user": user_ids.to_pandas(), "item": item_ids.to_pandas()} | columns(scores, self.tasks)
        )

    @property
    def score_column(self) -> str:
        """Name of the column of lists that orders them: `score`, unless a task has this name."""
        return "list_score" if "score" in self.tasks else "score"

    def recommend(
        self,
        users: ArrayLike,
        k: int = 10,
        objective: str | None = None,
        *,
        exclude_known: bool = False,
        exclude: ArrayLike = (),
        at_least: Mapping[str, float] | None = None,
        where: Mapping[str, Any] | None = None,
        max_per: Mapping[str, int] | None = None,
        context: Mapping[str, ArrayLike] | None = None,
        exact: bool = False,
    ) -> pd.DataFrame:
        """Return the best items of the catalogue for each user.

        A bundle with retrieval ranks the candidates that it retrieves. One without ranks every item.

        Args:
            users: One id, or several; `UnseenUsers` warns of those that were never seen.
            k: Number of items per user.
            objective: What to rank by, computed from the tasks, such as `click * buy^2`; by default that the
                strongest binary task is done.
            exclude_known: Leave out items in the user's history.
            exclude: Ids of items to leave out.
            at_least: The least probability (or value) by task; items below are left out.
            where: One value or several by item feature; other items are left out.
            max_per: Most items per value of an item feature; items whose value is unknown count as one.
            context: One value per context feature; several-valued ones take a list, or a text with
                separators.
            exact: Score all items that may be recommended, whatever the settings say.

        Returns:
            `user`, `rank` from 1, `item`, `score`, and a column per task. At most k rows per user, and none
            without users. `score` is what orders a list: the objective, of probabilities that a bundle with
            retrieval blends with links between items, so the probabilities shown need not fall with it.

        Raises:
            ConfigError: A value breaks its rule.
            BundleError: A task, an item feature or a context feature is unknown, or a context feature has
                several values.
            ObjectiveError: The objective breaks the grammar, names no task, or has no value for some item.

        Example:
            >>> bundle.recommend([7, 8], k=2, exclude_known=True)["rank"].tolist()
            [1, 2, 1, 2]
        """
        ids = to_arrow(users, "users").to_pylist()
        given = {
            "k": k,
            "objective": objective,
            "exclude": exclude,
            "exclude_known": exclude_known,
            "at_least": at_least or {},
            "where": where or {},
            "max_per": max_per or {},
            "context": context or {},
            "exact": exact,
        }
        request = check_settings(RankingRequest, without_numpy(given), "recommend")
        some = np.size(request.exclude) > 0
        left_out = self.indices("item", request.exclude) if some else np.empty(0, np.int64)
        query = Query.read(self, request, request.objective or self.objective, left_out)
        own = encode_one(self.encoders.context_features, request.context)
        lists = [(np.empty(0, np.int64), np.empty(0), np.empty((0, len(self.tasks)), np.float32))]
        who = self.indices("user", ids)
        warn_of_unseen(int((who < 0).sum()), len(who))
        ranked = rank_users(self, self._scores or self, who.tolist(), query, own)
        lists.extend((one.items, one.values, one.scores) for one in ranked)
        items, values, scores = (np.concatenate(parts) for parts in zip(*lists, strict=True))
        found = {
            "user": [id for id, (items_of, *_) in zip(ids, lists[1:], strict=True) for _ in items_of],
            "rank": np.concatenate([np.arange(1, len(items_of) + 1) for items_of, *_ in lists]),
            "item": self.ids("item", items),
            self.score_column: values,
        }
        return pd.DataFrame(found | columns(scores, self.tasks))

    @property
    def n_items(self) -> int:
        """Items that can be recommended."""
        return self.size("item")

    @property
    def _binary(self) -> list[str]:
        return [task.name for task in self.manifest.tasks if task.kind == "binary"]

    def explain(
        self, user: object, item: object = None, context: Mapping[str, ArrayLike] | None = None
    ) -> dict[str, Any]:
        """Return what carried the score of a pair: the explanation of the service, without live changes.

        Args:
            user, item: Ids. Without an item, what is known of the user.
            context: As for `recommend`.

        Returns:
            `tasks`, the probability (or value) of each; `gates`, the weight of each expert per task; `macro`,
            the heaviest macro nodes by aggregate; `user_edges` and `item_edges`, strongest first; `recents`,
            the recent neighbours of both; and the macro nodes of both.

        Raises:
            BundleError: A context feature is unknown or has several values.
        """
        own_item = np.array([-1]) if item is None else self.indices("item", [item])
        pair = self.indices("user", [user]), own_item
        with self._source.reading() as view:  # what is shown is what is scored
            known = {name: values[0] for name, values in read(view, *pair, GROUPS).items()}
            named = {"user": user, "item": item}
            if item is None:
                return named | explain_user(known, self.tasks, self.ids)
            own = encode_one(self.encoders.context_features, context or {})
            scores = self.score_indices(*pair, own)[0]
            weights = {name: values[0] for name, values in self._scorer.weights(*pair, own).items()}
        return named | explain_pair(known, self.tasks, self.ids, scores, weights)

    def predict_examples(self, examples: Examples) -> NDArray[np.float64]:
        """Return what it predicts for examples: calibrated, and as if their negatives were all there are.

        Where nothing is sampled, as in an exposure log, this is what a service answers. Shape (N, T).
        """
        return calibrated_sample(self.window(examples), self.settings.tasks, self.calibration)

    def window(self, examples: Examples, learned: NDArray[np.float32] | None = None) -> Window:
        """Return examples that the graph does not hold, with predictions as of its latest snapshot.

        Args:
            examples: N of them.
            learned: Predictions of a model that has learned since; by default the bundle's own. Shape (N, T).
        """
        learned = self.learned(examples) if learned is None else learned
        return Window.of(learned, self.shift(examples.item), examples.labels, examples.bucket, self.settings)

    def describe(self) -> dict[str, Any]:
        """Return what `mgoe describe BUNDLE` prints."""
        held = self.manifest.model_dump(mode="json")
        shown = ("format", "versions", "tasks", "model", "lineage", "calibration")
        return {key: held[key] for key in shown} | {"graph": self.graph.describe()}

    def ages(self) -> dict[str, float]:
        """Return what a service reports of its age, by the times of the log.

        Returns:
            Seconds since the newest event of the graph, since the newest row that the weights learned from,
            and since that of the last full training; and the drift of the graph, at the resolution that
            experts read.

        Example:
            >>> sorted(bundle.ages())
            ['full training age seconds', 'graph age seconds', 'graph drift', 'weights age seconds']
        """
        now, drift = datetime.now(UTC), self.graph.manifest.drift
        since = {
            "graph": self.manifest.lineage.log[1],
            "weights": self.manifest.trained_until,
            "full training": self.manifest.fully_trained_until,
        }
        found = {
            f"{name} age seconds": (now - datetime.fromisoformat(moment)).total_seconds()
            for name, moment in since.items()
        }
        return found | {"graph drift": drift[self.settings.graph.dense_of(len(drift))]}

    def _facts(self) -> dict[str, object]:
        sizes = {"users": self.size("user"), "items": self.size("item")}
        return {"model": self.manifest.model.name, "tasks": self.tasks, **sizes}
