"""`mgoe refresh`: a bundle with the same weights and the events that a service has taken since."""

import shutil
from pathlib import Path

import ibis
import pyarrow as pa

from mgoe._util.files import atomic_folder, checksums, sha256, write_json
from mgoe._util.tables import hand_over
from mgoe.bundle import MANIFEST, Bundle
from mgoe.config import RunSettings
from mgoe.errors import BundleError, OutputError
from mgoe.experiments.graphs import add_events, saved_settings, settings_of, vocabularies
from mgoe.experiments.stages import Say, ShowBuild
from mgoe.graph import MacroGraph, update_graph
from mgoe.serving import EventLog, EventReader, Position, check_no_events, open_events
from mgoe.serving.events.event import START, Interaction, SeenEvents, with_ids_of
from mgoe.serving.online.live import HELD, position_of, positions


def refresh(
    bundle: Path | str,
    events: Path | str | EventLog,
    out: Path | str,
    *,
    recluster: bool = False,
    trim: bool = False,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Bundle:
    """Write a bundle with live events in its graph.

    New nodes get the indices that they have in the live service; all else is as after a rebuild that keeps
    the macro nodes. A service that swaps to the new bundle applies only later events.

    Args:
        bundle: The bundle that is served; it stays unchanged.
        events: State folder or Redis server of the service, or its log.
        out: Folder of the new bundle.
        recluster: Learn macro nodes again. The model was trained on the former ones and may get worse.
        trim: Remove from the log what the graph of `bundle` already held. No service may then return to an
            earlier bundle.
        overwrite: Replace the bundle in `out`.
        say: Callback for lines of progress.

    Raises:
        MgoeError: The bundle is damaged, the log is missing, or `out` is taken; what was there is unchanged.
    """
    opened, out = Bundle.open(bundle), Path(out)
    _check_place(out, opened.path, overwrite)
    log = open_events(events, make=False) if isinstance(events, str | Path) else events
    identity, held = log.identity, position_of(opened.path, log)
    found, position, strange = _later(log, held, EventReader.of(opened))
    if strange:
        say(f"{strange:,} events are left out: their ids are not of the type that the bundle's are")
    if not found and not recluster:
        raise BundleError(bundle, "holds every event of that log; refresh it when there are new ones")
    say(f"{len(found):,} events since the bundle's graph")
    with atomic_folder(out) as folder:
        for name in [name for name in opened.manifest["checksums"] if name != HELD]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(opened.path / name, folder / name)
            if sha256(folder / name) != opened.manifest["checksums"][name]:
                raise BundleError(
                    opened.path / name, "was replaced while it was read; refresh the bundle again"
                )
        graph = MacroGraph.open(folder / "graph")
        graph = (
            add_events(graph, _settings(graph), [], recluster=recluster, table=_table(found, opened), say=say)
            if found
            else update_graph(graph, None, ShowBuild(say), recluster)
        )
        for name in vocabularies(folder):
            shutil.copyfile(graph.path / name, folder / name)
        write_json(folder / HELD, {"positions": positions(opened.path) | {identity: position}})
        sums = checksums(folder, (path for path in folder.rglob("*") if path.is_file()))
        write_json(folder / MANIFEST, opened.manifest | {"checksums": sums})
    if trim:
        log.forget(held)
    return Bundle.open(out, verify=False)


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
            "is there already, and may be served; "
            "choose another folder, or replace one that is not served with --overwrite",
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
