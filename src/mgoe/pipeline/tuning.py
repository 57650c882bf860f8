"""Search of settings on validation, with the same number of trials and the same rows for every model.

Trial 0 is the unchanged settings, so that no model gets worse on validation by being tuned. After the given
points, trials are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011, Optuna's), each
seeded by its number, so a resumed search finds what an uninterrupted one finds. Test is never read.
"""

import errno
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.extras import install, load
from mgoe._util.files import read_json, write_json
from mgoe.config import (
    ModelSettings,
    RangeSettings,
    RunSettings,
    TuneSettings,
    check_settings,
    deep_merge,
    nested,
    seconds,
)
from mgoe.errors import MgoeError, TrainingError
from mgoe.models import resolve
from mgoe.pipeline.cell import fit_model
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Cell, applicable_search, training_of
from mgoe.training import FitProgress, Monitor

OF_A_RUN = {
    "trials": 100,
    "share": 1.0,
    "space": {
        "training.batch_size": [256, 512, 1024, 2048, 4096],
        "training.learning_rate": {"low": 5e-4, "high": 2e-2, "log": True},
        "training.epochs": [2, 4, 8],
    },
}
"""The search of a run, which is given a time: the settings that matter most for a first model."""
KILLS = 2
"""Number of times that the process of a trial may be killed before the trial counts as failed."""


def note_killed(path: Path) -> None:
    """Note that the process of a search was killed during a trial. Not for a search that was stopped."""
    found = read_json(path) if path.exists() else {}
    if "best" not in found:
        write_json(path, found | {"killed": found.get("killed", 0) + 1})


def search(cell: Cell, tune: TuneSettings, out: Path) -> int:
    """Search the settings of a cell's model, or resume an interrupted search.

    Args:
        cell: Names the log, the model and the seed of every fit.
        tune: Trials, share of rows and space; what does not concern the model is ignored.
        out: JSON file with `trials`, each with its `settings`, its validation `value` (null if the fit
            failed, with the reason in `failed`) and `seconds`; `killed`, how often the process of the next
            trial was killed; and finally `best`.

    Returns:
        The number of trials.

    Raises:
        TrainingError: Every trial failed. The next search starts over, since the machine may be the reason.
        OutputError: A trial cannot be written, for lack of space or rights.
    """
    settings = cell.settings
    inputs = Inputs.open(cell.log.stage(cell.seed), settings, cell.graph)
    model = inputs.resolve_ids(cell.variant.settings())
    lower = Monitor.parse(training_of(settings, model).monitor, settings.tasks).lower_is_better
    tune = applicable_search(model, tune)
    found = read_json(out) if out.exists() else {}
    trials, killed = found.get("trials", []), found.get("killed", 0)
    folder = out.with_suffix(".fit")
    budget = seconds(tune.budget) if tune.budget else math.inf
    while (
        len(trials) < (tune.trials if tune.space else 1)
        and (left := budget - sum(trial["seconds"] for trial in trials)) > 0
    ):
        changed = propose(tune.space, trials, tune.seed, lower, first=({}, *tune.first))
        started = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        value, failed = None, f"its process was killed {killed} times; memory may have run out"
        if killed < KILLS:
            value, failed = _try(model, changed, cell.seed, settings, tune, inputs, folder, left)
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
    if all(trial["value"] is None for trial in trials):
        out.unlink()
    best = best_trial(f"tune, {model.name}", trials, lower)
    write_json(out, {"model": model.name, "trials": trials, "best": best})
    return len(trials)


def _try(
    model: ModelSettings,
    changed: Mapping[str, Any],
    seed: int,
    settings: RunSettings,
    tune: TuneSettings,
    inputs: Inputs,
    folder: Path,
    left: float,
) -> tuple[float | None, str]:
    """Return the value of a trial, or why it failed: the same settings would fail again.

    Raises:
        Exception: The disk failed, which is independent of the settings.
    """
    started = time.perf_counter()

    def check(now: FitProgress) -> None:
        if (spent := time.perf_counter() - started) > left:
            raise TrainingError(
                "tune.budget",
                f"a trial takes about {spent * now.steps / now.step:,.0f} s, found {left:,.0f} s of "
                f"{tune.budget} left; give a longer time",
            )

    try:
        raw = deep_merge(model.model_dump(), nested(changed))
        tried = resolve(check_settings(ModelSettings, raw, f"models.{model.name}"))
        _, _, fitted = fit_model(
            tried,
            seed,
            settings,
            inputs,
            folder,
            check if tune.budget else None,
            resume=False,
            share=(tune.share, tune.seed),
        )
    except Exception as error:
        if _is_disk_error(error, folder):
            raise
        reason = str(error) if isinstance(error, MgoeError) else f"{type(error).__name__}: {error}"
        return None, " ".join(reason.split())
    if not math.isfinite(fitted.best_value):
        return None, "the monitored metric does not exist"
    return fitted.best_value, ""


def _is_disk_error(error: Exception, folder: Path) -> bool:
    """Tell whether an error means that files of a fit cannot be written."""
    if isinstance(error, MgoeError):
        return Path(error.place).is_relative_to(folder)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def propose(
    space: Mapping[str, list[Any] | RangeSettings],
    trials: Sequence[Mapping[str, Any]],
    seed: int,
    lower_is_better: bool,
    first: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the settings of the next trial, a function of space, earlier trials and seed only.

    The first ones are given.
    """
    if len(trials) < len(first):
        return dict(first[len(trials)])
    optuna = load_optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {key: _distribution(optuna, values) for key, values in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed + len(trials), n_startup_trials=max(3, len(trials) // 3))
    study = optuna.create_study(direction="minimize" if lower_is_better else "maximize", sampler=sampler)
    states = optuna.trial.TrialState
    study.add_trials(
        optuna.trial.create_trial(
            params=trial["settings"],
            distributions={key: distributions[key] for key in trial["settings"]},
            value=trial["value"],
            state=states.FAIL if trial["value"] is None else states.COMPLETE,
        )
        for trial in trials
        if trial["settings"]  # unchanged settings may be outside the space
    )
    return dict(study.ask(distributions).params)


def best_trial(place: str, trials: Sequence[Mapping[str, Any]], lower_is_better: bool) -> dict[str, Any]:
    """Return the settings of the best trial.

    Raises:
        TrainingError: Every trial failed.
    """
    done = [trial for trial in trials if trial["value"] is not None]
    if not done:
        rule = f"every one of {len(trials)} trials failed"
        raise TrainingError(place, f"{rule}, the first with: {trials[0]['failed']}")
    return (min if lower_is_better else max)(done, key=lambda trial: trial["value"])["settings"]


def _distribution(optuna: Any, values: list[Any] | RangeSettings) -> Any:
    if isinstance(values, list):
        return optuna.distributions.CategoricalDistribution(values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return optuna.distributions.IntDistribution(values.low, values.high, log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def load_optuna() -> Any:
    """Import the library that searches settings.

    Raises:
        MissingExtra: It is not installed.
    """
    return load("optuna", "tune", "Optuna", install("tune"))
