"""One object from a frame of events to recommendations, by scikit-learn's conventions."""

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Self
from weakref import finalize

import pandas as pd
from numpy.typing import ArrayLike
from sklearn import exceptions
from sklearn.base import BaseEstimator

from mgoe import experiments
from mgoe._util.files import atomic_folder
from mgoe.bundle import Bundle
from mgoe.config import RunSettings, nested
from mgoe.errors import ConfigError, MgoeError, OutputError
from mgoe.experiments.folder import take_folder
from mgoe.ranker.graph import RankerGraph
from mgoe.ranker.settings import COLUMNS, Model, Tasks, parameters_of, settings_of_run
from mgoe.ranker.tables import Rows, named, stored

FRAMES = "frames"
"""Folder of the frames that were fitted, in the work folder of a ranker, which it marks."""


class NotFittedError(MgoeError, exceptions.NotFittedError):
    """A ranker is asked for something before it is fitted."""


class Ranker(BaseEstimator):
    """A multi-task ranker: fits a log, then predicts, recommends and explains.

    It trains what `mgoe run` trains on the same rows, bit for bit. Parameters that are left out are guessed
    from the log, as `mgoe init` guesses them; `settings_` shows all of them after `fit`.

    Args:
        tasks: What to predict, weakest to strongest, such as `["click", "cart", "buy"]`. In an event log a
            task is a behaviour, in an exposure log a label column. A mapping gives the settings of a task,
            such as `{"name": "stay", "label": "stay", "kind": "regression"}`.
        user, item, time: Columns of the log.
        behavior: Column that says what happened. A log without one is an exposure log.
        context: Columns of an exposure log that are known when the item is shown: categories by name, others
            as settings, such as `{"name": "age", "kind": "numeric"}`.
        users, items: Side tables, as frames or Parquet files: the id column of the log, and one column per
            feature. Floats are numeric, lists hold several categories, and other columns are categories.
        model: Name of a preset, settings of a model, or a subclass of `mgoe.models.RankingModel`.
        seed: Seed of training.
        threads: Threads of training; 1 by default.
        memory: GiB that the graph, and training examples, may take; 4 by default.
        settings: Any other setting of a run, by section or by dotted key, such as `{"training.epochs": 2}`.
        verbose: Print lines of progress.

    Attributes:
        bundle_: The fitted bundle, which scores.
        settings_: All settings of the run.

    Example:
        >>> import mgoe
        >>> few = {"training.epochs": 1, "split.cuts": [0.4, 0.6, 0.8]}
        >>> ranker = mgoe.Ranker(tasks=["click", "buy"], settings=few).fit(events)
        >>> ranker.recommend(7, k=2).columns.tolist()
        ['user', 'rank', 'item', 'click', 'buy']
    """

    bundle_: Bundle
    settings_: RunSettings

    def __init__(
        self,
        tasks: Tasks = None,
        *,
        user: str | None = None,
        item: str | None = None,
        time: str | None = None,
        behavior: str | None = None,
        context: Sequence[str | Mapping[str, Any]] = (),
        users: Rows | None = None,
        items: Rows | None = None,
        model: Model = "mgoe",
        seed: int = 0,
        threads: int | None = None,
        memory: float | None = None,
        settings: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ):
        self.tasks = tasks
        self.user = user
        self.item = item
        self.time = time
        self.behavior = behavior
        self.context = context
        self.users = users
        self.items = items
        self.model = model
        self.seed = seed
        self.threads = threads
        self.memory = memory
        self.settings = settings
        self.verbose = verbose

    def fit(self, events: Rows, workdir: Path | str | None = None) -> Self:
        """Build the graph of a log, train the model and write its bundle.

        A second `fit` replaces the first.

        Args:
            events: A frame of pandas, polars or Arrow, an Ibis table, or the path of Parquet or CSV files. It
                is not changed.
            workdir: Folder of the run and of its report. An interrupted `fit` with the same folder resumes,
                and a finished one returns at once. By default a private folder that is removed with the
                ranker.

        Returns:
            The ranker itself.

        Raises:
            MgoeError: A parameter, the log or the folder breaks a rule.

        Example:
            >>> import mgoe
            >>> few = {"training.epochs": 1, "split.cuts": [0.4, 0.6, 0.8]}
            >>> ranker = mgoe.Ranker(tasks=["click"], model="shared-bottom", settings=few)
            >>> ranker.fit(events, workdir="work").bundle_.tasks
            ('click',)
        """
        if not isinstance(self.settings, Mapping | None):
            raise ConfigError("settings", f"must be a mapping, found {self.settings!r}; give a dict")
        home = _Home(workdir)
        given = {name: rows for name in ("users", "items") if (rows := getattr(self, name)) is not None}
        files = {name: stored(rows, home.frames, name) for name, rows in {"events": events, **given}.items()}
        with named(home.frames):
            settings = settings_of_run(
                files,
                self.tasks,
                {name: column for name in COLUMNS if (column := getattr(self, name)) is not None},
                self.model,
                self._sections(),
                nested(self.settings or {}),
            )
            result = experiments.run(
                settings, home.path / "run", reuse=True, say=self._say, show_progress=self.verbose
            )
        self._take(result.bundle, home)
        return self

    def evaluate(self, later: Rows | None = None) -> pd.DataFrame:
        """Measure the ranker on later rows, or return what was measured in training.

        Positives of an event log get sampled negatives, as those of the test split do.

        Args:
            later: Rows in the columns of the log that happened after those of `fit`. None returns the
                measurements on validation and test.

        Returns:
            One metric per row: model, seed, split, slice, task, metric, value.

        Raises:
            NotFittedError: The ranker is not fitted.
            DataError: The rows cannot be read or break a rule.

        Example:
            >>> ranker.evaluate(later).query("metric == 'auc'")["task"].tolist()
            ['click', 'buy', 'all']
        """
        bundle = self._fitted()
        if later is None:
            return bundle.metrics.copy()
        with TemporaryDirectory(prefix="mgoe-") as folder:
            file = stored(later, Path(folder), "later")
            with named(Path(folder)):
                return pd.DataFrame(experiments.measure_log(bundle, [str(file)]))

    def predict(
        self, users: ArrayLike, items: ArrayLike, context: Mapping[str, ArrayLike] | None = None
    ) -> pd.DataFrame:
        """Return the probability of each binary task, and the value of each regression, for pairs.

        Args:
            users, items: Ids of one length, or one id for all of the other. Unseen ids are scored as nodes
                without history.
            context: Context features by name, one value per pair or one for all; a missing one is unknown.

        Returns:
            One row per pair: `user`, `item`, and a column per task.

        Raises:
            NotFittedError: The ranker is not fitted.
            BundleError: The lists differ in length, or a context feature is unknown.

        Example:
            >>> ranker.predict(7, [3, 4]).shape
            (2, 4)
        """
        return self._fitted().predict(users, items, context)

    def recommend(
        self,
        users: ArrayLike,
        k: int = 10,
        objective: str | None = None,
        *,
        exclude_known: bool = False,
        exclude: ArrayLike = (),
        at_least: Mapping[str, float] | None = None,
        context: Mapping[str, ArrayLike] | None = None,
    ) -> pd.DataFrame:
        """Return the best items of the whole catalogue for each user.

        Args:
            users: One id, or several.
            k: Number of items per user.
            objective: What to rank by, computed from the tasks, such as `click * buy^2`; by default that the
                strongest binary task is done.
            exclude_known: Leave out items in the user's history.
            exclude: Ids of items to leave out.
            at_least: The least probability (or value) by task; items below are left out.
            context: One value per context feature.

        Returns:
            `user`, `rank` from 1, `item`, and a column per task. At most k rows per user.

        Raises:
            NotFittedError: The ranker is not fitted.
            MgoeError: The objective or a filter breaks a rule.

        Example:
            >>> best = ranker.recommend([7, 8], k=3, objective="click * buy^2", exclude_known=True)
            >>> best["rank"].tolist()
            [1, 2, 3, 1, 2, 3]
        """
        return self._fitted().recommend(
            users,
            k,
            objective,
            exclude_known=exclude_known,
            exclude=exclude,
            at_least=at_least,
            context=context,
        )

    def explain(
        self, user: object, item: object = None, context: Mapping[str, ArrayLike] | None = None
    ) -> dict[str, Any]:
        """Return what carried the score of a pair, see `Bundle.explain`.

        Args:
            user, item: Ids. Without an item, what is known of the user.
            context: One value per context feature.

        Raises:
            NotFittedError: The ranker is not fitted.
            BundleError: A context feature is unknown or has several values.

        Example:
            >>> sorted(ranker.explain(7, 3)["tasks"])
            ['buy', 'click']
        """
        return self._fitted().explain(user, item, context)

    def update(self, new_events: Rows) -> Self:
        """Add new events to the graph and calibrate on them, with the same weights, as `mgoe refresh` does.

        Args:
            new_events: New rows alone, in the columns of the log.

        Returns:
            The ranker itself, with a new `bundle_`.

        Raises:
            NotFittedError: The ranker is not fitted.
            DataError: The rows cannot be read or break a rule; the ranker is then unchanged.

        Example:
            >>> ranker.update(later).bundle_.graph.meta["changes"][-1]["events"] > 0
            True
        """
        former, home = self._fitted(), self._home
        out = next(path for n in itertools.count(1) if not (path := home.path / f"updated-{n}").exists())
        with TemporaryDirectory(prefix="mgoe-") as folder:
            file = stored(new_events, Path(folder), "new_events")
            with named(Path(folder)):
                bundle = experiments.refresh(former.path, None, out, log=[str(file)], say=self._say)
        self._take(bundle, home)
        return self

    @property
    def graph(self) -> RankerGraph:
        """The macro graph, by ids.

        Example:
            >>> ranker.graph.to_scipy("user", "item").nnz > 0
            True
        """
        return RankerGraph(self._fitted())

    def save(self, path: Path | str) -> Path:
        """Write the bundle, which `Ranker.load`, `mgoe.load` and `mgoe serve` open.

        Args:
            path: A new folder.

        Raises:
            NotFittedError: The ranker is not fitted.
            OutputError: The folder is there already or cannot be written.

        Example:
            >>> import mgoe
            >>> saved = ranker.save("shop")
            >>> mgoe.Ranker.load(saved).predict(7, 3).equals(ranker.predict(7, 3))
            True
        """
        bundle, out = self._fitted(), Path(path)
        if out.exists():
            raise OutputError(out, "is there already; choose a new folder, or remove it")
        with atomic_folder(out) as folder:
            shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        return out

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Open a bundle as a fitted ranker, with the parameters that it was fitted with.

        Args:
            path: Folder of a bundle that `save` or `mgoe run` wrote.

        Raises:
            BundleError: The folder holds no bundle, one of another format, or a file that is missing or
                changed.

        Example:
            >>> import mgoe
            >>> mgoe.Ranker.load(ranker.save("copy")).seed
            0
        """
        bundle = Bundle.open(path)
        ranker = cls(**parameters_of(bundle.settings, bundle.manifest["model"]))
        ranker._take(bundle, _Home(None))
        return ranker

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "bundle_")

    def __getstate__(self) -> Any:
        raise OutputError(
            "Ranker",
            "is not pickled, because a pickle runs code when it is read; write it with save(path) and open "
            "it with Ranker.load(path)",
        )

    def _fitted(self) -> Bundle:
        if not hasattr(self, "bundle_"):
            raise NotFittedError("Ranker", "is not fitted yet; call fit(events) or Ranker.load(path) first")
        return self.bundle_

    def _take(self, bundle: Bundle, home: "_Home") -> None:
        """Score with another bundle from now on."""
        self.bundle_, self.settings_, self._home = bundle, bundle.settings, home

    def _say(self, line: str) -> None:
        if self.verbose:
            print(line)

    def _sections(self) -> dict[str, Any]:
        """Return the parameters that are settings of their own, by section."""
        context = [{"name": one} if isinstance(one, str) else dict(one) for one in self.context]
        memory = {} if self.memory is None else {"memory": self.memory}
        threads = {} if self.threads is None else {"threads": self.threads}
        return {
            "data": {"context": context} if context else {},
            "graph": memory,
            "training": memory | threads,
            "seeds": [self.seed],
        }


class _Home:
    """The work folder of a ranker: a given one, or a private one that is removed with the last reference.

    Args:
        given: The folder.

    Attributes:
        path: The folder.
        frames: Where its frames are stored.
    """

    def __init__(self, given: Path | str | None):
        self.path = Path(mkdtemp(prefix="mgoe-") if given is None else given)
        self.frames = self.path / FRAMES
        if given is None:
            finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        take_folder(self.path, FRAMES, "ranker")
        self.frames.mkdir(exist_ok=True)
