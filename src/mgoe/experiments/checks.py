"""Everything that can be refused before any work: settings that break a rule, and what this machine lacks."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mgoe.config import (
    ModelSettings,
    RunSettings,
    TopNSettings,
    TuneSettings,
    did_you_mean,
    nested,
    quotas_of,
)
from mgoe.errors import ConfigError
from mgoe.models import class_of, options_of
from mgoe.pipeline.lists import list_objective, unmeasured_baselines
from mgoe.pipeline.plan import (
    Cell,
    Log,
    ModelVariant,
    Plan,
    applicable_search,
    is_boosted,
    training_of,
)
from mgoe.pipeline.tuning import load_optuna
from mgoe.retrieval import find_generators
from mgoe.simulation import Truth, check_reachable
from mgoe.topn import find_baseline, load_implicit
from mgoe.training import Monitor, check_available, load_lightgbm


def check(plan: Plan, cells: Sequence[Cell]) -> None:
    """Refuse what can be refused before any work.

    Names, options and the space of a search are checked for all cells; monitors, and whether the best
    reachable result of a simulated log is known, for those that are to run.

    Args:
        plan: What the cells are part of.
        cells: The cells that are to run.

    Raises:
        MgoeError: A setting breaks a rule.
    """
    for log in plan.logs.values():
        for variant in plan.variants.values():
            find_generators(quotas_of(log.settings(plan.settings.seeds[0], variant).retrieval))
            variant.settings()
    for cell in _one_per_model(cells):
        _check_fit(cell.settings, cell.variant.settings())
    for log in {cell.log.name: cell.log for cell in cells if not cell.done}.values():
        _check_references(log, plan.settings.seeds[0], plan.comparison.topn is not None)
    if plan.comparison.topn is not None:
        for log in plan.logs.values():
            if log.whole is not None and plan.comparison.topn.next_item:
                raise ConfigError(
                    f"logs.{log.name}.hold_out",
                    "next items are those of a test window, found `last`; leave it out",
                )
            _check_lists(log.settings(plan.settings.seeds[0]), plan.comparison.topn)
            find_generators(quotas_of(plan.comparison.topn.retrieval))
    if plan.comparison.tune is not None:
        _check_space(plan, plan.comparison.tune, _one_per_model(map(plan.searched, cells)))


def _check_space(plan: Plan, tune: TuneSettings, searched: Iterable[Cell]) -> None:
    """Check that every model can be trained with every choice and with both ends of every range."""
    models = (variant.settings() for variant in plan.variants.values())
    switches = sorted({name for model in models for name in options_of(model).model_fields})
    for key in tune.space:
        name = key.removeprefix("options.")
        if name != key and name.split(".")[0] not in switches:
            raise ConfigError(f"tune.space.{key}", f"no model has this switch{did_you_mean(name, switches)}")
    for cell in searched:
        settings = cell.settings
        for model in _choices(cell.variant, tune):
            _check_fit(settings, model)


def _check_lists(settings: RunSettings, topn: TopNSettings) -> None:
    """Check that binary tasks make items relevant, and that lists can be ordered."""
    binary = [task.name for task in settings.tasks if task.kind == "binary"]
    for name in topn.tasks:
        if name not in binary:
            rule = f"names binary tasks of every log, found {name!r}"
            raise ConfigError("topn.tasks", f"{rule}{did_you_mean(name, binary)}")
    if not binary:
        names = ", ".join(settings.task_names)
        raise ConfigError("topn", f"a binary task must make items relevant, found only {names}; leave it out")
    without = [name for name in topn.baselines if topn.next_item and not find_baseline(name).by_profile]
    if without:
        raise ConfigError(
            "topn.baselines",
            "next items are listed by baselines that read a history of any row (`by_profile`), found "
            f"{', '.join(without)}; leave them out, or `next_item`",
        )
    list_objective(settings, topn)


def check_installed(plan: Plan, cells: Sequence[Cell]) -> None:
    """Refuse what this machine cannot run: unfinished cells, and searches that they wait for.

    Args:
        plan: What the cells are part of.
        cells: The cells that are to run.

    Raises:
        MgoeError: A library, a compiler or a device is missing.
    """
    if unmeasured := unmeasured_baselines(plan, cells):
        load_optuna()
        if any(baseline.by_implicit for baseline in unmeasured.values()):
            load_implicit("als")
    tune, undone = plan.comparison.tune, [cell for cell in cells if not cell.done]
    for cell in _one_per_model(undone):
        _check_installed(cell.settings, cell.variant.settings() if cell.waits else cell.model)
    for cell in _one_per_model(plan.searched(cell) for cell in undone if cell.waits):
        assert tune is not None
        load_optuna()
        for model in _choices(cell.variant, tune):
            _check_installed(cell.settings, model)


def check_inputs(cells: Sequence[Cell]) -> None:
    """Refuse models of a run that have nothing to read on its log, as far as settings tell.

    In a comparison such a cell fails alone, since other logs may have what its model reads.

    Raises:
        ConfigError: The log has nothing that a model reads, or not what it cannot do without.
    """
    for cell in _one_per_model(cells):
        settings, model = cell.settings, cell.variant.settings()
        data, inputs, place = settings.data, model.inputs or (), f"models.{model.name}"
        tables = [table for table in (data.users, data.items) if table is not None]
        vectors = {feature.kind == "vector" for table in tables for feature in table.features}
        lacking = {
            "context": not data.context,
            "rates": settings.form == "events" or settings.graph.rates == [],
            "side": False not in vectors,
            "content": True not in vectors,
            "placing": True not in vectors,
        }
        empty = [name for name in inputs if lacking.get(name, False)]
        needed = class_of(model.base, place).requires.intersection(empty)
        if needed or len(empty) == len(inputs) > 0:
            log = f"an {settings.form.removesuffix('s')} log without {', '.join(sorted(needed or empty))}"
            other = "" if needed else f", or name `{model.base}+counts`, which reads other inputs"
            raise ConfigError(
                f"{place}.inputs",
                f"a model must have something to read, found {log}; leave the model out{other}",
            )


def _one_per_model(cells: Iterable[Cell]) -> list[Cell]:
    """Keep one cell per log and model, whatever its seed."""
    return [*{(cell.log.name, cell.variant.name): cell for cell in cells}.values()]


def _choices(variant: ModelVariant, tune: TuneSettings) -> Iterator[ModelSettings]:
    """Yield a model with every choice of a search, and with both ends of every range."""
    for key, values in applicable_search(variant.settings(), tune).space.items():
        for value in values if isinstance(values, list) else (values.low, values.high):
            yield variant.settings(nested({key: value}))


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


def _check_references(log: Log, seed: int, lists: bool) -> None:
    settings, world = log.settings(seed), log.world
    if world is None and settings.data.truth is not None:
        world = Truth.open(Path(settings.data.truth)).settings
    if world is not None:
        try:
            check_reachable(world, settings)
        except ConfigError as error:
            place = f"logs.{log.name}.{error.place}" if log.name else error.place
            raise ConfigError(place, error.message) from None
        if lists and world.at_moments:
            raise ConfigError(
                "topn",
                "the best reachable lists of a world with lives, trends, repeats or sessions are not known; "
                "leave out `topn`, or `data.truth`",
            )
