"""The manifest of a bundle: its files with their checksums, and where it comes from.

The lineage names its parent, how it was trained, and the log that its graph holds.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from mgoe import __version__
from mgoe._util.files import read_of_format, sha256
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
KEYS = {"versions": dict, "model": dict, "tasks": list, "checksums": dict}
"""Required keys with their types."""
Trained = Literal["full", "retrained", "refreshed", "erased"]
"""From new weights; from the weights of the parent; or not at all, with the weights of the parent: with new
rows in the graph, or without some users."""
State = Literal["chosen", "tested", "served"]
"""What weights have learned: training rows; validation rows too; test rows too, see the page on training."""
Part = TypeVar("Part", bound=Settings)


def read_manifest(path: Path, verify: bool) -> dict[str, Any]:
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
    manifest = read_of_format(path / MANIFEST, "bundle", FORMAT, BundleError, missing, fix)
    if not all(isinstance(manifest.get(key), kind) for key, kind in KEYS.items()):
        raise BundleError(path / MANIFEST, f"must hold {', '.join(KEYS)}; copy the bundle again")
    for name, checksum in manifest["checksums"].items():
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


def read_part(manifest: Mapping[str, Any], key: str, kind: type[Part], place: Path) -> Part:
    """Return one key of a manifest as what it holds.

    Raises:
        BundleError: It breaks a rule.
    """
    try:
        return check_settings(kind, manifest.get(key, {}), place)
    except ConfigError as error:
        raise BundleError(place, f"{key}: {error.message}; copy the bundle again") from None


def read_model(path: Path, manifest: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a bundle's model.

    Raises:
        BundleError: They name a class or an input group that would be imported here, see `check_asked`.
    """
    found = check_settings(ModelSettings, manifest["model"], path / MANIFEST)
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


def lineage(graph: MacroGraph, trained: Trained, parent: str | None = None) -> dict[str, Any]:
    """Return the `lineage` of a manifest. Followed from parent to parent, it ends at a full training.

    Args:
        graph: The graph of the bundle.
        trained: How its weights came about.
        parent: `Bundle.name` of the bundle that it was made from; None after a full training.

    Example:
        >>> from mgoe.bundle import lineage
        >>> lineage(graph, "refreshed", parent="5f1d7a84e963")["parent"]
        '5f1d7a84e963'
    """
    return {
        "parent": parent,
        "trained": trained,
        "log": [iso_time(moment) for moment in (graph.manifest.first, graph.manifest.last)],
        "version": __version__,
    }


def state_of(manifest: Mapping[str, Any]) -> State:
    """Return what the weights of a bundle have learned; it is not noted where they are the chosen ones of an
    earlier version."""
    return manifest.get("weights", "chosen")


def now() -> str:
    """Return the present as text, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def iso_time(microseconds: int) -> str:
    """Return a moment since 1970 as text."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
