"""What a service follows: the alias of a registry, or any path."""

from pathlib import Path

from mgoe.errors import ConfigError
from mgoe.lifecycle.registry import Registry
from mgoe.lifecycle.versions import ALIASES


def served_path(bundle: Path, waits: bool = False) -> Path:
    """Return the link that a service follows, of `registry:FOLDER@ALIAS`; any other path as it is.

    Args:
        bundle: The path.
        waits: Whether the alias may name no version yet.

    Raises:
        BundleError: The folder holds no registry, or the registry has no such version.
        ConfigError: No alias is named.

    Example:
        >>> served_path(Path("bundles/today"))
        PosixPath('bundles/today')
    """
    kind, colon, rest = str(bundle).partition(":")
    if kind != "registry" or not colon:
        return bundle
    folder, _, alias = rest.rpartition("@")
    if not folder or alias not in ALIASES:
        raise ConfigError(
            "bundle",
            f"must be registry:FOLDER@ALIAS with an alias of {', '.join(ALIASES)}, found {str(bundle)!r}; "
            "write it as in registry:bundles@current",
        )
    registry = Registry(folder)
    if alias not in registry.aliases and not waits:
        registry.find(alias)
    return Path(folder, alias)
