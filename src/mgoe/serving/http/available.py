"""Whether the extra `serve` is installed: said before anything is opened."""

from __future__ import annotations

from mgoe._util.extras import load

NEEDED = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")


def require_serving() -> None:
    """See that the libraries of the service are there.

    Raises:
        MissingExtra: One is not installed.
    """
    for name in NEEDED:
        load(name, "serve", name, "pip install 'mgoe[serve]'")
