"""What there is to do: logs, models and cells, and where each result is stored.

A comparison trains every model and variant with every seed on every log. A run is a comparison with one log,
whose seeds all read the same examples and the same graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json
from mgoe.config import (
    ComparisonSettings,
    LogSettings,
    ModelSettings,
    RunSettings,
    SectionSettings,
    TrainingSettings,
    TuneSettings,
    check_settings,
    deep_merge,
    did_you_mean,
    make_settings,
    nested,
    read_yaml,
    variant_name,
)
from mgoe.data import choices
from mgoe.errors import ConfigError
from mgoe.models import BASES, BoostedTrees, options_of, resolve
from mgoe.pipeline.folder import DONE, FIT
from mgoe.pipeline.held_out import settings_of_rest
from mgoe.simulation import WorldSettings

REFERENCES = "references.json"
"""Rows of `chance` and `best-reachable`, stored in the folder of a simulated log."""
NOTICES = "notices.json"
"""What is odd about a log, stored in its folder."""


@dataclass(frozen=True)
class ModelVariant:
    """A model, or a variant of one.

    Attributes:
        name: In tables and folders.
        base: The model whose tuned settings it takes; its own name unless it is a variant.
        model: The model as the settings name it.
        label: What the variant is called behind its base, or empty.
        changes: What the variant changes below `graph`, `training` and `model`.
    """

    name: str
    base: str
    model: str | ModelSettings
    label: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> Mapping[str, Any]:
        """Graph settings that differ from those of the other models."""
        return self.changes.get("graph", {})

    def settings(self, tuned: Mapping[str, Any] | None = None) -> ModelSettings:
        """Return the resolved model: the preset's settings, below the tuned ones, below those of the variant.

        Raises:
            ConfigError: The model, an option or a training setting is unknown.
        """
        given = ModelSettings(name=self.name, base=self.model) if isinstance(self.model, str) else self.model
        raw = deep_merge(
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
        path: Its folder. It holds `world/` or `rest/`, `seeds/SEED/data`, `seeds/SEED/graph`,
            `seeds/SEED/graphs/VARIANT`, `tuned/`, `cells/MODEL/SEED` and `topn/NAME/SEED`; in a run `data`
            and `graph` are stored in the folder itself.
        raw: Settings of a run without models and seeds.
        world: The settings of the simulated world that the log is drawn from, if it is.
        run: The settings of the run. All of its seeds read the same examples and the same graph.
        from_table: Whether a table in memory is read instead of the log's files.
        whole: The settings of a run on the whole log, if the last items are held out and `raw` is about the
            rest.
    """

    name: str
    path: Path
    raw: Mapping[str, Any] = field(default_factory=dict)
    world: WorldSettings | None = None
    run: RunSettings | None = None
    from_table: bool = False
    whole: RunSettings | None = None

    @property
    def source(self) -> RunSettings:
        """Settings of a run that name the files that everything about the log comes from."""
        return self.whole or self.settings(0)

    @property
    def rest(self) -> Path:
        """Folder of the log without last items, and of these."""
        return self.path / "rest"

    def settings(self, seed: int, variant: ModelVariant | None = None) -> RunSettings:
        """Return the settings of the run of one seed and one model.

        Raises:
            ConfigError: A key is unknown or a value breaks its rule.
        """
        if self.run is not None:
            return self.run
        of_seed = {"negatives": {"training_seed": seed}, "graph": {"seed": seed}, "seeds": [seed]}
        raw = deep_merge(self.raw, of_seed, {"graph": variant.graph if variant else {}})
        return make_settings(raw, f"logs.{self.name}")

    def stage(self, seed: int) -> Path:
        """Return the folder of `data/` and `graph/`, which all models of a seed share."""
        return self.path if self.run is not None else self.path / "seeds" / str(seed)

    def search(self, model: str) -> Path:
        """Return the file of the search for a model's settings."""
        return self.path / "tuned" / f"{model}.json"

    def lists(self, name: str, seed: int) -> Path:
        """Return the folder of what the top-N lists of a model or baseline are worth."""
        return self.path / "topn" / name / str(seed)


@dataclass(frozen=True)
class Cell:
    """A model with a seed on a log: the unit that is trained and measured.

    Attributes:
        log: The log.
        variant: The model.
        seed: Seed of its training.
        tuned: Whether a search finds settings of its model.
    """

    log: Log
    variant: ModelVariant
    seed: int
    tuned: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        return self.log.name, self.variant.name, self.seed

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.log.name, self.variant.name, f"seed {self.seed}")))

    @property
    def settings(self) -> RunSettings:
        """Settings of the run that this cell is part of."""
        return self.log.settings(self.seed, self.variant)

    @property
    def graph(self) -> Path:
        """Folder of the graph that it reads."""
        graph = f"graphs/{self.variant.label}" if self.variant.graph else "graph"
        return self.log.stage(self.seed) / graph

    @property
    def search(self) -> Path:
        """File of the search for its model's settings."""
        return self.log.search(self.variant.base)

    @property
    def folder(self) -> Path:
        return self.log.path / "cells" / self.variant.name / str(self.seed)

    @property
    def done(self) -> bool:
        """Whether the cell is finished: its metrics are written last."""
        return (self.folder / DONE).exists()

    @property
    def refitted(self) -> bool:
        """Whether the finished cell has weights that have learned validation."""
        return (self.folder / "tested").is_dir()

    @property
    def waits(self) -> bool:
        """Whether the search for its model's settings must be finished first."""
        return self.tuned and not is_done(self.search)

    @property
    def validation(self) -> float:
        """Validation result of the finished cell; higher is better."""
        fit = read_json(self.folder / FIT)
        return float(fit["best_value"]) * (-1 if fit["lower_is_better"] else 1)

    @property
    def model(self) -> ModelSettings:
        """The resolved model, with the settings that its finished search found if it is tuned."""
        return self.variant.settings(best_of(self.search) if self.tuned else None)


@dataclass(frozen=True)
class Plan:
    """All that a run or a comparison consists of.

    Attributes:
        settings: The settings that it was made from.
        out: Folder of the results.
        from_table: Whether a run reads a table in memory instead of the log's files.
        tune: A search of settings for the models of a run.
    """

    settings: ComparisonSettings | RunSettings
    out: Path
    from_table: bool = False
    tune: TuneSettings | None = None

    @cached_property
    def comparison(self) -> ComparisonSettings:
        """The comparison. A run is a comparison with one log."""
        s = self.settings
        if isinstance(s, ComparisonSettings):
            return s
        return ComparisonSettings.model_construct(
            logs={"": LogSettings()}, models=s.models, seeds=s.seeds, jobs=s.jobs, tune=self.tune
        )

    @cached_property
    def variants(self) -> dict[str, ModelVariant]:
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
        found = [ModelVariant(name, name, model) for name, model in models.items()]
        found += [
            ModelVariant(variant_name(base, variant), base, models[base], variant, nested(changes))
            for base in s.variants_of or [s.lead]
            for variant, changes in s.variants.items()
        ]
        return {variant.name: variant for variant in found}

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
            Cell(log, variant, seed, self.comparison.tune is not None)
            for seed in self.settings.seeds
            for log in self.logs.values()
            for variant in self.variants.values()
        ]

    @property
    def threads(self) -> int:
        """Threads of a process that trains or measures: as many as the log that asks for most."""
        return max(log.settings(0).training.threads for log in self.logs.values())

    def searched(self, cell: Cell) -> Cell:
        """Return the cell that a search for a cell's model uses: its base with the first seed."""
        return Cell(cell.log, self.variants[cell.variant.base], self.settings.seeds[0])

    def _log(self, name: str) -> Log:
        place, given = f"logs.{name}", self.comparison.logs[name]
        raw, path, world = _raw(self.comparison, given), self.out / "logs" / name, None
        shown = raw.get("data", {}).get("form") == "exposures"
        if given.simulate is not None:
            world = check_settings(WorldSettings, given.simulate, f"{place}.simulate")
            labels = [{"name": name, "label": name} for name in world.names]
            raw.setdefault("tasks", labels if shown else list(world.names))
            form = "exposures" if shown else "events"
            files: dict[str, Any] = {
                name: str(path / "world" / at) for name, at in (("log", form), ("truth", "truth"))
            }
            if world.content is not None:
                vector = [{"name": "content", "kind": "vector"}]
                for side in ("user", "item"):
                    table = {"path": str(path / "world" / f"{side}s.parquet"), "id": f"{side}_id"}
                    files[f"{side}s"] = table | {"features": vector}
            raw = deep_merge(raw, {"data": files})
        log = Log(name, path, raw, world)
        if world is not None and not shown and log.settings(0).form != "events":
            raise ConfigError(
                place,
                "labels are columns of the world's exposure log, found its event log; set `data.form: "
                "exposures`, or leave labels out",
            )
        if given.hold_out is not None:
            if world is not None:
                raise ConfigError(
                    f"{place}.hold_out",
                    "last items are held out of a log of files, found `simulate`; leave it out",
                )
            whole = log.settings(0)
            log = replace(log, raw=settings_of_rest(whole, raw, log.rest), whole=whole)
        return log

    def chosen(
        self, models: list[str] | None = None, seeds: list[int] | None = None, logs: list[str] | None = None
    ) -> list[Cell]:
        """Return the cells of some models, seeds and logs; all where none are named.

        Raises:
            ConfigError: A name is not part of the comparison.
        """
        for option, names, valid in (
            ("models", models, list(self.variants)),
            ("seeds", seeds, self.settings.seeds),
            ("logs", logs, list(self.logs)),
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
            if (not models or cell.variant.name in models)
            and (not seeds or cell.seed in seeds)
            and (not logs or cell.log.name in logs)
        ]


def with_choices(settings: ComparisonSettings) -> ComparisonSettings:
    """Return a comparison whose logs have what the rules choose for each in place of `auto`.

    Raises:
        MgoeError: The settings of a log break a rule, or it cannot be read.
    """
    found = {
        name: nested({key: one.value for key, one in choices(_raw(settings, log), f"logs.{name}").items()})
        for name, log in settings.logs.items()
        if log.simulate is None
    }
    return check_settings(
        ComparisonSettings, deep_merge(settings.model_dump(exclude_unset=True), {"logs": found}), "comparison"
    )


def _raw(settings: ComparisonSettings, log: LogSettings) -> dict[str, Any]:
    """Return the settings of a run on a log of a comparison, as they are written."""
    start = read_yaml(log.run, (), "must hold the settings of a run") if log.run else {}
    for key in start:
        if key not in RunSettings.model_fields:
            raise ConfigError(
                log.run, f"unknown key {key!r}{did_you_mean(str(key), [*RunSettings.model_fields])}"
            )
    raw = deep_merge(
        {key: start[key] for key in (*SectionSettings.model_fields, "tasks") if key in start},
        *(
            {key: getattr(part, key) for key in SectionSettings.model_fields if getattr(part, key)}
            for part in (settings, log)
        ),
    )
    return raw if log.tasks is None else {**raw, "tasks": log.tasks}


def is_boosted(model: ModelSettings) -> bool:
    """Tell whether a resolved model consists of boosted trees."""
    return BASES.get(model.base) is BoostedTrees


def training_of(settings: RunSettings, model: ModelSettings) -> TrainingSettings:
    """Return the training settings of a run with what differs for a model.

    Raises:
        ConfigError: A model's own are unknown or break a rule, or are for all models alike.
    """
    if "rows" in model.training:
        raise ConfigError(
            f"models.{model.name}.training.rows",
            "is the same for all models, which train on the same rows; set training.rows",
        )
    return check_settings(
        TrainingSettings, settings.training.model_dump() | model.training, f"models.{model.name}.training"
    )


def retraining_of(settings: RunSettings, model: ModelSettings) -> TrainingSettings:
    """Return the settings of a training that starts from weights."""
    training, ours = training_of(settings, model), settings.retrain
    return training.model_copy(
        update={
            "epochs": ours.epochs,
            "batch_size": min(training.batch_size, ours.batch_size),
            "learning_rate": training.learning_rate * ours.rate,
            "table_learning_rate": training.table_learning_rate * ours.rate,
        }
    )


def best_of(search: Path) -> dict[str, Any]:
    """Return what the best trial of a finished search changes, as nested mappings."""
    return nested(read_json(search)["best"])


def is_done(search: Path) -> bool:
    """Tell whether a search is finished."""
    return search.exists() and "best" in read_json(search)


def applicable_search(model: ModelSettings, tune: TuneSettings) -> TuneSettings:
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
