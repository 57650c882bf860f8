"""One model of a run. It leaves a folder that `run` goes on with."""

from __future__ import annotations

import shutil
from pathlib import Path

from mgoe.bundle import write_bundle
from mgoe.config import SEEDS, ModelSettings, RunSettings, did_you_mean, load_settings
from mgoe.data import Prepared
from mgoe.errors import ConfigError
from mgoe.evaluation import Row, read_rows
from mgoe.experiments.cell import DONE, Cell, Inputs, run_cell, told, training_of
from mgoe.experiments.model_resolution import check_bundled, model_rows, named_models
from mgoe.experiments.runs import begin
from mgoe.experiments.stages import Say, build
from mgoe.training import joined


def train(
    settings: RunSettings | Path | str,
    out: Path | str,
    model: str | None = None,
    seed: int | None = None,
    *,
    overwrite: bool = False,
    resume: bool = True,
    say: Say = lambda line: None,
    show_progress: bool = True,
) -> list[Row]:
    """Train one model of a run with one seed, and write its bundle.

    Under `torchrun` all processes train together: the first prepares, measures and writes, the others return no rows.

    Args:
        settings: Of the run, or the YAML file that holds them.
        out: Folder of the results.
        model: Name of one of the run's models; the first by default.
        seed: The first of the settings' by default.
        overwrite: Replace a finished run, or one of other settings.
        resume: Go on from the checkpoint of a fit that was cut off, and leave a finished one as it is.
        say: Called with a line a stage.
        show_progress: Progress bars, where standard error is a terminal.

    Returns:
        What it measured on validation and test.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    settings, out = settings if isinstance(settings, RunSettings) else load_settings(settings), Path(out)
    chosen = _choose(named_models(settings), model)
    check_bundled(chosen)
    if seed is not None and not 0 <= seed < SEEDS:
        raise ConfigError(
            "seed",
            f"must lie between 0 and {SEEDS - 1}, found {seed}; leave it out for the first of the settings'",
        )
    with joined(settings.training.device) as processes:
        processes.check_batch(training_of(settings.training, chosen).batch_size)
        if not processes.leads:
            if not processes.agree(False):  # the first process has prepared everything
                cell = _cell(settings, out, Prepared.open(out / "data"), model, seed)
                run_cell(cell, settings, Inputs(out, settings), show_progress=False, resume=resume)
            return []
        with begin(settings, out, overwrite, say) as prepared:
            graph = build(settings, out, prepared, say)
            cell = _cell(settings, out, prepared, model, seed)
            if not resume:
                shutil.rmtree(cell.folder, ignore_errors=True)
            if not processes.agree(cell.done):
                say(f"training {cell.title}" + (f" on {processes.size} processes" if processes.size > 1 else ""))
                say(told(run_cell(cell, settings, Inputs(out, settings), show_progress, resume)))
            rows = read_rows(cell.folder / DONE)
            kept = {
                "settings": settings,
                "model": cell.model,
                "cell": cell.folder,
                "prepared": prepared,
                "graph": graph,
            }
            write_bundle(out / "bundle", **kept, metrics=rows)
            return rows


def _cell(settings: RunSettings, out: Path, prepared: Prepared, model: str | None, seed: int | None) -> Cell:
    return Cell(
        out, _choose(model_rows(settings, prepared), model), settings.seeds[0] if seed is None else seed
    )


def _choose(models: list[ModelSettings], name: str | None) -> ModelSettings:
    names = [model.name for model in models]
    if name is not None and name not in names:
        raise ConfigError(
            "--model", f"{name!r} is none of the configuration's models{did_you_mean(name, names)}"
        )
    return models[0] if name is None else models[names.index(name)]
