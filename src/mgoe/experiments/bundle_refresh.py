"""A bundle with live events for good: the same weights over a graph that is updated with what a service has taken since."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import ibis
import pyarrow as pa

from mgoe._util.files import atomic_folder, sha256, write_json
from mgoe._util.tables import hand_over
from mgoe.bundle import MANIFEST, Bundle
from mgoe.config import RunSettings
from mgoe.errors import BundleError, ConfigError, OutputError
from mgoe.experiments.graphs import add_events, settings_of
from mgoe.experiments.progress import Watch
from mgoe.experiments.stages import Say
from mgoe.graph import MacroGraph, update_graph
from mgoe.serving import EventLog, EventReader, Position, check_no_events, open_events
from mgoe.serving.events.event import Event, Interaction, typed
from mgoe.serving.events.log import START
from mgoe.serving.online.consumer import HELD, position_of, positions

VOCABULARIES = ("users.parquet", "items.parquet")


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
    """Write a bundle with live events in its graph: nodes born live get their codes, all else is as after a rebuild that keeps the macro
    nodes. A service that swaps to it applies later events alone.

    Args:
        bundle: What is served; it stays as it is.
        events: State folder or Redis server of the service, or its log.
        out: Folder of the new bundle.
        recluster: Learn macro nodes again. The model was trained on the former ones: it may lose.
        trim: Drop from the log what the graph of `bundle` held before this. No service may then go back to an earlier bundle.
        overwrite: Replace the bundle in `out`.
        say: Called with a line a stage.

    Raises:
        MgoeError: The bundle is damaged, the log is away, or `out` is in the way; what was there is as it was.
    """
    opened, out = Bundle.open(bundle), Path(out)
    _check_place(out, opened.path, overwrite)
    log = open_events(events, make=False) if isinstance(events, str | Path) else events
    identity, held = log.identity, position_of(opened.path, log)
    found, position, strange = _later(log, held, EventReader.of(opened))
    if strange:
        say(f"{strange:,} events are left out: their ids are not of the type that the bundle's are")
    if not found and not recluster:
        raise BundleError(bundle, "holds every event of that log; refresh it once there are new ones")
    say(f"{len(found):,} events since the bundle's graph")
    with atomic_folder(out) as folder:
        names = [name for name in opened.manifest["checksums"] if name != HELD]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(opened.path / name, folder / name)
            if sha256(folder / name) != opened.manifest["checksums"][name]:
                raise BundleError(
                    opened.path / name, "was replaced while it was read; refresh the bundle again"
                )
        graph = MacroGraph.open(folder / "graph")
        if found:
            graph = add_events(
                graph, _settings(graph), [], recluster=recluster, table=_table(found, opened), say=say
            )
        else:
            graph = update_graph(graph, None, Watch(say), recluster)
        for name in VOCABULARIES:
            shutil.copyfile(graph.path / name, folder / name)
        write_json(folder / HELD, {"positions": positions(opened.path) | {identity: position}})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        checksums = {str(path.relative_to(folder)): sha256(path) for path in files}
        write_json(folder / MANIFEST, opened.manifest | {"checksums": checksums})
    if trim:
        log.forget(held)
    return Bundle.open(out, verify=False)


def _check_place(out: Path, bundle: Path, overwrite: bool) -> None:
    """See that nothing is lost by what is put in a place, the bundle that is read and events that were taken least of all."""
    if not out.exists():
        return
    if out.resolve() in (bundle, *bundle.parents):
        raise OutputError(
            out, "is or holds the bundle that is read, which may be served; choose another folder"
        )
    if not overwrite:
        raise OutputError(
            out,
            "is there already, and may be served; choose another folder, or replace one that is not with --overwrite",
        )
    if not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            out, f"must be empty or hold a bundle to be replaced, found no {MANIFEST}; choose another folder"
        )
    check_no_events(out)


def _later(log: EventLog, held: Position, reader: EventReader) -> tuple[list[Interaction], Position, int]:
    """What was done after a position, each once, where the log ends, and how many events after the position have ids of no use."""
    keys: set[str] = set()
    seen: set[Interaction] = set()
    found: list[Interaction] = []
    position, limit, strange = held, log.order(held), 0
    for position, event in _typed(log, reader):
        later = log.order(position) > limit
        if event is None:
            strange += later
        elif event.behavior in reader.behaviors and (event.id is None or event.id not in keys):
            if event.id is not None:
                keys.add(event.id)
            new = event.interactions(reader.behaviors[event.behavior]) - seen
            if later:
                found += sorted(new, key=lambda deed: deed[-1])
            seen |= new
    return found, position, strange


def _typed(log: EventLog, reader: EventReader) -> Iterator[tuple[Position, Event | None]]:
    """All events with ids of the bundle's type, and None for one whose ids cannot be such."""
    after = START
    while part := log.read(after):
        positions, events = zip(*part, strict=True)
        yield from zip(positions, typed(events, reader.kinds), strict=True)
        after = positions[-1]


def _table(interactions: list[Interaction], bundle: Bundle) -> ibis.Table:
    """As a table of an engine, in which each task is a behaviour of its own name."""
    kinds = {
        "user": bundle.encoders.users.type,
        "item": bundle.encoders.items.type,
        "time": pa.int64(),
        "behavior": pa.string(),
    }
    named = [(user, item, time, bundle.tasks[task]) for user, item, time, task in interactions]
    columns = {
        name: pa.array(values, kind)
        for (name, kind), values in zip(kinds.items(), zip(*named, strict=True), strict=True)
    }
    return hand_over(ibis.duckdb.connect(), "events", pa.table(columns))


def _settings(graph: MacroGraph) -> RunSettings:
    """How they are read, whatever the form of the log was."""
    log = settings_of(graph, [])
    tasks = [task.name for task in log.tasks]
    data = {
        "log": ["-"],
        "form": "events",
        "user": "user",
        "item": "item",
        "time": "time",
        "time_unit": "us",
        "bucket": log.data.bucket,
    }
    try:
        return RunSettings.model_validate({"data": data, "tasks": tasks, "graph": graph.meta["settings"]})
    except ValueError as error:
        raise ConfigError(graph.path, f"the settings saved with the graph cannot be read: {error}") from None
