"""`mgoe compare`: every model with every seed on every log, each cell in a process of its own, and the tables that answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mgoe._util.files import clear_unfinished, exclusive, read_json, write_text
from mgoe.config import ComparisonSettings, dump_settings, load_comparison
from mgoe.errors import OutputError
from mgoe.evaluation import Standings, markdown
from mgoe.experiments import consistency, imports, records, repair
from mgoe.experiments import jobs as work
from mgoe.experiments.cell import FIT, told
from mgoe.experiments.judged_rows import judged_cells, odd_cells, odd_seed
from mgoe.experiments.outcome import standings_of, write_outcome
from mgoe.experiments.plan import EXAMPLES, REFERENCES, Entry, Log, Plan
from mgoe.experiments.processes import Job, run_jobs, wait_for_orphans
from mgoe.experiments.stages import Say
from mgoe.experiments.tuning import is_done, note_killed

SETTINGS = "comparison.yaml"


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison has come to.

    Attributes:
        path: Its folder.
        standings: Every table on every log.
        failed: Titles of cells that failed, with the reason.
        waiting: How many cells are not run yet.
    """

    path: Path
    standings: Sequence[Standings]
    failed: dict[str, str]
    waiting: int

    @property
    def results(self) -> pd.DataFrame:
        """Tidy: log, model, base, variant, seed, split, slice, task, metric, value."""
        return pd.read_parquet(self.path / "results.parquet")

    def __repr__(self) -> str:
        return f"ComparisonResult({self.path})\n{markdown(self.standings)}"


def compare(
    settings: ComparisonSettings | Path | str,
    out: Path | str,
    *,
    models: list[str] | None = None,
    seeds: list[int] | None = None,
    logs: list[str] | None = None,
    stop_after: float | None = None,
    overwrite: bool = False,
    take: Sequence[Path | str] = (),
    say: Say = lambda line: None,
    command: str = "",
) -> ComparisonResult:
    """Run a comparison, or go on with one: finished cells are kept, and models, seeds, logs and variants may be added.

    Args:
        settings: Of the comparison, or the YAML file that holds them.
        out: Folder of the results.
        models, seeds, logs: Run these alone; tables show all that is there.
        stop_after: Seconds after which no cell is begun any more.
        overwrite: Make anew what was made with other settings. Refused where more than the chosen cells would have to go.
        take: Files as `results.jsonl`, of which cells and searches are taken over that were made with the same settings and log.
        say: Called with a line a finished cell.
        command: Noted with every cell.

    Raises:
        MgoeError: Settings or the folder break a rule, or cells of a log were judged on different rows, which is said when the tables of
            the others are written. What fails inside a cell fails that cell alone.
    """
    until = None if stop_after is None else time.monotonic() + stop_after
    settings, out = (
        settings if isinstance(settings, ComparisonSettings) else load_comparison(settings),
        Path(out),
    )
    plan = Plan(settings, out)
    entries = plan.chosen(models, seeds, logs)
    plan.check(entries)
    told = {Path(file): list(records.read(Path(file))) for file in take}
    with exclusive(out, "a comparison"):
        wait_for_orphans(out)
        _open(plan)
        repair.clear_sources(plan, say)
        parts = consistency.parts_of(plan, plan.entries)
        outdated = consistency.outdated(parts, overwrite)
        consistency.check_choice(plan, entries, outdated)
        write_text(out / SETTINGS, dump_settings(settings))  # not before they can be refused
        _drop(plan, outdated, command)
        repair.clear_shared(plan, say)
        broken = {*repair.cells(plan, say), *repair.searches(plan, parts, say)}
        _drop(plan, [part for part in parts if part.path in broken], command)
        for part in consistency.parts_of(
            plan, [*entries, *map(plan.untouched, entries)]
        ):  # searches and references are of the first seed
            part.begin()
        imports.take(plan, told, say)
        plan.check_installed(entries)  # not before: what is finished, here or elsewhere, needs no library
        _run(plan, entries, until, say, command)
        lines = records.latest(out)
        standings = standings_of(plan, lines)
        write_outcome(plan, standings, command)
    for log in plan.logs.values():
        if odd := odd_cells(judged_cells(plan, log, lines)):
            raise OutputError(log.path, odd)
    undone = [entry for entry in plan.entries if not entry.cell().done]
    failed = {
        entry.title: lines[entry.key]["reason"]
        for entry in undone
        if lines.get(entry.key, {}).get("state") == "failed"
    }
    return ComparisonResult(out, standings, failed, len(undone) - len(failed))


def _open(plan: Plan) -> None:
    """Take the folder. A new one is marked by its settings.

    Raises:
        OutputError: It holds something else, or cannot be written.
    """
    out = plan.out
    try:
        if out.exists() and not out.is_dir():
            raise OutputError(out, "must be a folder, found a file; choose another --out")
        if out.exists() and any(out.iterdir()) and not (out / SETTINGS).exists():
            raise OutputError(out, "holds files that no comparison wrote; choose an empty folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            out, f"cannot be made: {error.strerror or error}; choose a folder you may write"
        ) from None
    clear_unfinished(out)
    if not (out / SETTINGS).exists():
        write_text(out / SETTINGS, dump_settings(plan.settings))


def _drop(plan: Plan, outdated: Sequence[consistency.Part], command: str) -> None:
    """Take away what is outdated, and first say so in the lines of its cells, whose numbers are then of nothing that is there."""
    going = {path for part in outdated for path in part.paths}
    known = records.latest(plan.out)
    for entry in plan.entries:
        if entry.cell().folder in going and entry.key in known:
            records.append(plan.out, records.of_outdated(entry, command))
    for part in outdated:
        part.remove()


def _run(plan: Plan, entries: Sequence[Entry], until: float | None, say: Say, command: str) -> None:
    """Every chosen cell that is not finished, and what it needs."""
    _note_finished(plan, command)
    digests = {part.path: part.digests for part in consistency.parts_of(plan, plan.entries)}
    _note_searches(plan, digests, command)
    jobs, of_cells = jobs_of(plan, entries)
    say(f"{len(of_cells)} of {len(entries)} cells to run, {plan.settings.jobs} at a time")
    started, done = time.perf_counter(), 0
    threads = max((log.settings(0).training.threads for log in plan.logs.values()), default=1)
    with closing(run_jobs(jobs, plan.settings.jobs, plan.out, threads, until)) as outcomes:
        for outcome in outcomes:
            entry = of_cells.get(outcome.job.name)
            if entry is None:
                if outcome.lost and outcome.job.work is work.tune_model:
                    note_killed(outcome.job.args[-1])
                say(f"  {outcome.job.name}" + (f" failed: {outcome.failed}" if outcome.failed else ""))
                _note_searches(plan, digests, command)
                continue
            failed = (
                "" if entry.cell().done else outcome.failed
            )  # a process may be killed when all is written
            line = records.of_failure(entry, failed, command) if failed else records.of_cell(entry, command)
            records.append(plan.out, line)
            done += 1
            left = (time.perf_counter() - started) / done * (len(of_cells) - done)
            facts = entry.cell().folder / FIT
            ended = (
                f"{entry.title} failed: {failed}" if failed else f"{entry.log.name}, {told(read_json(facts))}"
            )
            say(
                f"  [{done}/{len(of_cells)}] {ended}"
                + (f"; about {_length(left)} left" if done < len(of_cells) else "")
            )


def jobs_of(plan: Plan, entries: Sequence[Entry]) -> tuple[list[Job], dict[str, Entry]]:
    """What has to be done for cells that are not, in an order in which nothing comes before what it needs; and which jobs are the cells."""
    jobs: dict[str, Job] = {}
    cells: dict[str, Entry] = {}
    seeds, lines = tuple(plan.settings.seeds), records.latest(plan.out)
    judged = {name: judged_cells(plan, log, lines) for name, log in plan.logs.items()}

    def need(name: str, there: bool, call: object, args: tuple, *needs: str) -> str:
        if not there:
            jobs.setdefault(name, Job(name, call, args, tuple(n for n in needs if n in jobs)))  # pyright: ignore[reportArgumentType]
        return name

    def prepared(log: Log, seed: int) -> str:
        stage, worlds = log.stage(seed), log.path / "world"
        world = need(f"world of {log.name}", log.world is None or worlds.exists(), work.draw_world, (log,))
        there = all(path.exists() for path in (stage / "data", stage / EXAMPLES, log.path / REFERENCES))
        there = there and not odd_seed(log, seed, seeds, judged[log.name])
        return need(
            f"examples of {log.name}, seed {seed}",
            there,
            work.prepare_log,
            (log, seed, seeds, judged[log.name]),
            world,
        )

    def staged(entry: Entry) -> str:
        log, seed, contestant = entry.log, entry.seed, entry.contestant
        stage, graph, data = log.stage(seed), log.graph(seed, contestant), prepared(log, seed)
        title = f"graph of {log.name}, seed {seed}" + (f", {contestant.variant}" if contestant.graph else "")
        return need(title, graph.exists(), work.build, (entry.settings, stage, graph), data)

    undone = [entry for entry in entries if not entry.cell().done]
    for log in {
        entry.log.name: entry.log for entry in entries
    }.values():  # where cells were taken over, references may be missing
        truth = log.settings(seeds[0]).data.truth
        if (
            truth is not None
            and not (log.path / REFERENCES).exists()
            and log not in [entry.log for entry in undone]
        ):
            prepared(log, seeds[0])
    for entry in undone:
        needs = [staged(entry)]
        tuned = None
        if plan.settings.tune is not None:
            first, tuned = plan.untouched(entry), entry.tuned
            if not is_done(tuned):
                title = f"search of {entry.log.name}, {first.contestant.name}"
                needs.append(
                    need(title, False, work.tune_model, (first, plan.settings.tune, tuned), staged(first))
                )
        cells[entry.title] = entry
        need(entry.title, False, work.fit_entry, (entry, tuned), *needs)
    return list(jobs.values()), cells


def _note_finished(plan: Plan, command: str) -> None:
    """A cell may have been finished by a process that was killed before it could note it."""
    lines = records.latest(plan.out)
    for entry in plan.entries:
        if entry.cell().done and not records.is_finished(entry, lines):
            stage = entry.log.stage(entry.seed)
            if not (stage / EXAMPLES).exists() and (stage / "data").exists():
                work.note_examples(stage)
            records.append(plan.out, records.of_cell(entry, command))


def _note_searches(plan: Plan, digests: Mapping[Path, Set[str]], command: str) -> None:
    """Searches that are finished and not noted, or whose line would not be taken elsewhere any more."""
    if plan.settings.tune is None:
        return
    lines = records.latest(plan.out)
    for entry in {records.search_key(entry): plan.untouched(entry) for entry in plan.entries}.values():
        if is_done(entry.tuned):
            line = records.of_search(entry, command)
            noted = lines.get(records.search_key(entry), {})
            if noted.get("search") != line["search"] or noted.get("asked") not in {
                line["asked"],
                *digests[entry.tuned],
            }:
                records.append(plan.out, line)


def _length(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.0f} min"
        if seconds >= 60
        else f"{seconds:.0f} s"
    )
