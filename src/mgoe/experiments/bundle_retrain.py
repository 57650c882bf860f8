"""`mgoe retrain`: the weights of a bundle learn from new rows, which then enter its graph.

New rows are read as of the graph before them, and older rows are replayed beside them. A tenth of the users
is held out of the training: their rows pick the epoch. All new rows calibrate. No row is in the history that
it is predicted from.

Axes: `N` examples, `T` tasks.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgoe._util.files import atomic_folder, exclusive, read_json, write_json, write_text
from mgoe.bundle import MANIFEST, Bundle
from mgoe.bundle.calibration import Calibration, Window, fit_calibration
from mgoe.bundle.lineage import iso_time
from mgoe.config import ModelSettings, RunSettings, TrainingSettings, check_settings
from mgoe.data import Encoders, Examples
from mgoe.errors import BundleError, ConfigError, DataError
from mgoe.experiments.bundle_refresh import TAKEN, check_place, copy_files, finish
from mgoe.experiments.cell import check_finite
from mgoe.experiments.due import reasons
from mgoe.experiments.full_training import train_anew
from mgoe.experiments.graphs import settings_of, vocabularies
from mgoe.experiments.new_files import check_new, known_rows, with_files
from mgoe.experiments.new_rows import NewRows, Part
from mgoe.experiments.plan import training_of
from mgoe.experiments.stages import Say, ShowBuild
from mgoe.experiments.training_state import REPLAY, keep_state, replay_of, start_of, waiting_of
from mgoe.graph import MacroGraph, update_graph
from mgoe.models import late_tables, make_model
from mgoe.serving import EventLog
from mgoe.training import OPTIMIZER, WEIGHTS, Feed, Monitor, Replay, ReplayFeed, fit, predict, progress_bar

HELD_OUT = 0.1
"""Share of the users whose new rows are not trained on."""
DRIFT = 0.1
"""Drift of a graph from which its macro nodes are learned again (docs/scale.md)."""


def retrain(
    bundle: Path | str,
    events: Path | str | EventLog | None,
    out: Path | str,
    *,
    log: Sequence[str] = (),
    source: Sequence[str] = (),
    full: bool = False,
    trim: bool = False,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Bundle:
    """Write a bundle whose weights have learned from new rows, and whose graph holds them.

    Training starts from the weights of `bundle` and from the state of its optimisers, and the schedule of the
    learning rates begins anew (`retrain` in the settings). New ids get rows in the embedding tables. Macro
    nodes are learned again, before the training, where the graph has drifted. The same call resumes an
    interrupted training and gives the same bundle.

    Args:
        bundle: The bundle to start from; it stays unchanged.
        events: State folder or Redis server of a service, or its log; None to read files.
        out: Folder of the new bundle. What the next retraining needs is stored beside it, in `OUT.training`.
        log: Parquet or CSV files, folders or globs that hold only new rows, in the columns of the bundle's
            log.
        source: What the settings of the new bundle name in place of `log`, whose files are then temporary.
        full: Train from scratch instead, on all files of the bundle's log and these; settings, model and seed
            stay.
        trim: Remove from the log of a service what the graph of `bundle` already held. No service may then
            return to an earlier bundle.
        overwrite: Replace the bundle in `out`.
        say: Callback for lines of progress, and for why a full training is due.

    Raises:
        MgoeError: The bundle is damaged, there is nothing new, a row breaks a rule, or `out` is taken; what
            was there is unchanged.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "torchrun", "trains from scratch alone, found mgoe retrain; run it without torchrun"
        )
    opened, out = Bundle.open(bundle), Path(out)
    check_place(out, opened.path, overwrite)
    if full:
        return train_anew(opened, [*log], out, say)
    new = NewRows.of(opened, events, log, trim, say)
    with _work_folder(out, opened, [*log]) as (work, now), atomic_folder(out) as folder:
        waiting = waiting_of(opened)
        if log:
            check_new(opened, [*log], work, say)
            files, waiting = known_rows(opened, [*log], waiting, work, now)
            new.parts = [Part(settings_of(opened.graph, files), files)] if files else []
            if waiting:
                say("exposures whose labels are not all known wait, and are read with the next log")
        new.require()
        copy_files(opened, folder)
        new.fetch(work / TAKEN, say)
        before = _before(opened, work / "graph", say)
        shutil.rmtree(folder / "graph")
        graph = MacroGraph.open(shutil.copytree(before.path, folder / "graph"))
        graph = new.add_to(graph, False, say)
        for name in vocabularies(folder):
            shutil.copyfile(graph.path / name, folder / name)
        shutil.rmtree(work / "window", ignore_errors=True)
        if (examples := new.examples(work / "window", known := Encoders(folder))) is None:
            raise BundleError(
                opened.path,
                "is of an exposure log and learns from exposures, found only live events, which do not say "
                "what was shown; use mgoe refresh, or send exposures",
            )
        learned = work / f"fit-{graph.meta['checksum']:x}"  # of these rows
        calibration = _learn(opened, before, known, examples, learned, say)
        for name in (WEIGHTS, "spec.json"):
            shutil.copyfile(learned / name, folder / name)
        due = reasons(opened, graph, examples)
        for line in due:
            say(f"a full training is due: {line}")
        settings = with_files(opened.settings, source or log)
        changed = {
            "calibration": calibration.model_dump(mode="json"),
            "trained_until": iso_time(graph.meta["last"]),
            "due": due,
            "rows_until": new.until(work),
        }
        finish(folder, opened, graph, new.ends, "retrained", changed, settings, say)
        keep_state(out, [learned / OPTIMIZER, learned / REPLAY, *waiting])
    if trim:
        new.forget()
    return Bundle.open(out, verify=False)


@contextmanager
def _work_folder(out: Path, bundle: Bundle, log: list[str]) -> Iterator[tuple[Path, int]]:
    """Yield the folder of unfinished work for a bundle, and when this work began, in microseconds since 1970.

    It is removed when the block succeeds or the rows break a rule. Otherwise it stays, and the same call
    resumes from it.
    """
    work = out.with_name(f".{out.name}.retraining")
    call, file = {"bundle": bundle.name, "log": log}, work / "started.json"
    with exclusive(work, "a retrained bundle"):
        if not file.exists() or read_json(file)["call"] != call:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            write_json(file, {"call": call, "now": time.time_ns() // 1000})
        try:
            yield work, read_json(file)["now"]
        except (DataError, BundleError):
            shutil.rmtree(work)
            raise
        shutil.rmtree(work)


def _before(bundle: Bundle, folder: Path, say: Say) -> MacroGraph:
    """Return the graph that new rows are read from: that of the bundle, with its macro nodes learned again
    where it has drifted."""
    graph = bundle.graph
    drift = graph.meta["drift"][bundle.settings.graph.dense_of(len(graph.meta["drift"]))]
    if drift <= DRIFT:
        return graph
    say(f"macro nodes are learned again, because the drift of the graph is {drift:.2f} (at most {DRIFT})")
    if not folder.exists():
        with atomic_folder(folder) as copy:
            shutil.copytree(graph.path, copy, dirs_exist_ok=True)
            update_graph(MacroGraph.open(copy), None, ShowBuild(say), recluster=True)
    return MacroGraph.open(folder)


def _learn(
    bundle: Bundle, graph: MacroGraph, known: Encoders, examples: Examples, folder: Path, say: Say
) -> Calibration:
    """Train on new examples, and write weights, optimiser state, the next memory and `spec.json`.

    Args:
        bundle: The bundle to start from.
        graph: The graph that the examples are read from, which does not hold them.
        known: Gives the number of users and items.
        examples: The new examples.
        folder: Where everything is written; training resumes from there.
        say: Callback for lines of progress.

    Returns:
        The calibration of the trained model, fitted to all new examples. Most were trained on, but in one or
        few passes, which biases a mean far less than a tenth of the users is too few.
    """
    settings, before = bundle.settings, bundle.model.spec
    model = check_settings(ModelSettings, bundle.manifest["model"], bundle.path / MANIFEST)
    spec = replace(before, n_users=known.users.size, n_items=known.items.size)
    seed = abs(int(examples.bucket.max()))
    with late_tables():
        made = make_model(model, spec, seed)
    held = np.random.default_rng(seed).random(known.users.size)[examples.user] < HELD_OUT
    train, apart = examples.take(~held), examples.take(held)
    training = _shorter(training_of(settings, model), settings)
    monitor = Monitor.parse(training.monitor, spec.tasks)
    if not len(train) or not monitor.is_defined(spec.tasks, apart.labels, apart.user):
        raise DataError(
            "the new rows",
            f"must be enough to learn from and to measure {monitor.text} on a tenth of the users, found "
            f"{len(examples):,}; wait for more, or use mgoe refresh",
        )
    valid = Feed(known, graph, apart, made.needs, spec)
    memory = replay_of(bundle)
    if memory is None:
        say("no rows are replayed, because none are kept beside the bundle")
        feed = Feed(known, graph, train, made.needs, spec)
    else:
        memory = memory.for_spec(before, spec, made.needs)
        number = round(settings.retrain.replay * len(train))
        feed = ReplayFeed(known, graph, train, made.needs, spec, memory, number, seed)
    say(f"training on {len(train):,} new rows and {len(feed) - len(train):,} replayed ones")
    with progress_bar(model.name, monitor.text) as on_progress:
        fit(made, feed, valid, training, folder, on_progress, seed, resume=True, start=start_of(bundle))
    every, most = Feed(known, graph, examples, made.needs, spec), settings.retrain.memory
    scores = predict(made, every)
    check_finite(model.name, {"the new rows": scores}, bundle.tasks)
    memory = Replay.of(every, most, seed) if memory is None else memory.joined(every, most, seed)
    memory.save(folder / REPLAY)
    write_text(folder / "spec.json", spec.to_json())
    window = Window.of(scores, bundle.shift(examples.item), examples.labels, examples.bucket, settings)
    return fit_calibration(window, settings.tasks, bundle.calibration)


def _shorter(training: TrainingSettings, settings: RunSettings) -> TrainingSettings:
    """Return the settings of a training that starts from weights."""
    ours = settings.retrain
    return training.model_copy(
        update={
            "epochs": ours.epochs,
            "batch_size": min(training.batch_size, ours.batch_size),
            "learning_rate": training.learning_rate * ours.rate,
            "table_learning_rate": training.table_learning_rate * ours.rate,
        }
    )
