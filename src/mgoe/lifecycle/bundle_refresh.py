"""`mgoe refresh`: the same weights over a graph with new events, and probabilities that hold now."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import atomic_folder, sha256, write_json, write_text
from mgoe.bundle import MANIFEST, Bundle, lineage, seal
from mgoe.bundle.lineage import Trained
from mgoe.bundle.manifest import RETRIEVAL
from mgoe.bundle.training_state import copy_state
from mgoe.config import RetrievalSettings, RunSettings, dump_settings, retrieval_of
from mgoe.errors import BundleError, OutputError
from mgoe.evaluation import read_rows
from mgoe.experiments.stages import Say
from mgoe.features import View
from mgoe.graph import MacroGraph
from mgoe.lifecycle.new_files import with_files
from mgoe.lifecycle.new_rows import NewRows
from mgoe.retrieval import Retrieval
from mgoe.serving import EventLog, Position, check_no_events
from mgoe.serving.online.live import HELD, positions

TAKEN = "taken.parquet"
"""Exposures of a service, in the folder of an unfinished bundle."""


def refresh(
    bundle: Path | str,
    events: Path | str | EventLog | None,
    out: Path | str,
    *,
    log: Sequence[str] = (),
    source: Sequence[str] = (),
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
        source: What the settings of the new bundle name in place of `log`, whose files are then temporary.
        recluster: Learn sketch and macro nodes again, as at every snapshot of a training. A macro node keeps
            its number if its members stay together.
        trim: Remove from the log what the graph of `bundle` already held. No service may then return to an
            earlier bundle.
        overwrite: Replace the bundle in `out`.
        say: Callback for lines of progress.

    Raises:
        MgoeError: The bundle is damaged, the log is missing, or `out` is taken; what was there is unchanged.

    Example:
        >>> refresh(folder / "bundle", None, "new", log=[str(log)]).manifest["lineage"]["trained"]
        'refreshed'
    """
    opened, out = Bundle.open(bundle), Path(out)
    check_place(out, opened.path, overwrite)
    new = NewRows.of(opened, events, log, trim, say)
    if not recluster:
        new.require()
    with atomic_folder(out) as folder:
        copy_files(opened, folder)
        new.fetch(folder / TAKEN, say)
        calibration = opened.calibration
        if (examples := new.examples(folder / "window")) is not None:
            say(f"calibrating on {len(examples):,} examples, scored before they enter the graph")
            calibration = opened.fit_calibration(examples)
        graph = new.add_to(MacroGraph.open(folder / "graph"), recluster, say)
        changed = {"calibration": calibration.model_dump(mode="json"), "rows_until": new.until(folder)}
        settings = with_files(opened.settings, source or log)
        finish(folder, opened, graph, new.ends, "refreshed", changed, settings, say)
        copy_state(opened.path, out)
    if trim:
        new.forget()
    return Bundle.open(out, verify=False)


def finish(
    folder: Path,
    bundle: Bundle,
    graph: MacroGraph,
    ends: dict[str, Position],
    trained: Trained,
    changed: dict[str, Any],
    settings: RunSettings,
    say: Say,
) -> None:
    """Complete the folder of a bundle that was made from another one.

    Args:
        folder: Its folder, with its graph and its weights.
        bundle: The bundle that it was made from.
        graph: Its graph.
        ends: Where the logs end that it holds, by identity.
        trained: How its weights came about.
        changed: What is new in its manifest.
        settings: Its settings.
        say: Callback for lines of progress.
    """
    (folder / TAKEN).unlink(missing_ok=True)
    if (retrieval := _retrieval(bundle, graph)) is not None:
        say("building what candidates are retrieved from")
        former = bundle.retrieval and (bundle.graph.latest, bundle.retrieval)
        blend = None if bundle.retrieval is None else bundle.retrieval.blend
        Retrieval.build(View.of(graph.latest), folder / RETRIEVAL, retrieval, former, blend)
    if held := positions(bundle.path) | ends:
        write_json(folder / HELD, {"positions": held})
    write_text(folder / "settings.yaml", dump_settings(settings))
    manifest = bundle.manifest | changed | {"lineage": lineage(graph, trained, bundle.name)}
    seal(folder, manifest, settings, read_rows(folder / "metrics.json"))


def copy_files(bundle: Bundle, folder: Path) -> None:
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


def check_place(out: Path, bundle: Path, overwrite: bool) -> None:
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
