"""Settings searched on validation: as many trials for every model, on the same share of the training rows.

Trial 0 is the settings as they stand, so that no model comes out worse on validation for having been tuned. After those that are given
the others are drawn by a tree-structured Parzen estimator (Bergstra et al. 2011, Optuna's), each with a seed of its own number: a search
that is gone on with comes to what one in one go comes to. Test is never read.
"""

from __future__ import annotations

import errno
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.extras import load
from mgoe._util.files import read_json, write_json
from mgoe.config import (
    ModelSettings,
    RangeSettings,
    RunSettings,
    TuneSettings,
    check_settings,
    laid_over,
    nested,
)
from mgoe.errors import MgoeError, TrainingError
from mgoe.experiments.cell import Inputs, fit_model, training_of
from mgoe.experiments.model_resolution import is_boosted
from mgoe.models import options_of, resolve
from mgoe.training import Monitor

KILLS = 2
"""So often the process of a trial may be killed, then the trial has failed: memory does not grow by trying."""


def load_optuna() -> Any:
    """The library that searches.

    Raises:
        MissingExtra: It is not installed.
    """
    return load("optuna", "tune", "Optuna", "pip install 'mgoe[tune]'")


def best_of(path: Path) -> dict[str, Any]:
    """What the best trial of a finished search changes, as mappings in mappings."""
    return nested(read_json(path)["best"])


def is_done(path: Path) -> bool:
    """Whether a search is finished."""
    return path.exists() and "best" in read_json(path)


def note_killed(path: Path) -> None:
    """Note that the process of a search was killed in the trial it had come to. Whoever stops a search does not call this."""
    found = read_json(path) if path.exists() else {}
    if "best" not in found:
        write_json(path, found | {"killed": found.get("killed", 0) + 1})


def search(
    model: ModelSettings, seed: int, settings: RunSettings, tune: TuneSettings, inputs: Inputs, out: Path
) -> int:
    """Search the settings of a model, or go on with a search that was cut off.

    Args:
        model: Resolved, ids decided.
        seed: Of every fit.
        settings: Of the run.
        tune: Trials, share of rows, space; what does not concern the model is passed over.
        inputs: What the model reads.
        out: JSON file: `trials`, each with its `settings`, validation `value` (null where the fit failed, with the reason in `failed`) and
            `seconds`; `killed`, how often the process of the next one was; at the end `best`.

    Returns:
        The number of trials.

    Raises:
        TrainingError: Every trial failed. The next search begins anew, since that may be the machine's fault.
        OutputError: A trial cannot be written, for want of space or rights.
    """
    lower = Monitor.parse(training_of(settings.training, model).monitor, settings.tasks).lower_is_better
    tune = concerning(model, tune)
    given = [{}, *tune.first]
    found = read_json(out) if out.exists() else {}
    trials, killed = found.get("trials", []), found.get("killed", 0)
    folder = out.with_suffix(".fit")
    while len(trials) < (tune.trials if tune.space else 1):
        number = len(trials)
        changed = given[number] if number < len(given) else propose(tune.space, trials, tune.seed, lower)
        started = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        value, failed = None, f"its process was killed {killed} times; memory may have run out"
        if killed < KILLS:
            value, failed = _try(model, changed, seed, settings, tune, inputs, folder)
        killed = 0
        trials.append(
            {
                "settings": changed,
                "value": value,
                "failed": failed,
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        write_json(out, {"model": model.name, "trials": trials})
    shutil.rmtree(folder, ignore_errors=True)
    done = [trial for trial in trials if trial["value"] is not None]
    if not done:
        out.unlink()
        raise TrainingError(
            f"tune, {model.name}",
            f"every one of {len(trials)} trials failed, the first with: {trials[0]['failed']}",
        )
    best = (min if lower else max)(done, key=lambda trial: trial["value"])
    write_json(out, {"model": model.name, "trials": trials, "best": best["settings"]})
    return len(trials)


def _try(
    model: ModelSettings,
    changed: Mapping[str, Any],
    seed: int,
    settings: RunSettings,
    tune: TuneSettings,
    inputs: Inputs,
    folder: Path,
) -> tuple[float | None, str]:
    """The value of a trial, or why it has none: whatever the fault is, the same settings would bring it about again.

    Raises:
        Exception: The disk's fault, which is no setting's.
    """
    try:
        tried = resolve(
            check_settings(
                ModelSettings, laid_over(model.model_dump(), nested(changed)), f"models.{model.name}"
            )
        )
        value = fit_model(tried, seed, settings, inputs, folder, resume=False, share=(tune.share, tune.seed))[
            2
        ].best_value
    except Exception as error:
        if _of_the_disk(error, folder):
            raise
        said = str(error) if isinstance(error, MgoeError) else f"{type(error).__name__}: {error}"
        return None, " ".join(said.split())
    return (value, "") if math.isfinite(value) else (None, "what is monitored does not exist")


def _of_the_disk(error: Exception, folder: Path) -> bool:
    """Whether files of a fit cannot be written."""
    if isinstance(error, MgoeError):
        return Path(error.place).is_relative_to(folder)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def propose(
    space: Mapping[str, list[Any] | RangeSettings],
    trials: Sequence[Mapping[str, Any]],
    seed: int,
    lower_is_better: bool,
) -> dict[str, Any]:
    """Settings of the next trial, a function of the space, the trials before and the seed alone."""
    optuna = load_optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {key: _distribution(optuna, values) for key, values in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed + len(trials), n_startup_trials=max(3, len(trials) // 3))
    study = optuna.create_study(direction="minimize" if lower_is_better else "maximize", sampler=sampler)
    for trial in trials:
        if trial["settings"]:  # the settings as they stand may lie outside the space
            state = (
                optuna.trial.TrialState.COMPLETE
                if trial["value"] is not None
                else optuna.trial.TrialState.FAIL
            )
            of = {key: distributions[key] for key in trial["settings"]}
            kept = {"params": trial["settings"], "distributions": of, "value": trial["value"], "state": state}
            study.add_trial(optuna.trial.create_trial(**kept))
    return dict(study.ask(distributions).params)


def concerning(model: ModelSettings, tune: TuneSettings) -> TuneSettings:
    """What of a search a model has: training settings, and the switches that its base knows. Boosted trees read no training setting that
    is searched, so that where none of their switches is, every trial would be the same one.
    """
    known = options_of(model).model_fields
    space = {
        key: values
        for key, values in tune.space.items()
        if not key.startswith("options.") or key.split(".")[1] in known
    }
    if is_boosted(model) and all(key.startswith("training.") for key in space):
        space = {}
    return tune.model_copy(
        update={"space": space, "first": [point for point in tune.first if point.keys() <= space.keys()]}
    )


def _distribution(optuna: Any, values: list[Any] | RangeSettings) -> Any:
    if isinstance(values, list):
        return optuna.distributions.CategoricalDistribution(values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return optuna.distributions.IntDistribution(values.low, values.high, log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
