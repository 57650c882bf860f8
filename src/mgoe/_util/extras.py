"""Optional libraries, imported on demand; an error names the command that installs a missing one."""

import importlib
from typing import Any

from mgoe.errors import MissingExtra


def install(extra: str = "") -> str:
    """Return the command that installs an extra, or `mgoe` alone: in a clone, since nothing is released yet.

    A release changes it here, and on the pages, which a test compares.

    Example:
        >>> install("serve")
        "pip install -e '.[serve]'"
    """
    return f"pip install -e '.[{extra}]'" if extra else "pip install -e ."


def load(module: str, place: str, what: str, fix: str) -> Any:
    """Import a library of an extra.

    Args:
        module: Its name.
        place: The setting or part that needs it.
        what: Subject of the message.
        fix: The command that installs it.

    Raises:
        MissingExtra: The library, or one that it depends on, cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, AttributeError) as error:  # OSError: a shared library is missing
        raise MissingExtra(place, f"{what} cannot be imported ({error}); install it with: {fix}") from None
