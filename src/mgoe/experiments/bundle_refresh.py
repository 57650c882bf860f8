"""`mgoe refresh`: the same weights over a graph with new events, and probabilities that hold now."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from mgoe._util.files import atomic_folder, sha256, write_json
from mgoe._util.tables import hand_over
from mgoe.bundle import MANIFEST, Bundle, lineage, seal
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.manifest import RETRIEVAL
from mgoe.config import RetrievalSettings, RunSettings, retrieval_of
from mgoe.errors import BundleError, ConfigError, OutputError
from mgoe.evaluation import read_rows
from mgoe.experiments.graphs import add_events, saved_settings, settings_of, vocabularies
from mgoe.experiments.stages import Say, ShowBuild
from mgoe.experiments.taken import TakenExposures
from mgoe.experiments.window import new_examples
from mgoe.features import View
from mgoe.graph import MacroGraph, update_graph
from mgoe.retrieval import Retrieval
from mgoe.serving import EventLog, EventReader, Position, check_no_events, open_events
from mgoe.serving.events.event import START, Interaction, SeenEvents, with_ids_of
from mgoe.serving.online.live import HELD, position_of, positions


def refresh(
    bundle: Path | str,
    events: Path | str | EventLog | None,
    out: Path | str,
    *,
    log: Sequence[str] = (),
    recluster: bool = False,
    trim: bool = False,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Bundle:
    """Write a bundle with live events, or those of new files, in its graph.

    New nodes follow the known ones, and all else is as after a rebuild that keeps the macro nodes. A service
    that swaps to the new bundle applies only later live events.

    Of a service that takes exposures, those that wait for no more labels enter the graph too, each once.

    Before the new events enter the graph, the former bundle scores them, and the new one is calibrated on
    these scores. Live events of a bundle of exposures do not include what was shown and not done, so they
    leave its calibration as it is; the exposures that a service has taken do not.

    Args:
        bundle: The bundle that is served; it stays unchanged.
        events: State folder or Redis server of the service, or its log; None to read files.
        out: Folder of the new bundle.
        log: Parquet or CSV files, folders or globs that hold only new rows, in the columns of the bundle's
            log.
        recluster: Learn macro nodes again. The model was trained on the former ones and may get worse.
        trim: Remove from the log what the graph of `bundle` already held. No service may then return to an
            earlier bundle.
        overwrite: Replace the bundle in `out`.
        say: Callback for lines of progress.

    Raises:
        MgoeError: The bundle is damaged, the log is missing, or `out` is taken; what was there is unchanged.
    """
    if (events is None) == (not log) or (log and trim):
        rule = "the new events are live ones or those of files, and only live ones can be trimmed"
        raise ConfigError("refresh", f"{rule}; give one of the two")
    opened, out = Bundle.open(bundle), Path(out)
    _check_place(out, opened.path, overwrite)
    live = open_events(events, make=False) if isinstance(events, str | Path) else events
    taken = None if live is None or live is events else TakenExposures.of(opened, str(events))
    if live is None:
        added, ends = [_Added(settings_of(opened.graph, log), list(log))], dict[str, Position]()
    else:
        added, ends = _since(opened, live, say)
        if not (added or recluster or (taken and taken.upto > taken.after)):
            wait = ", or when exposures have waited for their labels" if taken else ""
            raise BundleError(
                bundle, f"holds every event of that log; refresh it when there are new ones{wait}"
            )
    with atomic_folder(out) as folder:
        _copy(opened, folder)
        if taken is not None:
            ends |= {taken.log.identity: str(taken.upto)}
            if taken.write(file := folder / "taken.parquet", say):
                added.append(_Added(settings_of(opened.graph, [str(file)]), [str(file)]))
        calibration = _calibrate(opened, added, folder / "window", say)
        graph = MacroGraph.open(folder / "graph")
        for one in added:  # events first: their newcomers have numbers in the live service
            last = recluster and one is added[-1]
            graph = add_events(graph, one.settings, one.log, recluster=last, table=one.table, say=say)
        if not added and recluster:
            graph = update_graph(graph, None, ShowBuild(say), recluster)
        (folder / "taken.parquet").unlink(missing_ok=True)
        if (retrieval := _retrieval(opened, graph)) is not None:
            say("building what candidates are retrieved from")
            Retrieval.build(View.of(graph.latest), folder / RETRIEVAL, retrieval)
        for name in vocabularies(folder):
            shutil.copyfile(graph.path / name, folder / name)
        if ends := positions(opened.path) | ends:
            write_json(folder / HELD, {"positions": ends})
        changed = opened.manifest | {
            "calibration": calibration.model_dump(mode="json"),
            "lineage": lineage(graph, "refreshed", opened.name),
        }
        seal(folder, changed, opened.settings, read_rows(folder / "metrics.json"))
    if trim and live is not None:
        live.forget(position_of(opened.path, live))
        if taken is not None:
            taken.forget()
    return Bundle.open(out, verify=False)


def _copy(bundle: Bundle, folder: Path) -> None:
    """Copy the files of a bundle that a new one starts from."""
    held = bundle.manifest["checksums"]
    for name in [name for name in held if name != HELD and not name.startswith(f"{RETRIEVAL}/")]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, folder / name)
        if sha256(folder / name) != held[name]:
            raise BundleError(bundle.path / name, "was replaced while it was read; refresh the bundle again")


def _retrieval(bundle: Bundle, graph: MacroGraph) -> RetrievalSettings | None:
    """Return how candidates are retrieved: as before, with the quotas that were chosen."""
    settings = retrieval_of(bundle.settings.retrieval, graph.latest.n_items)
    if settings is None or bundle.retrieval is None:
        return settings
    return settings.model_copy(update={"quotas": bundle.retrieval.quotas})


@dataclass(frozen=True)
class _Added:
    """New events: how they are read, the files or the table that hold them, and whether those not done are
    among them or can be drawn."""

    settings: RunSettings
    log: list[str]
    table: ir.Table | None = None
    whole: bool = True


def _since(bundle: Bundle, log: EventLog, say: Say) -> tuple[list[_Added], dict[str, Position]]:
    """Return the live events that a bundle's graph lacks, if any, and where the log ends, by its identity."""
    found, position, strange = _later(log, position_of(bundle.path, log), EventReader.of(bundle))
    if strange:
        say(f"{strange:,} events are left out, because their ids have another type than those of the bundle")
    say(f"{len(found):,} events are newer than the bundle's graph")
    ends = {log.identity: position}
    if not found:
        return [], ends
    settings, table = _settings(bundle.graph), _table(found, bundle)
    return [_Added(settings, [], table, bundle.settings.form == "events")], ends


def _calibrate(bundle: Bundle, found: list[_Added], folder: Path, say: Say) -> Calibration:
    """Return the calibration that new events give, scored by the bundle that does not hold them."""
    whole = [one for one in found if one.whole]
    if not whole:
        return bundle.calibration
    added = whole[-1]
    examples = new_examples(bundle, added.settings, added.log, folder, added.table)
    say(f"calibrating on {len(examples):,} examples, scored before they enter the graph")
    return bundle.fit_calibration(examples)


def _check_place(out: Path, bundle: Path, overwrite: bool) -> None:
    """Refuse a place where writing would lose the source bundle, live events or other files."""
    if not out.exists():
        return
    if out.resolve() in (bundle, *bundle.parents):
        raise OutputError(
            out, "is or holds the bundle that is read, which may be served; choose another folder"
        )
    if not overwrite:
        raise OutputError(
            out,
            "is there already, and may be served; choose another folder, or overwrite one that is not served",
        )
    if not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            out, f"must be empty or hold a bundle to be replaced, found no {MANIFEST}; choose another folder"
        )
    check_no_events(out)


def _later(log: EventLog, held: Position, reader: EventReader) -> tuple[list[Interaction], Position, int]:
    """Return the interactions after a position, each once.

    Also return where the log ends, and the number of events after the position whose ids are of another type.
    """
    seen, found = SeenEvents(), list[Interaction]()
    position, limit, strange, after = held, log.order(held), 0, START
    while part := log.read(after):
        positions, events = zip(*part, strict=True)
        for position, event in zip(positions, with_ids_of(events, reader.kinds), strict=True):
            later = log.order(position) > limit
            if event is None:  # the bundle cannot hold its ids
                strange += later
            elif event.behavior in reader.behaviors:
                new = seen.add(event, reader.behaviors[event.behavior])
                found += sorted(new, key=lambda interaction: interaction[-1]) if later else []
        after = positions[-1]
    return found, position, strange


def _table(interactions: list[Interaction], bundle: Bundle) -> ibis.Table:
    """Return interactions as a table in which each task is a behaviour of its own name."""
    users, items, times, tasks = zip(*interactions, strict=True)
    rows = pa.table(
        {
            "user": pa.array(users, bundle.encoders.users.type),
            "item": pa.array(items, bundle.encoders.items.type),
            "time": pa.array(times, pa.int64()),
            "behavior": pa.array([bundle.tasks[task] for task in tasks], pa.string()),
        }
    )
    return hand_over(ibis.duckdb.connect(), "events", rows)


def _settings(graph: MacroGraph) -> RunSettings:
    """Return how live events are read, whatever the form of the log was."""
    log = settings_of(graph, [])
    raw = {
        "data": {
            "log": ["-"],
            "form": "events",
            "user": "user",
            "item": "item",
            "time": "time",
            "time_unit": "us",
            "bucket": log.data.bucket,
        },
        "tasks": [task.name for task in log.tasks],
        "graph": graph.meta["settings"],
    }
    return saved_settings(graph, raw)
