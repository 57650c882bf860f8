"""The parts that a plan asks for, and what each is made of."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mgoe.config import TopNSettings, TuneSettings, check_settings
from mgoe.evaluation import REACHABLE
from mgoe.experiments.folder import CHECKSUMS, DONE, EXAMPLES, checksum_of_log
from mgoe.experiments.parts import FREE, Part, plain_values, values_of_run
from mgoe.experiments.plan import NOTICES, REFERENCES, Cell, Log, Plan, applicable_search, training_of
from mgoe.graph.build.workplace import building
from mgoe.models import options_of
from mgoe.topn import Baseline, find_baseline


def parts_of(plan: Plan, cells: Iterable[Cell]) -> list[Part]:
    """Return all parts that cells are made of, and the cells, each once and after those it is made from."""
    cells = list(cells)
    logs = {cell.log.name: cell.log for cell in cells}
    checksums, found = {name: _checksum_of(log) for name, log in logs.items()}, dict[Path, Part]()

    def add(kind: str, log: Log, path: Path, values: dict[str, Any], done: str = "", **more: Any) -> Part:
        part = Part(kind, path, values, checksums[log.name], path / done, **more)
        return found.setdefault(path, part)

    def origin_of(log: Log) -> tuple[Part, ...]:
        if log.world is not None:
            shown = {"form": "exposures"} if log.settings(0).form == "exposures" else {}
            return (add("world", log, log.path / "world", plain_values(log.world) | shown),)
        if log.whole is not None:
            whole = values_of_run(log.whole)
            return (add("rest", log, log.rest, {"data": whole["data"], "tasks": whole["tasks"]}),)
        return ()

    def graph_of(cell: Cell, values: dict[str, Any]) -> Part:
        log, stage = cell.log, cell.log.stage(cell.seed)
        data = add(
            "data",
            log,
            stage / "data",
            {key: values[key] for key in ("data", "tasks", "split", "negatives")}
            | {key: value for key, value in values["training"].items() if key == "rows"},
            before=origin_of(log),
            follows=(stage / EXAMPLES, *(log.path / name for name in (REFERENCES, NOTICES))),
        )
        graph = {"graph": values["graph"]}
        return add("graph", log, cell.graph, graph, before=(data,), follows=(building(cell.graph),))

    def search_of(cell: Cell, tune: TuneSettings) -> Part:
        searched, same = plan.searched(cell), (cell.log.name, cell.variant.base)
        values = values_of_run(searched.settings)
        tune = applicable_search(searched.variant.settings(), tune)
        return add(
            "search",
            cell.log,
            cell.search,
            _fit_of(searched, values) | {"tune": plain_values(tune)},
            before=(graph_of(searched, values),),
            follows=tuple(one.folder for one in plan.cells if (one.log.name, one.variant.base) == same),
        )

    def add_lists(log: Log, name: str, seed: int, values: dict[str, Any], before: tuple[Part, ...]) -> None:
        add("lists", log, log.lists(name, seed), values, DONE, before=before)

    for cell in cells:
        log, values = cell.log, values_of_run(cell.settings)
        tune, topn = plan.comparison.tune, plan.comparison.topn
        searches = () if tune is None else (found.get(cell.search) or search_of(cell, tune),)
        fitted = add(
            "cell",
            log,
            cell.folder,
            _fit_of(cell, values) | {"evaluation": values["evaluation"]} | _refit_of(cell),
            DONE,
            before=(graph_of(cell, values), *searches),
            follows=(log.lists(cell.variant.name, cell.seed),),
        )
        if topn is not None:
            listed = {"topn": plain_values(topn, {"baselines", "trials", "trial_minutes"})}
            if not topn.next_item:
                add_lists(log, cell.variant.name, cell.seed, listed, (fitted,))
            known = {key: values[key] for key in ("data", "tasks", "split")}
            for name, seed in references_of(plan, log):
                add_lists(log, name, seed, known | _topn_of_reference(topn, name), origin_of(log))
    return list(found.values())


def references_of(plan: Plan, log: Log) -> list[tuple[str, int]]:
    """Return the name and seed of the lists that those of models are compared with on a log.

    They are those of baselines, with the first seed alone if nothing is drawn, and the best reachable ones,
    which are known of a simulated world by time, and not of next items.
    """
    topn, seeds = plan.comparison.topn, plan.settings.seeds
    if topn is None:
        return []
    known = log.settings(seeds[0]).data.truth is not None and not topn.next_item
    return [
        *((name, seed) for name in topn.baselines for seed in (seeds if is_drawn(plan, name) else seeds[:1])),
        *[(REACHABLE, seeds[0])] * known,
    ]


def baselines_of(plan: Plan) -> dict[str, Baseline]:
    """Return the baselines of a plan's lists by name.

    Raises:
        ConfigError: One of an extension cannot be imported.
    """
    topn = plan.comparison.topn
    return {name: find_baseline(name) for name in (() if topn is None else topn.baselines)}


def is_drawn(plan: Plan, name: str) -> bool:
    """Tell whether the lists of a model or baseline depend on its seed."""
    return name not in (known := baselines_of(plan)) or known[name].random


def unmeasured_baselines(plan: Plan, cells: Iterable[Cell]) -> dict[str, Baseline]:
    """Return the baselines whose lists on a log of some cells are not measured yet, by name."""
    logs, baselines = {cell.log.name: cell.log for cell in cells}.values(), baselines_of(plan)
    return {
        name: baselines[name]
        for log in logs
        for name, seed in references_of(plan, log)
        if name in baselines and not (log.lists(name, seed) / DONE).exists()
    }


def _topn_of_reference(topn: TopNSettings, name: str) -> dict[str, Any]:
    """Return what decides the lists of a baseline, or the best reachable ones, on prepared data, as plain
    values."""
    unread = {"baselines", "exact_users", "objective", "retrieval"}
    if name == REACHABLE:
        unread |= {"seed", "trials", "trial_minutes", "tuning_users"}
        return {"topn": plain_values(topn, unread), "bound": REACHABLE}
    baseline = find_baseline(name)
    space = {
        key: values if isinstance(values, list) else values.model_dump()
        for key, values in baseline.space.items()
    }
    searched = {"baseline": name, "start": dict(baseline.start), "space": space}
    if not baseline.learns_in_epochs:
        unread.add("trial_minutes")
    return {"topn": plain_values(topn, unread) | searched}


def _checksum_of(log: Log) -> str | None:
    """Return the checksum of the files of a log: empty for a simulated one, None if they are not known."""
    if log.world is not None:
        return ""
    return None if log.from_table else checksum_of_log(log.source.data, log.path / CHECKSUMS)


def _refit_of(cell: Cell) -> dict[str, Any]:
    """Return what decides how a cell learns the rows that chose it; nothing if it does not."""
    way = training_of(cell.settings, cell.variant.settings()).refit
    retrain = {"retrain": plain_values(cell.settings.retrain, {"full_after"})} if way == "continue" else {}
    return {} if way == "none" else {"refit": way, **retrain}


def _fit_of(cell: Cell, values: dict[str, Any]) -> dict[str, Any]:
    """Return what decides a fit on a graph, with all switches, so that a changed default is another
    setting."""
    model = cell.variant.settings()
    switches = check_settings(options_of(model), model.options, f"models.{model.name}.options")
    training = {key: value for key, value in model.training.items() if key not in FREE["training"]}
    return {
        "seed": cell.seed,
        "training": values["training"],
        **{key: value for key, value in values.items() if key == "memory"},
        "model": plain_values(model) | {"options": plain_values(switches), "training": training},
    }
