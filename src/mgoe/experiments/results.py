"""What a run or a bundle has measured so far."""

from __future__ import annotations

from pathlib import Path

from mgoe.bundle import MANIFEST, Bundle
from mgoe.config import load_settings
from mgoe.errors import OutputError
from mgoe.evaluation import Estimate, Row, read_rows
from mgoe.experiments.cell import Cell
from mgoe.experiments.folder import SETTINGS, STATE
from mgoe.experiments.summary import estimates
from mgoe.models import resolve


def measured(path: Path | str) -> list[Row]:
    """Rows of a run, of its finished cells while it is unfinished, or of a bundle.

    Raises:
        OutputError: The folder holds neither, or nothing is measured yet.
        BundleError: The bundle is damaged.
    """
    path = Path(path)
    if (path / MANIFEST).exists():
        return read_rows(Bundle.open(path).path / "metrics.json")
    if not (path / STATE).exists():
        raise OutputError(
            path, "holds neither a run nor a bundle; name the --out of `mgoe run`, or the `bundle` inside it"
        )
    if (path / "metrics.json").exists():
        return read_rows(path / "metrics.json")
    settings = load_settings(path / SETTINGS)
    folders = [
        Cell(path, resolve(model), 0).folder.parent for model in settings.models
    ]  # `mgoe train` takes any seed
    files = [
        file
        for folder in folders
        for file in sorted(folder.glob("*/metrics.json"), key=lambda file: int(file.parent.name))
    ]
    rows = [row for file in files for row in read_rows(file)]
    if not rows:
        raise OutputError(path, "holds a run that has measured nothing yet; give its command again to go on")
    return rows


def leads(path: Path | str) -> list[Estimate]:
    """How far a finished run's first model is ahead of each other on the mean over tasks, with intervals; none elsewhere."""
    path = Path(path)
    if not ((path / STATE).exists() and (path / "metrics.json").exists()):
        return []
    settings = load_settings(path / SETTINGS)
    found = estimates(settings, path, [resolve(model) for model in settings.models])
    return [one for one in found if one.baseline is not None and (one.task, one.metric) == ("all", "ranking")]
