"""Whether the extra `serve` is installed: said before anything is opened."""

from __future__ import annotations

import importlib

from mgoe.errors import MissingExtra

NEEDED = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")


def require_serving() -> None:
    """See that the libraries of the service are there.

    Raises:
        MissingExtra: One is not installed.
    """
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtra("serve", f"{name} cannot be imported ({error}); install it with: pip install 'mgoe[serve]'") from None
