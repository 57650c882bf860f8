"""`mgoe update`: a bundle with new rows in its graph. Its weights stay, learn from them, or are trained anew.

New rows are scored, or learned from, as of the graph before them: no row is in the history that it is
predicted from. The new bundle is calibrated on all of them.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mgoe._util.files import atomic_folder, exclusive, read_json, write_json
from mgoe._util.progress import hidden
from mgoe.bundle import Bundle
from mgoe.bundle.calibration import fit_calibration
from mgoe.bundle.held import read_held
from mgoe.bundle.manifest import Trained, iso_time, read_manifest
from mgoe.bundle.membership import DEPLOYMENT, deployment_of
from mgoe.bundle.population import POPULATION, population_of
from mgoe.bundle.training_state import REPLAY, copy_bundle, copy_state, keep_state
from mgoe.config import RunSettings, seconds
from mgoe.data import Encoders, Examples, place_of
from mgoe.errors import BundleError, ConfigError, DataError
from mgoe.experiments.runs import train
from mgoe.graph import MacroGraph
from mgoe.lifecycle.erased_bundle import list_for
from mgoe.lifecycle.learning import SPEC, RetrainJob, learn
from mgoe.lifecycle.new_bundle import check_place, copy_files, finish, with_files, write_items
from mgoe.lifecycle.new_rows import NewRows, Sources
from mgoe.pipeline.plan import retraining_of
from mgoe.pipeline.sources import span_of_files
from mgoe.serving.events.marked import check_later, read_marks
from mgoe.training import OPTIMIZER, WEIGHTS, Feed, ProcessGroup, joined

logger = logging.getLogger(__name__)

Weights = Literal["keep", "continue", "new"]
"""What becomes of the weights of a bundle."""
Groups = Literal["learn", "keep"]
"""What becomes of sketch and macro nodes: learned again with the new rows in the graph, or kept."""
Made = tuple[MacroGraph, Trained, dict[str, Any]]
"""The graph of a new bundle, how its weights came about, and what is new in its manifest."""
NEWCOMERS = 0.3
"""Share of rows of items that came after the last full training, and so have no side features, from which
another one is due (ours)."""


def update(
    bundle: Path | str,
    rows: Sources,
    out: Path | str,
    *,
    weights: Weights = "keep",
    groups: Groups = "learn",
    overwrite: bool = False,
    now: int | None = None,
) -> Bundle:
    """Write a bundle whose graph holds new rows, and which is calibrated on them.

    New users and items follow the known ones. A service that swaps to the new bundle applies only later live
    events. Of a service that takes exposures, those that wait for no more labels enter the graph too, each
    once.

    With `weights="keep"`, the former bundle scores the new rows before they enter the graph, and the new one
    is calibrated on these scores. Live events of a bundle of exposures do not include what was shown and not
    done, so they leave its calibration as it is; the exposures that a service has taken do not.

    With `weights="continue"`, training starts from the weights of `bundle` and from the state of its
    optimisers, and the schedule of the learning rates begins anew (`retrain` in the settings). New ids get
    rows in the embedding tables. The same call resumes an interrupted training and gives the same bundle.
    Under `torchrun` all processes train together, and the first one does the rest. They learn what one
    process learns, up to rounding.

    Args:
        bundle: The bundle to start from; it stays unchanged.
        rows: Where the new rows are. Files hold only new rows, in the columns of the bundle's log; where the
            weights learn, they may hold others, too, see `Sources.later`.
        out: Folder of the new bundle. What the next training needs is stored beside it, in `OUT.training`.
        weights: `keep` them, `continue` to train them on the new rows, or train `new` ones from scratch on
            all files of the bundle's log and the new ones, with the settings of the bundle and the first of
            their seeds.
        groups: `learn` sketch and macro nodes again, as at every snapshot of a training, or `keep` them. A
            macro node keeps its number if its members stay together.
        overwrite: Replace the bundle in `out`.
        now: As of when exposures of a service are read, in microseconds since 1970, if it has a clock of its
            own; by default when the work begins.

    Raises:
        MgoeError: The bundle is damaged, there is nothing new, a row breaks a rule, or `out` is taken; what
            was there is unchanged.

    Example:
        >>> update(folder / "bundle", Sources(str(log)), "new").manifest.lineage.trained
        'refreshed'
    """
    opened, out, learns = Bundle.open(bundle), Path(out), groups == "learn"
    if weights == "new" and not learns:
        raise ConfigError("groups", "are part of new weights, found keep; leave it out, or keep the weights")
    with joined(opened.settings.training.device) as processes:
        if processes.leads:
            check_place(out, opened.path, overwrite)
        if weights == "new":
            train_anew(opened, rows.files, out)
        elif weights == "continue":
            training = retraining_of(opened.settings, opened.model_settings)
            processes.check_batch(training.batch_size, "retrain.batch_size")
            if not processes.leads:
                with hidden():  # the first process shows it
                    learn(RetrainJob.receive(opened, processes))
        if processes.leads and weights != "new":
            call = {"bundle": opened.name, "log": rows.files, "weights": weights, "groups": groups}
            with _work_folder(out, call, now) as (work, began), atomic_folder(out) as folder:
                trains = weights == "continue"
                read = replace(rows, later=rows.later or trains)
                new = NewRows.of(opened, read, work, trains=trains, now=began)
                new.require(learns and weights == "keep")
                copy_files(opened, folder)
                make = _keep if weights == "keep" else _continue
                graph, trained, changed = make(new, folder, out, learns)
                changed = changed | {DEPLOYMENT: new.deployment}
                settings = with_files(opened.settings, rows.files)
                finish(folder, opened, graph, new.ends, trained, changed, settings)
    return Bundle.open(out, verify=False)


def _keep(new: NewRows, folder: Path, out: Path, learns: bool) -> Made:
    """Keep the weights: calibrate them on the new rows, and add these to the graph.

    Args:
        new: The new rows.
        folder: The unfinished bundle, with the files of the former one.
        out: Where it will be.
        learns: Whether sketch and macro nodes are learned again.
    """
    bundle, calibration = new.bundle, new.bundle.calibration
    if (examples := new.examples()) is not None:
        logger.info(f"calibrating on {len(examples):,} examples, scored before they enter the graph")
        calibration = fit_calibration(bundle.window(examples), bundle.settings.tasks, calibration)
    graph = new.add_to(MacroGraph.open(folder / "graph"), learns)
    copy_state(bundle.path, out)
    return graph, "refreshed", {"calibration": calibration}


def _continue(new: NewRows, folder: Path, out: Path, learns: bool) -> Made:
    """Train the weights on the new rows, and add these to the graph; arguments as of `_keep`.

    Raises:
        BundleError: The new rows do not say what was shown.
        MgoeError: The training fails.
    """
    bundle, tasks = new.bundle, new.bundle.settings.tasks
    graph = new.add_to(MacroGraph.open(folder / "graph"), learns)
    write_items(bundle, folder, waiting=False)
    if (examples := new.examples(known := Encoders(folder))) is None:
        raise BundleError(
            bundle.path,
            "is of an exposure log and learns from exposures, found only live events, which do not say what "
            "was shown; keep the weights (mgoe update --weights keep), or send exposures",
        )
    learned = new.folder / f"fit-{graph.manifest.checksum:x}"  # of these rows
    job = RetrainJob(bundle, known, examples, learned)
    job.share(ProcessGroup.current())
    scores = learn(job)
    window = bundle.window(examples, scores)
    # Most of these rows were trained on, but in one or few passes, which biases a mean far less than a tenth
    # of the users is too few.
    calibration = fit_calibration(window, tasks, bundle.calibration)
    served = window.answered(tasks, calibration)
    feed = Feed(known, bundle.graph, examples, bundle.model.needs, bundle.model.spec, bundle.moments)
    write_json(folder / POPULATION, population_of(feed, served).model_dump(mode="json"))
    for name in (WEIGHTS, SPEC):
        shutil.copyfile(learned / name, folder / name)
    keep_state(out, [learned / OPTIMIZER, learned / REPLAY])
    due = reasons(bundle, graph, examples)
    for line in due:
        logger.info(f"a full training is due: {line}")
    return (
        graph,
        "retrained",
        {
            "calibration": calibration,
            "trained_until": iso_time(graph.manifest.last),
            "due": due,
        },
    )


@contextmanager
def _work_folder(out: Path, call: Mapping[str, Any], now: int | None = None) -> Iterator[tuple[Path, int]]:
    """Yield the folder of unfinished work of a call, and when this work began, in microseconds since 1970.

    It stays if the block fails after a training has begun, unless the rows break a rule, and the same call
    resumes from it.
    """
    work = out.with_name(f".{out.name}.updating")
    file = work / "started.json"
    with exclusive(work, "an update"):
        if not file.exists() or read_json(file)["call"] != call:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            write_json(file, {"call": call, "now": time.time_ns() // 1000 if now is None else now})
        try:
            yield work, read_json(file)["now"]
        except BaseException as error:
            if isinstance(error, DataError | BundleError) or not any(work.glob("fit-*")):
                shutil.rmtree(work)
            raise
        shutil.rmtree(work)


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
    made = read_manifest(work / "bundle", verify=False)
    made.model_copy(update={"deployment": deployment_of(bundle)}).save(work / "bundle")
    copy_bundle(work / "bundle", out)
    shutil.rmtree(work)


def _settings(bundle: Bundle, log: list[str]) -> RunSettings:
    """Return the settings of a run on the whole log; cuts at fixed dates move with its end."""
    settings = with_files(bundle.settings, log)
    split = settings.split
    if isinstance(split.cuts[0], date):
        since = datetime.fromisoformat(bundle.manifest.fully_trained_until)
        until = datetime.fromisoformat(bundle.manifest.lineage.log[1])
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
    items = int(bundle.manifest.log["items"])
    newcomers = float(np.mean((examples.item < 0) | (examples.item >= items)))
    if newcomers > NEWCOMERS:
        found.append(f"{newcomers:.0%} of the new rows have items that came after the last full training")
    since = datetime.fromisoformat(bundle.manifest.fully_trained_until)
    age = datetime.fromisoformat(iso_time(graph.manifest.last)) - since
    if age > timedelta(seconds=seconds(bundle.settings.retrain.full_after)):
        found.append(
            f"the log has gone on for {age.days} days since the last one (retrain.full_after is "
            f"{bundle.settings.retrain.full_after})"
        )
    return found
