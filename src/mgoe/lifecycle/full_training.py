"""`mgoe update --weights new`: a bundle trained from scratch on the whole log, and when that is due."""

import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from mgoe._util.files import read_json, write_json
from mgoe.bundle import MANIFEST, Bundle
from mgoe.bundle.held import read_held
from mgoe.bundle.manifest import iso_time
from mgoe.bundle.membership import DEPLOYMENT, deployment_of
from mgoe.bundle.training_state import copy_bundle
from mgoe.config import RunSettings, seconds
from mgoe.data import Examples, place_of
from mgoe.errors import ConfigError
from mgoe.experiments.runs import train
from mgoe.experiments.sources import span_of_files
from mgoe.graph import MacroGraph
from mgoe.lifecycle.erased_bundle import list_for
from mgoe.lifecycle.new_bundle import with_files
from mgoe.serving.events.marked import check_later, read_marks
from mgoe.training import ProcessGroup

NEWCOMERS = 0.3
"""Share of rows of items that came after the last full training, and so have no side features, from which
another one is due (ours)."""


def train_anew(bundle: Bundle, log: list[str], out: Path) -> None:
    """Train the model of a bundle from scratch on its whole log and new files, and write its bundle.

    The run is in `.NAME.full` beside `out` until it is finished, and an interrupted one resumes. Where
    processes have joined (`torchrun`), all of them make this call, and the first one writes.

    Args:
        bundle: Gives settings, model and the files of its log.
        log: New files.
        out: Folder of the new bundle.

    Raises:
        ConfigError: No new file is given; live events alone are not the whole log.
        MgoeError: The log or a folder breaks a rule.
    """
    if not log:
        raise ConfigError(
            "new weights",
            "are trained on files, found no new one; name one (mgoe log export writes those of a service)",
        )
    if others := read_marks(log)[1]:
        check_later(span_of_files(bundle.settings, others)[0], read_held(bundle.path), place_of(others))
    work = out.with_name(f".{out.name}.full")
    train(_settings(bundle, log), work)
    if not ProcessGroup.current().leads:
        return
    manifest = work / "bundle" / MANIFEST
    write_json(manifest, read_json(manifest) | {DEPLOYMENT: deployment_of(bundle)})
    copy_bundle(work / "bundle", out)
    shutil.rmtree(work)


def _settings(bundle: Bundle, log: list[str]) -> RunSettings:
    """Return the settings of a run on the whole log; cuts at fixed dates move with its end."""
    settings = with_files(bundle.settings, log)
    split = settings.split
    if isinstance(split.cuts[0], date):
        since = datetime.fromisoformat(bundle.manifest["fully_trained_until"])
        until = datetime.fromisoformat(bundle.manifest["lineage"]["log"][1])
        moved = timedelta(days=(until - since).days)
        cuts = [cut + moved for cut in split.cuts if isinstance(cut, date)]
        split = split.model_copy(update={"cuts": cuts})
    return settings.model_copy(
        update={
            "data": settings.data.model_copy(update={"end": None, "erased": list_for(bundle)}),
            "split": split,
            "models": [bundle.model_settings],
        }
    )


def reasons(bundle: Bundle, graph: MacroGraph, examples: Examples) -> list[str]:
    """Return why a full training is due; nothing if it is not.

    Args:
        bundle: The bundle that was retrained.
        graph: Its graph with the new rows.
        examples: The new rows.
    """
    found = []
    items = int(bundle.manifest["log"]["items"])
    newcomers = float(np.mean((examples.item < 0) | (examples.item >= items)))
    if newcomers > NEWCOMERS:
        found.append(f"{newcomers:.0%} of the new rows have items that came after the last full training")
    since = datetime.fromisoformat(bundle.manifest["fully_trained_until"])
    age = datetime.fromisoformat(iso_time(graph.meta["last"])) - since
    if age > timedelta(seconds=seconds(bundle.settings.retrain.full_after)):
        found.append(
            f"the log has gone on for {age.days} days since the last one (retrain.full_after is "
            f"{bundle.settings.retrain.full_after})"
        )
    return found
