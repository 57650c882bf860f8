"""Optional libraries: loaded when they are asked for, and named with the command that installs them where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from mgoe.errors import MissingExtra


def load(module: str, place: str, what: str, mend: str) -> Any:
    """Import a library of an extra.

    Args:
        module: Its name.
        place: The setting or part that asks for it.
        what: Subject of the message.
        mend: The command that installs it.

    Raises:
        MissingExtra: It, or a library that it is built on, is not there.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that it needs
        raise MissingExtra(place, f"{what} cannot be imported ({error}); install it with: {mend}") from None
