"""What there is to do: logs, contestants and cells, and where each result is stored.

A comparison trains every contestant with every seed on every log. A run is a comparison with one log, whose
seeds all read the same examples and the same graph. Everything is checked here, before any work.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mgoe._util.extras import load
from mgoe._util.files import read_json
from mgoe.config import (
    ComparisonSettings,
    LogSettings,
    ModelSettings,
    RunSettings,
    TrainingSettings,
    TuneSettings,
    check_settings,
    did_you_mean,
    laid_over,
    make_settings,
    nested,
    read_yaml,
    variant_name,
)
from mgoe.errors import ConfigError
from mgoe.experiments.folder import DONE, FIT
from mgoe.models import BASES, BoostedTrees, options_of, resolve
from mgoe.simulation import Truth, WorldSettings, check_reachable
from mgoe.training import Monitor, check_available, load_lightgbm

EXAMPLES = "examples.json"
"""Checksums of the test and validation rows of a prepared log, stored beside it."""
REFERENCES = "references.json"
"""Rows of `chance` and `best-reachable`, stored in the folder of a simulated log."""
SECTIONS = ("data", "split", "negatives", "graph", "training", "evaluation")


@dataclass(frozen=True)
class Contestant:
    """A model, or a variant of one.

    Attributes:
        name: In tables and folders.
        base: The model whose tuned settings it takes; its own name unless it is a variant.
        model: The model as the settings name it.
        variant: Name of the variant, or empty.
        changes: What the variant changes below `graph`, `training` and `model`.
    """

    name: str
    base: str
    model: str | ModelSettings
    variant: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> Mapping[str, Any]:
        """Graph settings that differ from those of the other contestants."""
        return self.changes.get("graph", {})

    def settings(self, tuned: Mapping[str, Any] | None = None) -> ModelSettings:
        """Return the resolved model: the preset's settings, below the tuned ones, below those of the variant.

        Raises:
            ConfigError: The model, an option or a training setting is unknown.
        """
        given = ModelSettings(name=self.name, base=self.model) if isinstance(self.model, str) else self.model
        raw = laid_over(
            given.model_dump(exclude_unset=True),
            tuned or {},
            {"training": self.changes.get("training", {})},
            self.changes.get("model", {}),
            {"name": self.name},
        )
        return resolve(check_settings(ModelSettings, raw, f"models.{self.name}"))


@dataclass(frozen=True)
class Log:
    """One log and its folder.

    Attributes:
        name: Name of the log in a comparison; empty in a run.
        path: Its folder. It holds `world/`, `seeds/SEED/data`, `seeds/SEED/graph`,
            `seeds/SEED/graphs/VARIANT`, `tuned/` and `cells/MODEL/SEED`; in a run `data` and `graph` are
            stored in the folder itself.
        raw: Settings of a run without models and seeds.
        world: The settings of the simulated world that the log is drawn from, if it is.
        run: The settings of the run. All of its seeds read the same examples and the same graph.
        from_table: Whether a table in memory is read instead of the log's files.
    """

    name: str
    path: Path
    raw: Mapping[str, Any] = field(default_factory=dict)
    world: WorldSettings | None = None
    run: RunSettings | None = None
    from_table: bool = False

    def settings(self, seed: int, contestant: Contestant | None = None) -> RunSettings:
        """Return the settings of the run of one seed and one contestant.

        Raises:
            ConfigError: A key is unknown or a value breaks its rule.
        """
        if self.run is not None:
            return self.run
        of_seed = {"negatives": {"training_seed": seed}, "graph": {"seed": seed}, "seeds": [seed]}
        raw = laid_over(self.raw, of_seed, {"graph": contestant.graph if contestant else {}})
        return make_settings(raw, f"logs.{self.name}")

    def stage(self, seed: int) -> Path:
        """Return the folder of `data/` and `graph/`, which all models of a seed share."""
        return self.path if self.run is not None else self.path / "seeds" / str(seed)

    def search(self, model: str) -> Path:
        """Return the file of the search for a model's settings."""
        return self.path / "tuned" / f"{model}.json"


@dataclass(frozen=True)
class Cell:
    """A contestant with a seed on a log: the unit that is trained and measured."""

    log: Log
    contestant: Contestant
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.log.name, self.contestant.name, self.seed

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.log.name, self.contestant.name, f"seed {self.seed}")))

    @property
    def settings(self) -> RunSettings:
        """Settings of the run that this cell is part of."""
        return self.log.settings(self.seed, self.contestant)

    @property
    def graph(self) -> Path:
        """Folder of the graph that it reads."""
        variant = f"graphs/{self.contestant.variant}" if self.contestant.graph else "graph"
        return self.log.stage(self.seed) / variant

    @property
    def search(self) -> Path:
        """File of the search for its model's settings."""
        return self.log.search(self.contestant.base)

    @property
    def folder(self) -> Path:
        return self.log.path / "cells" / self.contestant.name / str(self.seed)

    @property
    def done(self) -> bool:
        """Whether the cell is finished: its metrics are written last."""
        return (self.folder / DONE).exists()

    @property
    def validation(self) -> float:
        """Validation result of the finished cell; higher is better."""
        fit = read_json(self.folder / FIT)
        return float(fit["best_value"]) * (-1 if fit["lower_is_better"] else 1)

    def model(self, searched: bool) -> ModelSettings:
        """Return the resolved model, with the settings that its search found if it is `searched`."""
        return self.contestant.settings(best_of(self.search) if searched else None)


@dataclass(frozen=True)
class Plan:
    """All that a run or a comparison consists of.

    Attributes:
        settings: The settings that it was made from.
        out: Folder of the results.
        from_table: Whether a run reads a table in memory instead of the log's files.
    """

    settings: ComparisonSettings | RunSettings
    out: Path
    from_table: bool = False

    @cached_property
    def comparison(self) -> ComparisonSettings:
        """The comparison. A run is a comparison with one log."""
        s = self.settings
        if isinstance(s, ComparisonSettings):
            return s
        return ComparisonSettings.model_construct(
            logs={"": LogSettings()}, models=s.models, seeds=s.seeds, jobs=s.jobs
        )

    @cached_property
    def contestants(self) -> dict[str, Contestant]:
        """Models in the order of the settings, then variants.

        Raises:
            ConfigError: Two models of a run share a name.
        """
        s = self.comparison
        names = s.model_names
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(
                "models",
                f"each row needs a name of its own, found {repeated!r} twice; give one another `name`",
            )
        models = dict(zip(names, s.models, strict=True))
        found = [Contestant(name, name, model) for name, model in models.items()]
        found += [
            Contestant(variant_name(base, variant), base, models[base], variant, nested(changes))
            for base in s.variants_of or [s.lead]
            for variant, changes in s.variants.items()
        ]
        return {contestant.name: contestant for contestant in found}

    @cached_property
    def logs(self) -> dict[str, Log]:
        """Logs in the order of the settings."""
        return (
            {"": Log("", self.out, run=self.settings, from_table=self.from_table)}
            if isinstance(self.settings, RunSettings)
            else {name: self._log(name) for name in self.comparison.logs}
        )

    @cached_property
    def cells(self) -> list[Cell]:
        """Seed by seed, so that an interrupted comparison is a fair one of fewer seeds."""
        return [
            Cell(log, contestant, seed)
            for seed in self.settings.seeds
            for log in self.logs.values()
            for contestant in self.contestants.values()
        ]

    def searched(self, cell: Cell) -> Cell:
        """Return the cell that a search for a cell's model uses: its base with the first seed."""
        return Cell(cell.log, self.contestants[cell.contestant.base], self.settings.seeds[0])

    def _log(self, name: str) -> Log:
        s, place = self.comparison, f"logs.{name}"
        given = s.logs[name]
        start = read_yaml(given.run, (), "must hold the settings of a run") if given.run else {}
        for key in start:
            if key not in RunSettings.model_fields:
                raise ConfigError(
                    given.run, f"unknown key {key!r}{did_you_mean(str(key), [*RunSettings.model_fields])}"
                )
        raw = laid_over(
            {key: start[key] for key in (*SECTIONS, "tasks") if key in start},
            *(
                {key: getattr(part, key) for key in SECTIONS if getattr(part, key, None)}
                for part in (s, given)
            ),
        )
        if given.tasks is not None:
            raw["tasks"] = given.tasks
        path, world = self.out / "logs" / name, None
        if given.simulate is not None:
            world = check_settings(WorldSettings, given.simulate, f"{place}.simulate")
            raw.setdefault("tasks", list(world.names))
            files = {"log": str(path / "world" / "events"), "truth": str(path / "world" / "truth")}
            raw = laid_over(raw, {"data": files})
        log = Log(name, path, raw, world)
        if world is not None and log.settings(0).form != "events":
            raise ConfigError(
                place, "a simulated world is compared on its event log; leave `data.form` and labels out"
            )
        return log

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse what can be refused before any work.

        Names, options and the space of a search are checked for all cells; monitors, and whether the best
        reachable result of a simulated log is known, for those that are to run.

        Args:
            cells: The cells that are to run.

        Raises:
            MgoeError: A setting breaks a rule.
        """
        for log in self.logs.values():
            for contestant in self.contestants.values():
                log.settings(self.settings.seeds[0], contestant)
                contestant.settings()
        for cell in _one_per_model(cells):
            _check_fit(cell.settings, cell.contestant.settings())
        for log in {cell.log.name: cell.log for cell in cells if not cell.done}.values():
            _check_references(log, self.settings.seeds[0])
        if self.comparison.tune is not None:
            self._check_space(self.comparison.tune, _one_per_model(map(self.searched, cells)))

    def _check_space(self, tune: TuneSettings, searched: Iterable[Cell]) -> None:
        """Check that every model can be trained with every choice and with both ends of every range."""
        models = (contestant.settings() for contestant in self.contestants.values())
        switches = sorted({name for model in models for name in options_of(model).model_fields})
        for key in tune.space:
            name = key.removeprefix("options.")
            if name != key and name.split(".")[0] not in switches:
                raise ConfigError(
                    f"tune.space.{key}", f"no model has this switch{did_you_mean(name, switches)}"
                )
        for cell in searched:
            settings = cell.settings
            for model in _choices(cell.contestant, tune):
                _check_fit(settings, model)

    def check_installed(self, cells: Sequence[Cell]) -> None:
        """Refuse what this machine cannot run: unfinished cells, and searches that they wait for.

        Args:
            cells: The cells that are to run.

        Raises:
            MgoeError: A library, a compiler or a device is missing.
        """
        tune, undone = self.comparison.tune, [cell for cell in cells if not cell.done]
        for cell in _one_per_model(undone):
            _check_installed(cell.settings, cell.model(tune is not None and is_done(cell.search)))
        for cell in _one_per_model(self.searched(cell) for cell in undone if not is_done(cell.search)):
            if tune is not None:
                load_optuna()
                for model in _choices(cell.contestant, tune):
                    _check_installed(cell.settings, model)

    def chosen(
        self, models: list[str] | None = None, seeds: list[int] | None = None, logs: list[str] | None = None
    ) -> list[Cell]:
        """Return the cells of some models, seeds and logs; all where none are named.

        Raises:
            ConfigError: A name is not part of the comparison.
        """
        for option, names, valid in (
            ("--models", models, list(self.contestants)),
            ("--seeds", seeds, self.settings.seeds),
            ("--logs", logs, list(self.logs)),
        ):
            for one in names or ():
                if one not in valid:
                    raise ConfigError(
                        option,
                        f"{one!r} is not part of the comparison{did_you_mean(str(one), [*map(str, valid)])}",
                    )
        return [
            cell
            for cell in self.cells
            if (not models or cell.contestant.name in models)
            and (not seeds or cell.seed in seeds)
            and (not logs or cell.log.name in logs)
        ]


def is_boosted(model: ModelSettings) -> bool:
    """Tell whether a resolved model consists of boosted trees."""
    return BASES.get(model.base) is BoostedTrees


def training_of(settings: RunSettings, model: ModelSettings) -> TrainingSettings:
    """Return the training settings of a run with what differs for a model."""
    return check_settings(
        TrainingSettings, settings.training.model_dump() | model.training, f"models.{model.name}.training"
    )


def load_optuna() -> Any:
    """Import the library that searches settings.

    Raises:
        MissingExtra: It is not installed.
    """
    return load("optuna", "tune", "Optuna", "pip install 'mgoe[tune]'")


def best_of(search: Path) -> dict[str, Any]:
    """Return what the best trial of a finished search changes, as nested mappings."""
    return nested(read_json(search)["best"])


def is_done(search: Path) -> bool:
    """Tell whether a search is finished."""
    return search.exists() and "best" in read_json(search)


def concerning(model: ModelSettings, tune: TuneSettings) -> TuneSettings:
    """Return the part of a search that concerns a model: training settings and its own switches.

    Boosted trees read no training setting that is searched. Unless one of their switches is, all trials would
    be equal.
    """
    known = options_of(model).model_fields
    space = {
        key: values
        for key, values in tune.space.items()
        if not key.startswith("options.") or key.split(".")[1] in known
    }
    if is_boosted(model) and all(key.startswith("training.") for key in space):
        space = {}
    return tune.model_copy(
        update={"space": space, "first": [point for point in tune.first if point.keys() <= space.keys()]}
    )


def _one_per_model(cells: Iterable[Cell]) -> list[Cell]:
    """Keep one cell per log and contestant, whatever its seed."""
    return [*{(cell.log.name, cell.contestant.name): cell for cell in cells}.values()]


def _choices(contestant: Contestant, tune: TuneSettings) -> Iterator[ModelSettings]:
    """Yield a model with every choice of a search, and with both ends of every range."""
    for key, values in concerning(contestant.settings(), tune).space.items():
        for value in values if isinstance(values, list) else (values.low, values.high):
            yield contestant.settings(nested({key: value}))


def _check_fit(settings: RunSettings, model: ModelSettings) -> None:
    """Refuse what training would refuse on every machine: no snapshot to train on, or an unknown monitor."""
    if settings.graph.snapshots == "last":
        raise ConfigError(
            "graph.snapshots", "`last` leaves training nothing to read; set it to `all` to train"
        )
    Monitor.parse(training_of(settings, model).monitor, settings.tasks)


def _check_installed(settings: RunSettings, model: ModelSettings) -> None:
    """Refuse what training would refuse on this machine: a missing library, compiler or device."""
    check_available(training_of(settings, model))
    if is_boosted(model):
        load_lightgbm()


def _check_references(log: Log, seed: int) -> None:
    settings, world = log.settings(seed), log.world
    if world is None and settings.data.truth is not None:
        world = Truth.open(Path(settings.data.truth)).settings
    if world is not None:
        try:
            check_reachable(world, settings)
        except ConfigError as error:
            place = f"logs.{log.name}.{error.place}" if log.name else error.place
            raise ConfigError(place, error.message) from None
