"""What a comparison consists of: logs, contestants, cells, and where each of them lies. Everything is checked here, before any work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mgoe.config import (
    ComparisonSettings,
    ModelSettings,
    RunSettings,
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
from mgoe.experiments.cell import Cell, check_fit, check_installed
from mgoe.experiments.tuning import best_of, concerning, is_done, load_optuna
from mgoe.models import options_of, resolve
from mgoe.simulation import Truth, WorldSettings, check_reachable

EXAMPLES = "examples.json"
"""Beside a seed's prepared log: checksums of the rows that are judged."""
REFERENCES = "references.json"
"""In the folder of a simulated log: rows of chance and of the best reachable."""
SECTIONS = ("data", "split", "negatives", "graph", "training", "evaluation")


@dataclass(frozen=True)
class Contestant:
    """A model, or a variant of one.

    Attributes:
        name: In tables and folders.
        base: The model whose tuned settings it takes; the name itself unless it is a variant.
        model: As the comparison names it.
        variant: Name of the variant, or nothing.
        changes: What the variant changes, below `graph`, `training` and `model`.
    """

    name: str
    base: str
    model: str | ModelSettings
    variant: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> Mapping[str, Any]:
        """What its graph has different from that of the others."""
        return self.changes.get("graph", {})

    def settings(self, tuned: Mapping[str, Any] | None = None) -> ModelSettings:
        """Resolved: the preset's own, below what was tuned, below what the variant changes.

        Raises:
            ConfigError: The model, an option or a training setting is unknown.
        """
        given = ModelSettings(name=self.name, base=self.model) if isinstance(self.model, str) else self.model
        raw = laid_over(given.model_dump(exclude_unset=True), tuned or {})
        raw = laid_over(raw, {"training": self.changes.get("training", {})})
        raw = laid_over(raw, self.changes.get("model", {})) | {"name": self.name}
        return resolve(check_settings(ModelSettings, raw, f"models.{self.name}"))


@dataclass(frozen=True)
class Log:
    """One log of a comparison, in its folder below the results.

    Attributes:
        name: Of the log.
        path: Its folder: `world/`, `seeds/SEED/data`, `seeds/SEED/graph`, `seeds/SEED/graphs/VARIANT`, `tuned/`, `cells/MODEL/SEED`.
        raw: Settings of a run, but for models and seeds.
        world: What a simulated log is drawn from.
    """

    name: str
    path: Path
    raw: Mapping[str, Any]
    world: WorldSettings | None = None

    def settings(self, seed: int, contestant: Contestant | None = None) -> RunSettings:
        """Of the one run that a seed and a contestant make.

        Raises:
            ConfigError: A key is unknown or a value breaks its rule.
        """
        raw = laid_over(
            self.raw, {"negatives": {"training_seed": seed}, "graph": {"seed": seed}, "seeds": [seed]}
        )
        return make_settings(
            laid_over(raw, {"graph": contestant.graph if contestant else {}}), f"logs.{self.name}"
        )

    def stage(self, seed: int) -> Path:
        """Where what all models of a seed share lies: `data/` and `graph/`."""
        return self.path / "seeds" / str(seed)

    def graph(self, seed: int, contestant: Contestant | None = None) -> Path:
        """The graph that a contestant reads."""
        if contestant is None or not contestant.graph:
            return self.stage(seed) / "graph"
        return self.stage(seed) / "graphs" / contestant.variant

    def tuned(self, model: str) -> Path:
        """The file of a model's search of settings."""
        return self.path / "tuned" / f"{model}.json"


@dataclass(frozen=True)
class Entry:
    """One cell of a comparison."""

    log: Log
    contestant: Contestant
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.log.name, self.contestant.name, self.seed

    @property
    def title(self) -> str:
        return f"{self.log.name}, {self.contestant.name}, seed {self.seed}"

    @property
    def settings(self) -> RunSettings:
        return self.log.settings(self.seed, self.contestant)

    @property
    def tuned(self) -> Path:
        """The file of its model's search of settings."""
        return self.log.tuned(self.contestant.base)

    def cell(self, model: ModelSettings | None = None) -> Cell:
        """Where it lies; with its resolved model, what is fitted there."""
        return Cell(self.log.path, model or ModelSettings(name=self.contestant.name, base=""), self.seed)


@dataclass(frozen=True)
class Plan:
    """A comparison, taken apart.

    Attributes:
        settings: Of the comparison.
        out: Folder of the results.
    """

    settings: ComparisonSettings
    out: Path

    @cached_property
    def contestants(self) -> dict[str, Contestant]:
        """Models in the order of the settings, then variants."""
        s = self.settings
        models = dict(zip(s.model_names, s.models, strict=True))
        found = {name: Contestant(name, name, model) for name, model in models.items()}
        for base in s.variants_of or [s.lead]:
            for variant, changes in s.variants.items():
                name = variant_name(base, variant)
                found[name] = Contestant(name, base, models[base], variant, nested(changes))
        return found

    @cached_property
    def logs(self) -> dict[str, Log]:
        """Logs in the order of the settings."""
        return {name: self._log(name) for name in self.settings.logs}

    @cached_property
    def entries(self) -> list[Entry]:
        """Seed by seed, so that an interrupted comparison is a fair one of fewer seeds."""
        logs, contestants = self.logs.values(), self.contestants.values()
        return [
            Entry(log, contestant, seed)
            for seed in self.settings.seeds
            for log in logs
            for contestant in contestants
        ]

    def untouched(self, entry: Entry) -> Entry:
        """Where the settings of an entry's model are searched: the model itself, with the first seed, on the same log."""
        return Entry(entry.log, self.contestants[entry.contestant.base], self.settings.seeds[0])

    def _log(self, name: str) -> Log:
        s, given = self.settings, self.settings.logs[name]
        place = f"logs.{name}"
        start = read_yaml(given.run, (), "must hold the settings of a run") if given.run else {}
        for key in start:
            if key not in RunSettings.model_fields:
                raise ConfigError(
                    given.run, f"unknown key {key!r}{did_you_mean(str(key), list(RunSettings.model_fields))}"
                )
        raw: dict[str, Any] = {key: start[key] for key in (*SECTIONS, "tasks") if key in start}
        for above in (s, given):
            raw = laid_over(raw, {key: getattr(above, key) for key in SECTIONS if getattr(above, key, None)})
        if given.tasks is not None:
            raw["tasks"] = given.tasks
        path, world = self.out / "logs" / name, None
        if given.simulate is not None:
            world = check_settings(WorldSettings, given.simulate, f"{place}.simulate")
            raw.setdefault("tasks", list(world.names))
            raw = laid_over(
                raw, {"data": {"log": str(path / "world" / "events"), "truth": str(path / "world" / "truth")}}
            )
        log = Log(name, path, raw, world)
        if world is not None and log.settings(0).form != "events":
            raise ConfigError(
                place, "a simulated world is compared on its event log; leave `data.form` and labels out"
            )
        return log

    def check(self, entries: Sequence[Entry]) -> None:
        """Refuse what can be refused before any work: names, options and choices of a search; of what is to run also monitors, and of
        simulated logs whether the best reachable is known.

        Args:
            entries: What is to run.

        Raises:
            MgoeError: Something of it breaks a rule.
        """
        for log in self.logs.values():
            for contestant in self.contestants.values():
                log.settings(self.settings.seeds[0], contestant)
                contestant.settings()
        for entry in {(entry.log.name, entry.contestant.name): entry for entry in entries}.values():
            check_fit(entry.settings, entry.contestant.settings())
        for log in {entry.log.name: entry.log for entry in entries if not entry.cell().done}.values():
            _check_references(log, self.settings.seeds[0])
        if self.settings.tune is not None:
            self._check_space(
                self.settings.tune,
                {entry.contestant.base: self.untouched(entry) for entry in entries}.values(),
            )

    def _check_space(self, tune: TuneSettings, searched: Iterable[Entry]) -> None:
        """See that every model can be fitted with every choice, and at both ends of every range: the first trial tells nothing of them."""
        switches = {
            name
            for contestant in self.contestants.values()
            for name in options_of(contestant.settings()).model_fields
        }
        for key in tune.space:
            name = key.removeprefix("options.")
            if name != key and name.split(".")[0] not in switches:
                raise ConfigError(
                    f"tune.space.{key}",
                    f"is a switch of none of the models{did_you_mean(name, sorted(switches))}",
                )
        for entry in searched:
            settings = entry.settings
            for model in _choices(entry.contestant, tune):
                check_fit(settings, model)

    def check_installed(self, entries: Sequence[Entry]) -> None:
        """Refuse what this machine cannot run: of cells that are not finished, and of searches that they wait for.

        Args:
            entries: What is to run.

        Raises:
            MgoeError: A library, a compiler or a device that is needed is not here.
        """
        tune, undone = self.settings.tune, [entry for entry in entries if not entry.cell().done]
        for entry in {(entry.log.name, entry.contestant.name): entry for entry in undone}.values():
            tuned = best_of(entry.tuned) if tune is not None and is_done(entry.tuned) else None
            check_installed(entry.settings, entry.contestant.settings(tuned))
        if tune is None:
            return
        for first in {
            entry.tuned: self.untouched(entry) for entry in undone if not is_done(entry.tuned)
        }.values():
            load_optuna()
            settings = first.settings
            for model in _choices(first.contestant, tune):
                check_installed(settings, model)

    def chosen(
        self, models: list[str] | None = None, seeds: list[int] | None = None, logs: list[str] | None = None
    ) -> list[Entry]:
        """The part of the cells that is asked for; all where nothing is.

        Raises:
            ConfigError: A name is none of the comparison's.
        """
        asked = (
            ("--models", models, list(self.contestants)),
            ("--seeds", seeds, self.settings.seeds),
            ("--logs", logs, list(self.logs)),
        )
        for option, names, valid in asked:
            for one in names or ():
                if one not in valid:
                    raise ConfigError(
                        option,
                        f"{one!r} is none of the comparison's{did_you_mean(str(one), [str(v) for v in valid])}",
                    )
        return [
            entry
            for entry in self.entries
            if (not models or entry.contestant.name in models)
            and (not seeds or entry.seed in seeds)
            and (not logs or entry.log.name in logs)
        ]


def _choices(contestant: Contestant, tune: TuneSettings) -> Iterator[ModelSettings]:
    """A model with every choice of a search, and with both ends of every range."""
    for key, values in concerning(contestant.settings(), tune).space.items():
        for value in values if isinstance(values, list) else (values.low, values.high):
            yield contestant.settings(nested({key: value}))


def _check_references(log: Log, seed: int) -> None:
    settings = log.settings(seed)
    world = (
        log.world
        if log.world is not None or settings.data.truth is None
        else Truth.open(Path(settings.data.truth)).settings
    )
    if world is None:
        return
    try:
        check_reachable(world, settings)
    except ConfigError as error:
        raise ConfigError(f"logs.{log.name}.{error.place}", error.message) from None
