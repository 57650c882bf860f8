"""`mgoe retrain`: the weights of a bundle learn from new rows, which then enter its graph.

New rows are read as of the graph before them: no row is in the history that it is predicted from. `learning`
trains on them, and all of them calibrate.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mgoe._util.files import atomic_folder, exclusive, read_json, write_json
from mgoe.bundle import MANIFEST, Bundle
from mgoe.bundle.calibration import fit_calibration
from mgoe.bundle.lineage import iso_time
from mgoe.bundle.population import POPULATION, population_of
from mgoe.bundle.training_state import REPLAY, keep_state, waiting_of
from mgoe.config import ModelSettings, RunSettings, check_settings
from mgoe.data import Encoders
from mgoe.errors import BundleError, DataError
from mgoe.experiments.graphs import settings_of
from mgoe.experiments.stages import Say
from mgoe.graph import MacroGraph
from mgoe.lifecycle.bundle_refresh import TAKEN, check_place, copy_files, finish
from mgoe.lifecycle.due import reasons
from mgoe.lifecycle.full_training import train_anew
from mgoe.lifecycle.learning import SPEC, RetrainJob, learn, training_from_weights
from mgoe.lifecycle.new_files import check_new, known_rows, with_files
from mgoe.lifecycle.new_rows import NewRows, Part
from mgoe.serving import EventLog
from mgoe.training import OPTIMIZER, WEIGHTS, Feed, ProcessGroup, joined


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
    learning rates begins anew (`retrain` in the settings). New ids get rows in the embedding tables. When the
    new rows have entered the graph, its sketch and macro nodes are learned again. The same call resumes an
    interrupted training and gives the same bundle.

    Under `torchrun` all processes train together, and the first one does the rest. They learn what one
    process learns, up to rounding.

    Args:
        bundle: The bundle to start from; it stays unchanged.
        events: State folder or Redis server of a service, or its log; None to read files.
        out: Folder of the new bundle. What the next retraining needs is stored beside it, in `OUT.training`.
        log: Parquet or CSV files, folders or globs that hold only new rows, in the columns of the bundle's
            log.
        source: What the settings of the new bundle name in place of `log`, whose files are then temporary.
        full: Train from scratch instead, on all files of the bundle's log and these, with the settings of the
            bundle and the first of their seeds.
        trim: Remove from the log of a service what the graph of `bundle` already held. No service may then
            return to an earlier bundle.
        overwrite: Replace the bundle in `out`.
        say: Callback for lines of progress, and for why a full training is due.

    Raises:
        MgoeError: The bundle is damaged, there is nothing new, a row breaks a rule, or `out` is taken; what
            was there is unchanged.
    """
    opened, out = Bundle.open(bundle), Path(out)
    with joined(opened.settings.training.device) as processes:
        if processes.leads:
            check_place(out, opened.path, overwrite)
        if full:
            train_anew(opened, [*log], out, say)
        else:
            model = check_settings(ModelSettings, opened.manifest["model"], opened.path / MANIFEST)
            training = training_from_weights(opened.settings, model)
            processes.check_batch(training.batch_size, "retrain.batch_size")
            if processes.leads:
                new = NewRows.of(opened, events, log, trim, say)
                settings = with_files(opened.settings, source or log)
                _write(opened, new, out, [*log], settings, processes, say)
                if trim:
                    new.forget()
            else:
                learn(RetrainJob.receive(opened, processes))
    return Bundle.open(out, verify=False)


def _write(
    bundle: Bundle,
    new: NewRows,
    out: Path,
    log: list[str],
    settings: RunSettings,
    processes: ProcessGroup,
    say: Say,
) -> None:
    """Write a bundle that has learned from new rows, with these settings, and its training state."""
    with _work_folder(out, bundle, log) as (work, now), atomic_folder(out) as folder:
        waiting = waiting_of(bundle)
        if log:
            check_new(bundle, log, work, say)
            files, waiting = known_rows(bundle, log, waiting, work, now)
            new.parts = [Part(settings_of(bundle.graph, files), files)] if files else []
            if waiting:
                say("exposures whose labels are not all known wait, and are read with the next log")
        new.require()
        copy_files(bundle, folder)
        new.fetch(work / TAKEN, say)
        graph = new.add_to(MacroGraph.open(folder / "graph"), True, say)
        shutil.rmtree(work / "window", ignore_errors=True)
        if (examples := new.examples(work / "window", known := Encoders(folder))) is None:
            raise BundleError(
                bundle.path,
                "is of an exposure log and learns from exposures, found only live events, which do not say "
                "what was shown; use mgoe refresh, or send exposures",
            )
        learned = work / f"fit-{graph.meta['checksum']:x}"  # of these rows
        job = RetrainJob(bundle, bundle.graph, known, examples, learned)
        job.share(processes)
        scores = learn(job, say)
        window = bundle.window(examples, scores)
        # Most of these rows were trained on, but in one or few passes, which biases a mean far less than a
        # tenth of the users is too few.
        calibration = fit_calibration(window, bundle.settings.tasks, bundle.calibration)
        served = window.answered(bundle.settings.tasks, calibration)
        feed = Feed(known, bundle.graph, examples, bundle.model.needs, bundle.model.spec)
        write_json(folder / POPULATION, population_of(feed, served).model_dump(mode="json"))
        for name in (WEIGHTS, SPEC):
            shutil.copyfile(learned / name, folder / name)
        due = reasons(bundle, graph, examples)
        for line in due:
            say(f"a full training is due: {line}")
        changed = {
            "calibration": calibration.model_dump(mode="json"),
            "trained_until": iso_time(graph.meta["last"]),
            "due": due,
            "rows_until": new.until(work),
        }
        finish(folder, bundle, graph, new.ends, "retrained", changed, settings, say)
        keep_state(out, [learned / OPTIMIZER, learned / REPLAY, *waiting])


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
