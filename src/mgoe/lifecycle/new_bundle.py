"""The folder of a bundle that is made from another one: where it may be, and what it holds."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import atomic_folder, sha256, write_text
from mgoe.bundle import MANIFEST, Bundle, seal
from mgoe.bundle.held import HELD, Sources, joined, read_held, write_held
from mgoe.bundle.items import WITHDRAWN
from mgoe.bundle.manifest import RETRIEVAL, Lineage, Trained
from mgoe.bundle.membership import deployment_of
from mgoe.bundle.training_state import copy_state
from mgoe.config import RunSettings, dump_settings, retrieval_of
from mgoe.data import Encoders, Vocabulary
from mgoe.errors import BundleError, OutputError
from mgoe.evaluation import read_rows
from mgoe.features import View
from mgoe.graph import MacroGraph
from mgoe.lifecycle.graphs import take_items
from mgoe.retrieval import Retrieval
from mgoe.serving import check_no_events

logger = logging.getLogger(__name__)


def finish(
    folder: Path,
    bundle: Bundle,
    graph: MacroGraph,
    ends: Sources,
    trained: Trained,
    changed: dict[str, Any],
    settings: RunSettings,
) -> None:
    """Complete the folder of a bundle that was made from another one.

    Args:
        folder: Its folder, with its graph and its weights.
        bundle: The bundle that it was made from.
        graph: Its graph.
        ends: What it holds of logs of services besides, by identity.
        trained: How its weights came about.
        changed: What is new in its manifest.
        settings: Its settings.
    """
    how, former = retrieval_of(bundle.settings.retrieval, graph.latest.n_items), bundle.retrieval
    if how is not None:
        logger.info("building what candidates are retrieved from")
        if former is not None:
            how = how.model_copy(update={"quotas": former.quotas})  # those that were chosen
        Retrieval.build(
            View.of(graph.latest),
            folder / RETRIEVAL,
            how,
            former and (bundle.graph.latest, former),
            former and former.blend,
        )
    write_items(bundle, folder)
    write_held(folder, joined(read_held(bundle.path), ends))
    write_text(folder / "settings.yaml", dump_settings(settings))
    where = {"deployment": deployment_of(bundle), "lineage": Lineage.of(graph, trained, bundle.name)}
    manifest = bundle.manifest.model_copy(update=where | changed)
    seal(folder, manifest, settings, read_rows(folder / "metrics.json"))


def write_items(bundle: Bundle, folder: Path, waiting: bool = True) -> None:
    """Write ids, features and names of items, and what is withdrawn, for a bundle that is made from another.

    Args:
        bundle: The former one, with what it has learned of items since.
        folder: Of the new one, which holds the files of the former one, or the ids of a new graph.
        waiting: Include items that the graph does not hold.
    """
    ours, side = bundle.encoders.items, bundle.encoders.item_side
    if ours.size == bundle.snapshot.n_items and not side.is_extended and not len(bundle.withdrawn):
        return
    known = Vocabulary.load(file := folder / Encoders.FILES[1])
    if waiting:
        (known := known.with_ids(ours.every)).save(file)
        Vocabulary(ours.ids(bundle.withdrawn)).save(folder / WITHDRAWN)
    side.at(ours.indices(known.every)).save(folder / "item_side")


def with_items(bundle: Bundle, out: Path) -> Bundle:
    """Write a bundle that keeps the items that were added to another one in memory, or withdrawn.

    Args:
        bundle: The other bundle.
        out: A new folder.
    """
    with atomic_folder(out) as folder:
        copy_files(bundle, folder)
        finish(
            folder,
            bundle,
            take_items(MacroGraph.open(folder / "graph"), bundle.encoders, recluster=False),
            {},
            "refreshed",
            {},
            bundle.settings,
        )
        copy_state(bundle.path, out)
    return Bundle.open(out, verify=False)


def copy_files(bundle: Bundle, folder: Path) -> None:
    """Copy the files of a bundle that a new one starts from."""
    held = bundle.manifest.checksums
    for name in [name for name in held if name != HELD and not name.startswith(f"{RETRIEVAL}/")]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, folder / name)
        if sha256(folder / name) != held[name]:
            raise BundleError(bundle.path / name, "was replaced while it was read; update the bundle again")


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


def with_files(settings: RunSettings, log: Sequence[str]) -> RunSettings:
    """Return settings whose log has further files, each named once: a full training reads all of them."""
    data = settings.data
    files = list(dict.fromkeys([*data.log, *map(os.path.abspath, log)]))
    return settings.model_copy(update={"data": data.model_copy(update={"log": files})})
