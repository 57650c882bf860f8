"""The nodes that a plan asks for: what each is made of, how it is made, and what shows that it is intact."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json
from mgoe._util.tables import Frame
from mgoe.config import TopNSettings, TuneSettings, check_settings
from mgoe.evaluation import REACHABLE
from mgoe.experiments import records
from mgoe.experiments.cell import fit_cell
from mgoe.experiments.consistency import agrees, holds_damage, is_lost
from mgoe.experiments.folder import CHECKSUMS, DONE, EXAMPLES, checksum_of_log
from mgoe.experiments.held_out import hold_out_last
from mgoe.experiments.plan import (
    NOTICES,
    REFERENCES,
    Cell,
    Log,
    Plan,
    applicable_search,
    is_done,
    training_of,
)
from mgoe.experiments.prepare import build_graph_of, draw_world, prepare_log
from mgoe.experiments.references import references_of
from mgoe.experiments.topn_cell import measure_baseline, measure_model, measure_reachable
from mgoe.experiments.tuning import search
from mgoe.experiments.values import ALGORITHMS, FREE, plain_values, values_of_run
from mgoe.graph.build.workplace import building
from mgoe.models import options_of
from mgoe.topn import find_baseline
from mgoe.work import Node, is_damaged


def nodes_of(plan: Plan, cells: Iterable[Cell], table: Frame | None = None) -> list[Node]:
    """Return all that cells are made of, and the cells, each once and after those it is made from.

    Args:
        plan: The run or comparison.
        cells: Its cells, or some of them.
        table: Read instead of the log's files.
    """
    cells, seeds, topn = list(cells), tuple(plan.settings.seeds), plan.comparison.topn
    logs = {cell.log.name: cell.log for cell in cells}
    checksums, found = {name: _checksum_of(log) for name, log in logs.items()}, dict[Path, Node]()
    lines = records.latest(plan.out)

    def add(
        kind: str,
        log: Log,
        title: str,
        path: Path,
        values: dict[str, Any],
        make: Callable[..., Any],
        args: tuple[Any, ...],
        proof: str = "",
        more: tuple[Path, ...] = (),
        **others: Any,
    ) -> Node:
        files, follows = (path / proof, *more), others.get("follows", ())
        results = (files[0], *(one / DONE for one in follows))
        node = Node(
            kind,
            title,
            path,
            values,
            ALGORITHMS[kind],
            checksums[log.name],
            make,
            args,
            files=files,
            results=results,
            **others,
        )
        return found.setdefault(path, node)

    def origin_of(log: Log) -> tuple[Node, ...]:
        if log.world is not None:
            shown = {"form": "exposures"} if log.settings(0).form == "exposures" else {}
            values = plain_values(log.world) | shown
            return (
                add("world", log, f"world of {log.name}", log.path / "world", values, draw_world, (log,)),
            )
        if log.whole is not None:
            whole, title = values_of_run(log.whole), f"last items of {log.name}"
            values = {"data": whole["data"], "tasks": whole["tasks"]}
            return (add("rest", log, title, log.rest, values, hold_out_last, (log.whole, log.rest)),)
        return ()

    def data_of(cell: Cell, values: dict[str, Any]) -> Node:
        log, stage = cell.log, cell.log.stage(cell.seed)
        of_log = tuple(log.path / name for name in (REFERENCES, NOTICES))
        return add(
            "data",
            log,
            f"examples of {log.name}, seed {cell.seed}",
            stage / "data",
            {key: values[key] for key in ("data", "tasks", "split", "negatives")}
            | {key: value for key, value in values["training"].items() if key == "rows"},
            prepare_log,
            (plan, log, cell.seed, table),
            more=(stage / EXAMPLES, log.path / REFERENCES),
            before=origin_of(log),
            follows=(stage / EXAMPLES, *of_log),
            complete=partial(agrees, plan, log, cell.seed),
        )

    def graph_of(cell: Cell, values: dict[str, Any]) -> Node:
        label = f", {cell.variant.label}" if cell.variant.graph else ""
        return add(
            "graph",
            cell.log,
            f"graph of {cell.log.name}, seed {cell.seed}{label}",
            cell.graph,
            {"graph": values["graph"]},
            build_graph_of,
            (cell,),
            before=(data_of(cell, values),),
            follows=(building(cell.graph),),
        )

    def search_of(cell: Cell, tune: TuneSettings) -> Node:
        searched, same = plan.searched(cell), (cell.log.name, cell.variant.base)
        values = values_of_run(searched.settings)
        graph, applied = graph_of(searched, values), applicable_search(searched.variant.settings(), tune)
        return add(
            "search",
            cell.log,
            f"search of {cell.log.name}, {searched.variant.name}",
            cell.search,
            _fit_of(searched, values) | {"tune": plain_values(applied)},
            search,
            (searched, tune, cell.search),
            before=(graph,),
            reads=graph.before,
            follows=tuple(one.folder for one in plan.cells if (one.log.name, one.variant.base) == same),
            complete=partial(is_done, cell.search),
            damaged=partial(is_damaged, cell.search, read_json),
        )

    def add_lists(
        log: Log,
        name: str,
        seed: int,
        values: dict[str, Any],
        make: Callable[..., Any],
        args: tuple,
        **others: Any,
    ) -> None:
        title, folder = f"lists of {log.name}, {name}, seed {seed}", log.lists(name, seed)
        damaged = partial(holds_damage, folder)
        add("lists", log, title, folder, values, make, args, DONE, damaged=damaged, **others)

    for cell in cells:
        log, values, tune = cell.log, values_of_run(cell.settings), plan.comparison.tune
        searches = () if tune is None else (found.get(cell.search) or search_of(cell, tune),)
        graph = graph_of(cell, values)
        fitted = add(
            "cell",
            log,
            cell.title,
            cell.folder,
            _fit_of(cell, values) | {"evaluation": values["evaluation"]} | _refit_of(cell),
            fit_cell,
            (cell,),
            DONE,
            before=(graph, *searches),
            reads=graph.before,
            follows=(log.lists(cell.variant.name, cell.seed),),
            damaged=partial(is_lost, cell, lines.get(cell.key, {})),
        )
        if topn is None:
            continue
        listed = {"topn": plain_values(topn, {"baselines", "trials", "trial_minutes"})}
        if not topn.next_item:
            add_lists(
                log, cell.variant.name, cell.seed, listed, measure_model, (cell, topn), before=(fitted,)
            )
        known = {key: values[key] for key in ("data", "tasks", "split")}
        for name, seed in references_of(plan, log):
            add_lists(
                log,
                name,
                seed,
                known | _topn_of_reference(topn, name),
                measure_reachable if name == REACHABLE else measure_baseline,
                (log, name, seed, topn, seeds),
                before=origin_of(log),
            )
    return list(found.values())


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
