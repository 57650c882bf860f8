"""Weights that learn the newest rows: what a refit brings, and what it costs.

    python benchmarks/refit.py CONFIG [--set KEY=VALUE ...] [--models mgoe,...] [--seeds 0,1]
        [--ways none,anew,...] [--against FOLDER] [--as PREFIX] [--work FOLDER]

Every model is trained once per seed as `training.refit: none` does. Every other way starts from what that
left, so all ways share the epoch that validation chose, and test is predicted by the *tested* weights of
each. The ways are `none`, `anew`, `continue`, and `new-rows`, which continues without replaying older rows.
All seeds read the same rows. With `--work` it is computed in that folder, stays there, and the same command
with more models, seeds or ways resumes it; give a new folder when the configuration or the code has changed.

One line per figure, `{name, value, unit, against, ratio}`, on test, as means over seeds. `against` is `none`
in the same folder, or in the folder that `--against` names, whose test rows must be the same; ratio, way over
none:

- `MODEL.WAY.mean`: mean of AUC and GAUC over tasks; `MODEL.WAY.TASK.FIGURE`: `auc`, `gauc` and `logloss` of a
  task, and `calibration_error_after` and `predicted_over_observed_after` with the calibration that the chosen
  weights gave on validation.
- `MODEL.WAY.mean.lead`, `.lead.low` and `.lead.high`: by how much the way is ahead of none, and its 95 %
  interval over users and seeds; likewise for `auc`, `gauc` and `logloss` of each task.
- `MODEL.WAY.cpu_seconds`: processor seconds of the training, the refit included.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line, use_cores
from mgoe._util.files import read_json, write_json
from mgoe.config import RunSettings, load_settings
from mgoe.evaluation import ALL, Influence, find_leads, read_rows
from mgoe.evaluation.rows import MEAN
from mgoe.models import resolve
from mgoe.pipeline.cell import EXAMPLE_SHARES, fit_model
from mgoe.pipeline.cell_results import write_cell
from mgoe.pipeline.folder import DONE, FIT, INFLUENCE
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.refit import refit
from mgoe.pipeline.stages import prepare_data
from mgoe.training import CHECKPOINTS, Feed, predict

NONE = "none"
WAYS: dict[str, tuple[str, ...]] = {
    NONE: ("training.refit=none",),
    "anew": ("training.refit=anew",),
    "continue": ("training.refit=continue",),
    "new-rows": ("training.refit=continue", "retrain.replay=0"),
}
"""What each way sets."""
CELLS = "cells"
CALIBRATED = ("calibration_error_after", "predicted_over_observed_after")


def train(name: str, seed: int, ways: dict[str, RunSettings], inputs: Inputs, folder: Path) -> None:
    """Train a model once, then in each way that is not finished, and write its cells."""
    if all((folder / way / DONE).exists() for way in ways):
        return
    model, settings = inputs.resolve_ids(resolve(name)), ways[NONE]
    chosen, feeds, fitted = fit_model(model, seed, settings, inputs, folder / "chosen")
    valid = predict(chosen, feeds["valid"])
    for way, changed in ways.items():
        if (folder / way / DONE).exists():
            continue
        shutil.rmtree(folder / way, ignore_errors=True)
        shutil.copytree(folder / "chosen", folder / way, ignore=shutil.ignore_patterns(CHECKPOINTS))
        tested, spent = chosen, fitted.cpu_seconds
        if way != NONE:
            memory = settings.memory * EXAMPLE_SHARES["train"]
            given = changed, inputs, folder / way, fitted.best_epoch, memory
            tested, refitted = refit("tested", model, seed, *given)
            spent += refitted.cpu_seconds
        test = Feed(inputs.prepared, inputs.graph, feeds["test"].examples, tested.needs, tested.spec)
        facts = {"model": name, "seed": seed, "cpu_seconds": spent, "best_epoch": fitted.best_epoch}
        scores = {"valid": valid, "test": predict(tested, test)}
        write_cell(folder / way, changed, inputs, model, tested, feeds | {"test": test}, scores, facts)


def show(name: str, way: str, prefix: str, ours: dict[int, Path], theirs: dict[int, Path]) -> None:
    """Print the figures of a way, and by how much it is ahead."""
    values, base = figures(ours), figures(theirs)
    for figure, value in values.items():
        unit = "s" if figure == "cpu_seconds" else "1"
        line(f"{prefix}{name}.{way}.{figure}", value, unit, base[figure], value / base[figure])
    both = sorted(ours.keys() & theirs)
    if all(ours[seed] == theirs[seed] for seed in both):
        return
    influences, of_none = (
        {seed: Influence.load(cells[seed] / INFLUENCE) for seed in both} for cells in (ours, theirs)
    )
    for lead in find_leads(way, influences, {NONE: of_none}):
        if (figure := figure_of(lead.task, lead.metric)) in values:
            of = f"{prefix}{name}.{way}.{figure}.lead"
            for end, value in (("", lead.value), (".low", lead.low), (".high", lead.high)):
                line(f"{of}{end}", value, "1")


def figures(cells: dict[int, Path]) -> dict[str, float]:
    """Return the figures of cells on test as means over seeds."""
    values: dict[str, list[float]] = {}
    for cell in cells.values():
        for row in read_rows(cell / DONE):
            wanted = row["metric"] in ("auc", "gauc", "logloss", *CALIBRATED) and row["task"] != ALL
            if (
                row["split"] == "test"
                and row["slice"] == ALL
                and (wanted or (row["task"], row["metric"]) == MEAN)
            ):
                values.setdefault(figure_of(row["task"], row["metric"]), []).append(row["value"])
        values.setdefault("cpu_seconds", []).append(read_json(cell / FIT)["cpu_seconds"])
    return {figure: fmean(found) for figure, found in values.items()}


def figure_of(task: str, metric: str) -> str:
    """Return the name of a metric."""
    return "mean" if (task, metric) == MEAN else f"{task}.{metric}"


def cells_of(work: Path, name: str, way: str, seeds: Sequence[int]) -> dict[int, Path]:
    """Return the folder of the finished cells of a model by seed."""
    folders = {seed: work / CELLS / name / str(seed) / way for seed in seeds}
    return {seed: folder for seed, folder in folders.items() if (folder / DONE).exists()}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what a command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--models", type=lambda text: text.split(","), default=["mgoe"])
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--ways", type=lambda text: text.split(","), default=[*WAYS])
    parser.add_argument("--against", type=Path)
    parser.add_argument("--as", dest="prefix", default="")
    parser.add_argument("--work", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print."""
    given = parse(arguments)
    changes = [*given.set, "evaluation.slices=false", "evaluation.ranking_queries=0"]
    ways = {
        way: load_settings(given.config, [*changes, *WAYS[way]]) for way in dict.fromkeys([NONE, *given.ways])
    }
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as folder:
        work, settings = Path(folder), ways[NONE]
        stored = settings.model_dump(mode="json", exclude={"models", "seeds"})
        work.mkdir(parents=True, exist_ok=True)
        if (work / "settings.json").exists() and read_json(work / "settings.json") != stored:
            sys.exit(f"{work}: holds results of other settings; give another folder")
        write_json(work / "settings.json", stored)
        prepare_data(settings, work)
        inputs = Inputs.open(work, settings)
        for seed in given.seeds:  # seed by seed, so that an interrupted call is a fair one of fewer seeds
            for name in given.models:
                train(name, seed, ways, inputs, work / CELLS / name / str(seed))
        for name in given.models:
            theirs = cells_of(given.against or work, name, NONE, given.seeds)
            for way in ways if given.against or NONE in given.ways else given.ways:
                ours = cells_of(work, name, way, given.seeds)
                show(name, way, f"{given.prefix}.".removeprefix("."), ours, theirs)


if __name__ == "__main__":
    use_cores()
    main()
