"""One object from a frame of events to recommendations, by scikit-learn's conventions."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import pandas as pd
from numpy.typing import ArrayLike

from mgoe import experiments
from mgoe._util.notebook import Shown
from mgoe._util.progress import hidden, shown
from mgoe._util.tables import Frame
from mgoe.bundle import Bundle
from mgoe.config import RunSettings, load_settings, nested
from mgoe.data import Split
from mgoe.errors import ConfigError, OutputError
from mgoe.evaluation import summarize
from mgoe.evaluation.rows import MEAN
from mgoe.evaluation.tables import number
from mgoe.experiments.results import RunResult
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.bundle_update import Groups, Weights
from mgoe.lifecycle.measure import measure_log
from mgoe.lifecycle.new_bundle import with_items
from mgoe.pipeline.folder import SETTINGS
from mgoe.ranker.recommender import Recommender
from mgoe.ranker.settings import (
    COLUMNS,
    Model,
    Tasks,
    parameters_of,
    sections_of,
    settings_of_run,
    with_models,
)
from mgoe.ranker.tables import Rows, named, stored
from mgoe.ranker.workdir import Workdir


class Ranker(Recommender, Shown):
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
        users, items: Side tables, as frames, mappings of names to columns, or Parquet files: the id column of
            the log, and one column per feature. Floats are numeric, lists of floats and two-dimensional
            arrays are vectors, other lists hold several categories, and other columns are categories.
        model: Name of a preset, settings of a model, or a subclass of `mgoe.models.RankingModel`.
        seed: Seed of training.
        threads: Threads of training; 1 by default.
        memory: Limit of anonymous memory in GiB; 4 by default.
        settings: Any other setting of a run, by section or by dotted key, such as `{"training.epochs": 2}`.
        verbose: Show progress: lines, and bars on a terminal or in a notebook.

    Attributes:
        bundle_: The fitted bundle, which scores.
        settings_: All settings of the run.
        notices_: What is odd about the log or the results, after `fit`.

    Example:
        >>> import mgoe
        >>> few = {"training.epochs": 1, "split.cuts": [0.4, 0.6, 0.8]}
        >>> ranker = mgoe.Ranker(tasks=["click", "buy"], settings=few).fit(events)
        >>> ranker.recommend(7, k=2).columns.tolist()
        ['user', 'rank', 'item', 'score', 'click', 'buy']
    """

    settings_: RunSettings
    notices_: list[str]

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

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the constructor by name. `deep` changes nothing.

        Example:
            >>> ranker.get_params()["seed"]
            0
        """
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the constructor by name; they count from the next `fit` on.

        Raises:
            ConfigError: There is no such parameter.

        Example:
            >>> ranker.set_params(seed=0).seed
            0
        """
        if unknown := sorted({*params} - {*self.get_params()}):
            raise ConfigError(unknown[0], f"is no parameter of {type(self).__name__}; see `get_params()`")
        vars(self).update(params)
        return self

    def __sklearn_tags__(self) -> Any:
        """Return what the searches of scikit-learn, which call this, ask about an estimator."""
        from sklearn.base import BaseEstimator

        return BaseEstimator().__sklearn_tags__()

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
        home = Workdir(workdir)
        given = {name: rows for name in ("users", "items") if (rows := getattr(self, name)) is not None}
        files = {name: stored(rows, home.frames, name) for name, rows in {"events": events, **given}.items()}
        with named(home.frames):
            settings = settings_of_run(
                files,
                self.tasks,
                {name: column for name in COLUMNS if (column := getattr(self, name)) is not None},
                self.model,
                sections_of(self.context, self.seed, self.threads, self.memory),
                nested(self.settings or {}),
            )
            result = self._run(settings, home)
        self._take(result.bundle, home)
        self.notices_ = [*result.standings.notices]
        return self

    def evaluate(self, later: Rows | None = None, scores: Rows | None = None) -> pd.DataFrame:
        """Measure the ranker on later rows, or return what was measured in training, or compare with scores.

        Positives of an event log get sampled negatives, as those of the test split do.

        Args:
            later: Rows in the columns of the log that happened after those of `fit`; rows of its validation
                and test windows are read as of the time before their window. None returns the measurements
                on both.

            scores: Scores of another ranker, such as the present one, for the rows of `rows("test")`: user,
                item and time, and one column per task, or one named `score` for all.

        Returns:
            One metric per row: model, seed, split, slice, task, metric, value. With `scores`, one lead per
            row over `incumbent` on the test rows, as `RunResult.leads`.

        Raises:
            NotFittedError: The ranker is not fitted.
            ConfigError: Both are given.
            OutputError: Scores are given and the ranker was loaded, so the rows are missing.
            DataError: The rows cannot be read, break a rule, or were learned.

        Example:
            >>> ranker.evaluate(later).query("metric == 'auc'")["task"].tolist()
            ['click', 'buy', 'all']
        """
        bundle = self._fitted()
        if scores is not None:
            if later is not None:
                raise ConfigError("scores", "are those of the test rows, found later rows too; leave one out")
            return self._compared_with(scores)
        if later is None:
            return bundle.metrics.copy()
        with TemporaryDirectory(prefix="mgoe-") as folder:
            file = stored(later, Path(folder), "later")
            with named(Path(folder)):
                return pd.DataFrame(measure_log(bundle, [str(file)], self._home.run_of(bundle.path)))

    def score(self, later: Rows, y: None = None) -> float:
        """Return one number for searches of scikit-learn; higher is better.

        It is the mean of AUC and GAUC over tasks, or minus the mean RMSE where every task is a regression.

        Folds must be cut by time, as `sklearn.model_selection.TimeSeriesSplit` does on rows in the order of
        time: others are refused, since a ranker that was fitted on later rows knows the outcomes.

        Args:
            later: Rows that happened after those of `fit`.
            y: Ignored; labels are columns of the log.

        Raises:
            NotFittedError: The ranker is not fitted.
            DataError: The rows cannot be read, break a rule, or were learned.

        Example:
            >>> 0 < ranker.score(later) < 1
            True
        """
        rows = self.evaluate(later).query("slice == 'all'")
        ranks = "ranking" in set(rows["metric"])
        values = rows.query(f"metric == '{'ranking' if ranks else 'rmse'}'")["value"]
        return float(values.to_numpy().mean()) * (1 if ranks else -1)

    def rows(self, split: Split = "test") -> pd.DataFrame:
        """Return the rows of a split, with their labels and the predictions of every model that was fitted.

        Args:
            split: `train`, `valid` or `test`.

        Returns:
            The columns of user, item and time as in the log, with the start of the time bucket; `window`; one
            label per task; and `MODEL.TASK`, a prediction as of the snapshot before the window.

        Raises:
            NotFittedError: The ranker is not fitted.
            OutputError: The ranker was loaded, so the rows are missing.

        Example:
            >>> rows = ranker.rows("test")
            >>> bool(rows["mgoe.click"].between(0, 1).all())
            True
        """
        self._fitted()
        return experiments.rows(self._home.need_run("rows"), split)

    def compare(self, models: Sequence[Model]) -> RunResult:
        """Train other models on the rows, the graph and the split of `fit`, and compare this one with them.

        They become part of the run: a model that was trained before is not trained again, and an interrupted
        comparison resumes.

        Args:
            models: Rows of a comparison by name, such as `"shared-bottom+mgoe"`, subclasses of
                `mgoe.models.RankingModel`, or settings of models, whose `base` may be such a class.

        Returns:
            The run: `metrics` and `leads` are frames, and a notebook shows its table with 95 % intervals.

        Raises:
            NotFittedError: The ranker is not fitted.
            OutputError: The ranker was loaded, so the rows are missing.
            MgoeError: A model is unknown, or cannot be trained.

        Example:
            >>> result = ranker.compare(["shared-bottom"])
            >>> result.leads.query("metric == 'ranking'")[["model", "baseline"]].values.tolist()
            [['mgoe', 'shared-bottom']]
        """
        self._fitted()
        folder = self._home.need_run("compare")
        with named(self._home.frames):
            return self._run(with_models(folder, models), self._home)

    def update(self, new_events: Rows, weights: Weights = "keep", groups: Groups = "learn") -> Self:
        """Add new events to the graph and calibrate on them, as `mgoe update` does.

        Args:
            new_events: New rows alone, in the columns of the log. Weights that continue need rows that are
                all later than those that the ranker knows.
            weights: `keep` them, `continue` to train them on the new events, or train `new` ones from scratch
                on these and all events before.
            groups: `learn` sketch and macro nodes again with the new events, or `keep` them.

        Returns:
            The ranker itself, with a new `bundle_`.

        Raises:
            NotFittedError: The ranker is not fitted.
            DataError: The rows cannot be read or break a rule; the ranker is then unchanged.

        Example:
            >>> ranker.update(later, weights="continue").bundle_.manifest.lineage.trained
            'retrained'
        """
        former, home, out = self._fitted(), self._home, self._next_bundle()
        rows = Sources(str(stored(new_events, home.frames, "new_events")))
        with named(home.frames), self._progress():
            bundle = update(former.path, rows, out, weights=weights, groups=groups)
        self._take(bundle, home)
        return self

    def add_items(self, items: Frame) -> Self:
        """Add new items with their features and names: they can be ranked and recommended at once.

        Args:
            items: A frame with the columns of the side table `items`; without one, the ids alone.

        Returns:
            The ranker itself, with a new `bundle_`.

        Raises:
            NotFittedError: The ranker is not fitted.
            EventError: See `Bundle.add_items`.

        Example:
            >>> import pandas as pd
            >>> ranker.add_items(pd.DataFrame({"item_id": [987_654]})).bundle_.indices("item", [987_654]) >= 0
            array([ True])
        """
        return self._changed(Bundle.add_items, items)

    def withdraw(self, items: ArrayLike) -> Self:
        """Withdraw items by their ids: they are never recommended again, but stay known.

        Returns:
            The ranker itself, with a new `bundle_`.

        Raises:
            NotFittedError: The ranker is not fitted.
            EventError: An item is not known; none is withdrawn then.

        Example:
            >>> best = ranker.recommend(7, k=1)["item"]
            >>> best[0] in ranker.withdraw(best).recommend(7, k=100)["item"].tolist()
            False
        """
        return self._changed(Bundle.withdraw, items)

    def _changed(self, change: Callable[[Bundle, Any], None], items: Any) -> Self:
        bundle = Bundle.open(self._fitted().path, verify=False)
        change(bundle, items)
        self._take(with_items(bundle, self._next_bundle()), self._home)
        return self

    def _next_bundle(self) -> Path:
        return next(
            path for n in itertools.count(1) if not (path := self._home.path / f"updated-{n}").exists()
        )

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
        ranker = cls(**parameters_of(bundle.settings, bundle.manifest.model.model_dump(mode="json")))
        ranker._take(bundle, Workdir(None))
        return ranker

    def __getstate__(self) -> Any:
        raise OutputError(
            "Ranker",
            "is not pickled, because a pickle runs code when it is read; write it with save(path) and open "
            "it with Ranker.load(path)",
        )

    def _take(self, bundle: Bundle, home: Workdir) -> None:
        """Score with another bundle from now on."""
        bundle.owner = home
        self.bundle_, self.settings_, self._home = bundle, bundle.settings, home

    def _compared_with(self, scores: Rows) -> pd.DataFrame:
        """Return the leads over the scores of another ranker on the test rows."""
        folder = self._home.need_run("scores")
        file = stored(scores, self._home.frames, "scores")
        with named(self._home.frames):
            result = self._run(load_settings(folder / SETTINGS), self._home, file)
        return result.leads.query("baseline == @experiments.INCUMBENT").reset_index(drop=True)

    def _run(self, settings: RunSettings, home: Workdir, incumbent: Path | str | None = None) -> RunResult:
        """Run what the folder does not hold yet."""
        with self._progress():
            return experiments.run(settings, home.run, reuse=True, incumbent=incumbent)

    def _progress(self) -> AbstractContextManager[None]:
        return shown("stdout") if self.verbose else hidden()

    def _facts(self) -> dict[str, object]:
        if not hasattr(self, "bundle_"):
            return {"model": self.model, "tasks": self.tasks or "guessed", "fitted": "no"}
        bundle = self.bundle_
        name = bundle.manifest.model.name
        rows: Any = bundle.metrics.to_dict("records")
        mean = summarize(rows).get(name, {}).get(MEAN)  # regressions have none
        return {
            "model": name,
            "tasks": bundle.tasks,
            "users": bundle.size("user"),
            "items": bundle.size("item"),
            **({} if mean is None else {"mean of AUC and GAUC on test": number(mean).words}),
            **{f"note {n}": notice for n, notice in enumerate(getattr(self, "notices_", ()), 1)},
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return what a notebook shows, in place of scikit-learn's diagram."""
        return {"text/plain": repr(self), "text/html": self._repr_html_()}
