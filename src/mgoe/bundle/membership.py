"""What a bundle belongs to: the registry that holds it as a version."""

from pathlib import Path

VERSIONS, LINK, CHANGE = "versions", ".aliases", "change.json"
"""Of a registry: the folder of versions, the link to the latest change, and the file that describes it."""


def registry_of(bundle: Path) -> Path | None:
    """Return the registry that holds a bundle as a version; None if none does.

    Args:
        bundle: Its folder, not a link to it, such as `Bundle.path`.

    Example:
        >>> registry_of(bundle.path) is None
        True
    """
    registry = bundle.parent.parent
    return registry if bundle.parent.name == VERSIONS and (registry / LINK).exists() else None
