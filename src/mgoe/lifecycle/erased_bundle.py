"""A bundle without some of its users, and which erased users a bundle still holds.

Pairs, edges, counts, rates, links between items and lists of popular items are those of a graph with the same
macro nodes that was built without these users. `STATED` names what is not, until the next full training.
"""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mgoe._util.files import atomic_folder
from mgoe.bundle import Bundle
from mgoe.bundle.membership import registry_of
from mgoe.bundle.training_state import REPLAY, copy_state, replay_of, state_folder
from mgoe.config import seconds
from mgoe.data import SideFeatures
from mgoe.data.erasures import Erasures
from mgoe.errors import BundleError
from mgoe.graph import MacroGraph
from mgoe.graph.build.rate_counter import RECORDS
from mgoe.lifecycle.graphs import without_users
from mgoe.lifecycle.new_bundle import copy_files, finish
from mgoe.models import RankingModel
from mgoe.pipeline.whole_log import vocabularies
from mgoe.training import OPTIMIZER, WEIGHTS, load_checkpoint, save_checkpoint

STATED = (
    "sketch",
    "macro nodes",
    "weights",
    "calibration",
    "population",
    "metrics",
    "numbers and times of the rows that were read",
)
"""What an erased user had a part in, together with all others, until the next full training."""


def without(bundle: Bundle, users: list[str], out: Path, erasures: int) -> None:
    """Write a bundle without some users, and without them in what is kept for its next training.

    Their indices stay, without anything, so that those of others do not change. The new bundle is made even
    if the former one does not know the users: a service that takes it forgets what it has heard of them.

    Args:
        bundle: The bundle; it stays unchanged.
        users: Ids, as texts.
        out: Folder of the new bundle.
        erasures: Number of erasures that the new bundle has then seen, see `Erasures`.
    """
    indices = bundle.encoders.users.indices(users)
    indices = np.unique(indices[indices >= 0])
    with atomic_folder(out) as folder:
        copy_files(bundle, folder)
        graph = MacroGraph.open(folder / "graph")
        if len(indices):
            graph = without_users(graph, indices)
            for name, file in vocabularies(graph.path).items():
                shutil.copyfile(file, folder / name)
            SideFeatures.load(folder / "user_side").without(indices).save(folder / "user_side")
        copy_state(bundle.path, out)
        state, own = state_folder(out), indices[indices < bundle.model.spec.n_users]
        if tables := user_tables(bundle.model):
            tensors, meta = load_checkpoint(folder / WEIGHTS)
            for name in tables:
                tensors[name][own] = tensors[name][-1].clone()
            save_checkpoint(folder / WEIGHTS, tensors, meta)
            (state / OPTIMIZER).unlink(missing_ok=True)  # of rows per user: training begins with fresh ones
        if (memory := replay_of(bundle)) is not None:
            memory.without(own, bundle.model.spec.n_users).save(state / REPLAY)
        finish(folder, bundle, graph, {}, "erased", {"erased": erasures}, bundle.settings)


def user_tables(model: RankingModel) -> list[str]:
    """Return the names of the weights that have a row per user: tables whose name contains `user`."""
    sparse, size = {id(table) for table in model.tables()}, model.spec.n_users + 1
    named = [name for name, one in model.named_parameters() if id(one) in sparse and len(one) == size]
    return [name for name in named if "user" in name]


def stated(bundle: Bundle) -> dict[str, Any]:
    """Return what is not exact after an erasure, and the date when the next full training is due."""
    since = datetime.fromisoformat(bundle.manifest.fully_trained_until)
    due = since + timedelta(seconds=seconds(bundle.settings.retrain.full_after))
    return {"stated": list(STATED), "full_training": due.date().isoformat()}


def held_by(erasures: Erasures, bundle: Bundle) -> list[str]:
    """Return the erased users whom a bundle still holds.

    Of an erasure that was not applied to the bundle, these are all whom it knows. Of the others, who may have
    come back, these are users with rows from before.
    """
    if not erasures.entries:
        return []
    until, unseen = erasures.until(), erasures.until(bundle.manifest.erased)
    indices = bundle.encoders.users.indices([*until]).tolist()
    known = [(user, index) for user, index in zip(until, indices, strict=True) if index >= 0]
    return sorted(user for user, index in known if user in unseen or first_row(bundle, index) <= until[user])


def list_for(bundle: Bundle) -> str | None:
    """Return the file of the erasures of the registry that holds a bundle, as `data.erased` has it."""
    erasures = Erasures.of(registry_of(bundle.path))
    return str(erasures.path) if erasures.entries else None


def check_erased(erasures: Erasures, bundle: Bundle) -> None:
    """Refuse a bundle that holds erased users.

    Raises:
        BundleError: It does.
    """
    if held := held_by(erasures, bundle):
        raise BundleError(
            bundle.path,
            f"must not hold users who were erased, found {len(held):,}; run `mgoe erase`, which applies "
            f"the list again, train without their rows (mgoe erase --log), or take them from {erasures.path} "
            "if they have come back",
        )


def first_row(bundle: Bundle, user: int) -> int:
    """Return the latest moment at which the first row of a user may have been, by what a graph says of rows.

    Args:
        bundle: Its graph says of a pair when its last row was, and of an exposure in which bucket it was.
        user: Index of the user.

    Returns:
        Microseconds since 1970; the end of all times for a user without rows.
    """
    graph, latest = bundle.graph, bundle.snapshot
    start, end = latest.arrays["pairs.indptr"][user : user + 2]
    moments = [latest.arrays["pairs.time"][start:end]]
    if (records := graph.path / RECORDS).exists():
        buckets = pq.read_table(records, columns=["bucket"], filters=[("user", "=", user)])["bucket"]
        moments.append((buckets.to_numpy().astype(np.int64) + 1) * latest.bucket - 1)
    return int(np.concatenate(moments).min(initial=np.iinfo(np.int64).max))
