"""The nodes that a plan asks for: what each is made of, how it is made, and what shows that it is intact."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json
from mgoe._util.tables import Frame
from mgoe.config import TopNSettings, TuneSettings, check_settings
from mgoe.evaluation import REACHABLE
from mgoe.graph.build.workplace import building
from mgoe.models import options_of
from mgoe.pipeline import records
from mgoe.pipeline.cell import fit_cell
from mgoe.pipeline.consistency import agrees, holds_damage, is_lost
from mgoe.pipeline.folder import CHECKSUMS, DONE, EXAMPLES, checksum_of_log
from mgoe.pipeline.held_out import hold_out_last
from mgoe.pipeline.lists import references_of
from mgoe.pipeline.plan import (
    NOTICES,
    REFERENCES,
    Cell,
    Log,
    Plan,
    applicable_search,
    is_done,
    training_of,
)
from mgoe.pipeline.prepare import build_graph_of, draw_world, prepare_log
from mgoe.pipeline.topn_cell import measure_baseline, measure_model, measure_reachable
from mgoe.pipeline.tuning import search
from mgoe.pipeline.values import ALGORITHMS, FREE, plain_values, values_of_run
from mgoe.topn import find_baseline
from mgoe.work.node import Node, is_damaged


def nodes_of(plan: Plan, cells: Iterable[Cell], table: Frame | None = None) -> list[Node]:
    """Return all that cells are made of, and the cells, each once and after those it is made from.

    Args:
        plan: The run or comparison.
        cells: Its cells, or some of them.
        table: Read instead of the log's files.
    """
    cells = list(cells)
    found = _Nodes(plan, {cell.log.name: cell.log for cell in cells}, table)
    for cell in cells:
        found.add_cell(cell)
        if plan.comparison.topn is not None:
            found.add_lists(cell, plan.comparison.topn)
    return list(found.nodes.values())


class _Nodes:
    """Collects nodes by path, each once and after those that it is made from."""

    def __init__(self, plan: Plan, logs: Mapping[str, Log], table: Frame | None):
        self.nodes = dict[Path, Node]()
        self._plan, self._table, self._lines = plan, table, records.latest(plan.out)
        self._checksums = {name: _checksum_of(log) for name, log in logs.items()}

    def add_cell(self, cell: Cell) -> None:
        values, tune = values_of_run(cell.settings), self._plan.comparison.tune
        searches = () if tune is None else (self.nodes.get(cell.search) or self._search_of(cell, tune),)
        graph = self._graph_of(cell, values)
        self._add(
            "cell",
            cell.log,
            cell.title,
            cell.folder,
            _fit_of(cell, values) | {"evaluation": values["evaluation"]} | _refit_of(cell),
            fit_cell,
            (cell,),
            DONE,
            before=(graph, *searches),
            reads=graph.before,
            follows=(cell.log.lists(cell.variant.name, cell.seed),),
            damaged=partial(is_lost, cell, self._lines.get(cell.key, {})),
        )

    def add_lists(self, cell: Cell, topn: TopNSettings) -> None:
        """Add the lists of a cell, and those that they are compared with."""
        log, name, values = cell.log, cell.variant.name, values_of_run(cell.settings)
        if not topn.next_item:
            listed = {"topn": plain_values(topn, {"baselines", "trials", "trial_minutes"})}
            before = (self.nodes[cell.folder],)
            self._add_lists(log, name, cell.seed, listed, measure_model, (cell, topn), before)
        known, seeds = (
            {key: values[key] for key in ("data", "tasks", "split")},
            tuple(self._plan.settings.seeds),
        )
        for name, seed in references_of(self._plan, log):
            measure = measure_reachable if name == REACHABLE else measure_baseline
            given = known | _topn_of_reference(topn, name)
            self._add_lists(
                log, name, seed, given, measure, (log, name, seed, topn, seeds), self._origin_of(log)
            )

    def _add_lists(
        self,
        log: Log,
        name: str,
        seed: int,
        values: dict[str, Any],
        make: Callable[..., Any],
        args: tuple[Any, ...],
        before: tuple[Node, ...],
    ) -> None:
        title, folder = f"lists of {log.name}, {name}, seed {seed}", log.lists(name, seed)
        damaged = partial(holds_damage, folder)
        self._add("lists", log, title, folder, values, make, args, DONE, before=before, damaged=damaged)

    def _search_of(self, cell: Cell, tune: TuneSettings) -> Node:
        searched, same = self._plan.searched(cell), (cell.log.name, cell.variant.base)
        values = values_of_run(searched.settings)
        graph, applied = (
            self._graph_of(searched, values),
            applicable_search(searched.variant.settings(), tune),
        )
        cells = self._plan.cells
        return self._add(
            "search",
            cell.log,
            f"search of {cell.log.name}, {searched.variant.name}",
            cell.search,
            _fit_of(searched, values) | {"tune": plain_values(applied)},
            search,
            (searched, tune, cell.search),
            before=(graph,),
            reads=graph.before,
            follows=tuple(one.folder for one in cells if (one.log.name, one.variant.base) == same),
            complete=partial(is_done, cell.search),
            damaged=partial(is_damaged, cell.search, read_json),
        )

    def _graph_of(self, cell: Cell, values: dict[str, Any]) -> Node:
        label = f", {cell.variant.label}" if cell.variant.graph else ""
        return self._add(
            "graph",
            cell.log,
            f"graph of {cell.log.name}, seed {cell.seed}{label}",
            cell.graph,
            {"graph": values["graph"]},
            build_graph_of,
            (cell,),
            before=(self._data_of(cell, values),),
            follows=(building(cell.graph),),
        )

    def _data_of(self, cell: Cell, values: dict[str, Any]) -> Node:
        log, stage = cell.log, cell.log.stage(cell.seed)
        rows = {key: value for key, value in values["training"].items() if key == "rows"}
        return self._add(
            "data",
            log,
            f"examples of {log.name}, seed {cell.seed}",
            stage / "data",
            {key: values[key] for key in ("data", "tasks", "split", "negatives")} | rows,
            prepare_log,
            (self._plan, log, cell.seed, self._table),
            more=(stage / EXAMPLES, log.path / REFERENCES),
            before=self._origin_of(log),
            follows=(stage / EXAMPLES, log.path / REFERENCES, log.path / NOTICES),
            complete=partial(agrees, self._plan, log, cell.seed),
        )

    def _origin_of(self, log: Log) -> tuple[Node, ...]:
        """Return what a log is drawn or cut from, if it is."""
        if log.world is not None:
            shown = {"form": "exposures"} if log.settings(0).form == "exposures" else {}
            values, world = plain_values(log.world) | shown, log.path / "world"
            return (self._add("world", log, f"world of {log.name}", world, values, draw_world, (log,)),)
        if log.whole is not None:
            whole, title = values_of_run(log.whole), f"last items of {log.name}"
            values, given = {"data": whole["data"], "tasks": whole["tasks"]}, (log.whole, log.rest)
            return (self._add("rest", log, title, log.rest, values, hold_out_last, given),)
        return ()

    def _add(
        self,
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
        """Add a node whose first file is `proof`, or its path; what follows from it is a result too."""
        if path not in self.nodes:
            files, checksum = (path / proof, *more), self._checksums[log.name]
            results = (files[0], *(one / DONE for one in others.get("follows", ())))
            about = {"files": files, "results": results, **others}
            self.nodes[path] = Node(
                kind, title, path, values, ALGORITHMS[kind], checksum, make, args, **about
            )
        return self.nodes[path]


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
