"""A bundle without some of its users.

Pairs, edges, counts, rates, links between items and lists of popular items are those of a graph with the same
macro nodes that was built without these users. `STATED` names what is not, until the next full training.
"""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mgoe._util.files import atomic_folder
from mgoe.bundle import Bundle
from mgoe.bundle.training_state import REPLAY, copy_state, replay_of, state_folder
from mgoe.config import seconds
from mgoe.data import SideFeatures
from mgoe.experiments.graphs import vocabularies, without_users
from mgoe.graph import MacroGraph
from mgoe.lifecycle.erasures import ERASED
from mgoe.lifecycle.new_bundle import copy_files, finish
from mgoe.models import RankingModel
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
        finish(folder, bundle, graph, {}, "erased", {ERASED: erasures}, bundle.settings)


def user_tables(model: RankingModel) -> list[str]:
    """Return the names of the weights that have a row per user: tables whose name contains `user`."""
    sparse, size = {id(table) for table in model.tables()}, model.spec.n_users + 1
    named = [name for name, one in model.named_parameters() if id(one) in sparse and len(one) == size]
    return [name for name in named if "user" in name]


def stated(bundle: Bundle) -> dict[str, Any]:
    """Return what is not exact after an erasure, and the date when the next full training is due."""
    since = datetime.fromisoformat(bundle.manifest["fully_trained_until"])
    due = since + timedelta(seconds=seconds(bundle.settings.retrain.full_after))
    return {"stated": list(STATED), "full_training": due.date().isoformat()}
