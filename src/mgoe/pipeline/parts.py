"""One model of a run. It leaves a folder that `run` goes on with."""

from __future__ import annotations

from pathlib import Path

from mgoe.bundle import write_bundle
from mgoe.config import ModelSettings, RunSettings, did_you_mean
from mgoe.errors import ConfigError
from mgoe.evaluation import Row, read_rows
from mgoe.pipeline.cells import Cell
from mgoe.pipeline.rows import model_rows
from mgoe.pipeline.run import Say, begin, build, train_cells


def train(
    settings: RunSettings | Path | str,
    out: Path | str,
    model: str | None = None,
    seed: int | None = None,
    *,
    overwrite: bool = False,
    say: Say = lambda line: None,
    show_progress: bool = True,
) -> list[Row]:
    """Train one model of a run with one seed, and write its bundle.

    Args:
        settings: Of the run, or the YAML file that holds them.
        out: Folder of the results.
        model: Name of one of the run's models; the first by default.
        seed: The first of the settings' by default.
        overwrite: Replace a finished run, or one of other settings.
        say: Called with a line a stage.
        show_progress: Progress bars, where standard error is a terminal.

    Returns:
        What it measured on validation and test.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    with begin(settings, out, overwrite, say) as (settings, out, prepared):
        graph = build(settings, out, prepared, say)
        chosen = _choose(model_rows(settings, prepared), model)
        cell = Cell(out, chosen, settings.seeds[0] if seed is None else seed)
        train_cells(settings.model_copy(update={"seeds": [cell.seed]}), out, [chosen], say, show_progress)
        rows = read_rows(cell.folder / "metrics.json")
        write_bundle(out / "bundle", settings=settings, model=chosen, cell=cell.folder, prepared=prepared, graph=graph, metrics=rows)
        return rows


def _choose(models: list[ModelSettings], name: str | None) -> ModelSettings:
    names = [model.name for model in models]
    if name is not None and name not in names:
        raise ConfigError("--model", f"{name!r} is none of the configuration's models{did_you_mean(name, names)}")
    return models[0] if name is None else models[names.index(name)]
