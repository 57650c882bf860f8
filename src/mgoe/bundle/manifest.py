"""The manifest of a bundle: its files with their checksums, and where it comes from.

The lineage names its parent, how it was trained, and the log that its graph holds.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field

from mgoe import __version__
from mgoe._util.files import read_of_format, sha256, write_json
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.sampling import Sampling
from mgoe.config import (
    ModelSettings,
    RunSettings,
    Settings,
    check_asked,
    check_settings,
    load_settings,
    quotas_of,
)
from mgoe.errors import BundleError, ConfigError
from mgoe.features import GROUPS
from mgoe.graph import MacroGraph
from mgoe.models import PRESETS
from mgoe.retrieval import GENERATORS

FORMAT = 4
"""Format of the folder; earlier ones were never released."""
MANIFEST = "bundle.json"
RETRIEVAL = "retrieval"
"""Folder of what candidates are retrieved from; a bundle without it ranks the whole catalogue."""
Trained = Literal["full", "retrained", "refreshed", "erased"]
"""From new weights; from the weights of the parent; or not at all, with the weights of the parent: with new
rows in the graph, or without some users."""
State = Literal["chosen", "tested", "served"]
"""What weights have learned: training rows; validation rows too; test rows too, see the page on training."""


class Lineage(Settings):
    """Where a bundle comes from. Followed from parent to parent, it ends at a full training.

    Example:
        >>> bundle.manifest.lineage.trained
        'full'
    """

    parent: str | None
    """`Bundle.name` of the bundle that it was made from; None after a full training."""
    trained: Trained
    """How its weights came about."""
    log: tuple[str, str]
    """Times of the first and of the last event of its graph."""
    version: str
    """The mgoe that made it."""

    @classmethod
    def of(cls, graph: MacroGraph, trained: Trained, parent: str | None = None) -> Self:
        """Return that of a bundle that is made now from a graph."""
        log = iso_time(graph.manifest.first), iso_time(graph.manifest.last)
        return cls(parent=parent, trained=trained, log=log, version=__version__)


class ManifestTask(Settings):
    """A task of a bundle."""

    name: str
    kind: Literal["binary", "regression"]


class BundleManifest(Settings):
    """`bundle.json`. Keys of others are kept.

    Example:
        >>> [task.name for task in bundle.manifest.tasks]
        ['click', 'buy']
    """

    model_config = ConfigDict(extra="allow")

    format: int
    """Format of the folder."""
    versions: dict[str, str]
    """Versions of mgoe, Python and the libraries that wrote the weights."""
    model: ModelSettings
    """The model with every switch; `Bundle.model_settings` checks what it would import."""
    weights: State = "chosen"
    """What the weights have learned."""
    tasks: tuple[ManifestTask, ...]
    """In the order of predictions."""
    sampling: Sampling | None = None
    """How negatives were drawn; None if none were."""
    calibration: Calibration = Calibration()
    """Maps of the binary tasks."""
    lineage: Lineage
    """Where it comes from."""
    trained_until: str
    """Time of the newest event that the weights learned from."""
    fully_trained_until: str
    """The same of the last full training."""
    log: dict[str, Any] = Field(default={})
    """Counts of the log of the last full training."""
    erased: int = 0
    """Erasures of the list of erased users that were applied to it, or to one before it."""
    test: list[dict[str, Any]] = Field(default=[])
    """Test metrics of the last full training with their intervals."""
    cost: dict[str, Any] = Field(default={})
    """What the last full training took."""
    checksums: dict[str, str] = Field(default={})
    """SHA-256 of every other file."""
    deployment: str | None = None
    """The deployment that it was made in."""
    due: list[str] = Field(default=[])
    """Why a full training is due."""

    def save(self, folder: Path) -> None:
        """Write it into the folder of its bundle: what was read or set, and nothing else."""
        values = self.model_dump(mode="json")
        write_json(folder / MANIFEST, {key: values[key] for key in values if key in self.model_fields_set})


def read_manifest(path: Path, verify: bool) -> BundleManifest:
    """Return the manifest of a bundle whose files are all there.

    Args:
        path: The bundle.
        verify: Check every file against its checksum.

    Raises:
        BundleError: The folder holds no bundle or one of another format, or a file is missing, changed or
            outside the folder.
    """
    missing = (
        f"holds no bundle ({MANIFEST} is missing); `mgoe run` writes one into its output folder, and "
        "`mgoe registry promote` makes one the current version of a registry"
    )
    fix = "use the version of mgoe that wrote it, or write the bundle again"
    found = read_of_format(path / MANIFEST, "bundle", FORMAT, BundleError, missing, fix)
    try:
        manifest = check_settings(BundleManifest, found, path / MANIFEST)
    except ConfigError as error:
        raise BundleError(path / MANIFEST, f"{error.message}; copy the bundle again") from None
    for name, checksum in manifest.checksums.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(
                path / MANIFEST,
                f"must name files within the bundle, found {name!r}; copy the bundle again",
            )
        if not (path / name).is_file():
            raise BundleError(path / name, "is missing from the bundle; copy the bundle again")
        if verify and sha256(path / name) != checksum:
            raise BundleError(path / name, "does not match its checksum; copy the bundle again")
    return manifest


def checked_model(path: Path, found: ModelSettings) -> ModelSettings:
    """Return the settings of a bundle's model, which may be made here.

    Raises:
        BundleError: They name a class or an input group that would be imported here, see `check_asked`.
    """
    check_asked("mgoe.models", PRESETS, [found.base.partition("+")[0]], path)
    check_asked("mgoe.inputs", GROUPS, found.inputs or (), path)
    return found


def read_settings(path: Path) -> RunSettings:
    """Return the settings of the run that wrote a bundle.

    Raises:
        BundleError: They name a generator that would be imported here, see `check_asked`.
    """
    found = load_settings(path / "settings.yaml")
    check_asked("mgoe.generators", GENERATORS, quotas_of(found.retrieval), path)
    return found


def now() -> str:
    """Return the present as text, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def iso_time(microseconds: int) -> str:
    """Return a moment since 1970 as text."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
