"""How a service is set up: where it listens, who may ask, and how much."""

import ipaddress
import os
from pathlib import Path

from pydantic import Field, field_validator

from mgoe._util.extras import load
from mgoe.config import Settings
from mgoe.config.base import PositiveLength
from mgoe.errors import ConfigError
from mgoe.serving.events.sqlite_log import REDIS
from mgoe.serving.scoring.runtime import Runtime

NEEDED = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")
"""Libraries of the extra `serve`."""
TOKEN = "MGOE_TOKEN"
"""Environment variable with the tokens if no file is named."""
SHORTEST = 16
"""Characters of a token, at least."""


class Limits(Settings):
    """How much one request, and all at once, may ask for."""

    body: int = Field(default=2 * 2**20, ge=1024)
    """Bytes of a body; a larger one gets 413."""
    candidates: int = Field(default=10_000, ge=1)
    """Candidates to rank, or pairs to score; more get 422."""
    events: int = Field(default=1_000, ge=1)
    """Events of a batch; more get 422."""
    seconds: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds until a body must have arrived (408), and then until it must be answered (503)."""
    requests: int = Field(default=64, ge=1)
    """Requests at once per worker; more get 429."""


class ServeSettings(Settings):
    """The settings of one service."""

    bundle: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=256)
    state: Path | None = None
    """Folder of the event log, and of what workers share; BUNDLE.state by default."""
    redis: str | None = None
    """URL of a Redis that holds the event log for several servers, instead of a folder."""
    window: PositiveLength = "1d"
    """How long exposures and labels wait for each other, and duplicates of exposures are recognised at
    least."""
    runtime: Runtime = Runtime()
    """What runs the model."""
    shadow: Path | None = None
    """A second bundle, or a link to one, that scores a share of the requests after they are answered."""
    shadow_share: float = Field(default=0.05, gt=0, le=1)
    """Share of the requests that the shadow scores."""
    token_file: Path | None = None
    public: bool = False
    """Listen beyond loopback without a token."""
    access_log: bool = True
    """Log one line per request."""
    limits: Limits = Limits()

    @field_validator("redis")
    @classmethod
    def _has_a_scheme(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(REDIS):
            raise ValueError(
                f"must begin with {', '.join(REDIS[:-1])} or {REDIS[-1]}, found {url!r}; "
                "write it as in redis://host:6379/0"
            )
        return url


def require_serving() -> None:
    """Check that the libraries of the service are installed.

    Raises:
        MissingExtra: One is not installed.
    """
    for name in NEEDED:
        load(name, "serve", name, "pip install 'mgoe[serve]'")


def read_tokens(settings: ServeSettings) -> tuple[bytes, ...]:
    """Return the tokens that open the service; without any, everybody may ask.

    Raises:
        ConfigError: The token file cannot be read or is empty, a token is short, or the service would be open
            to the network.
    """
    if settings.token_file is None:
        lines = os.environ.get(TOKEN, "").split()
    else:
        try:
            lines = settings.token_file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                settings.token_file,
                f"the token file cannot be read ({error}); name a text file with one token per line",
            ) from None
        if not lines:
            raise ConfigError(
                settings.token_file,
                "must hold one token per line, found none; `openssl rand -hex 32` makes one",
            )
    if shortest := [len(line) for line in lines if len(line) < SHORTEST]:
        raise ConfigError(
            settings.token_file or TOKEN,
            f"a token has at least {SHORTEST} characters, found one of {shortest[0]}; "
            "`openssl rand -hex 32` makes one",
        )
    if not lines and not settings.public and not is_loopback(settings.host):
        raise ConfigError(
            "host",
            f"{settings.host} can be reached from other machines, so a token is needed, found none; "
            f"name a `token_file` (or set {TOKEN}), or set `public` to let everybody ask",
        )
    return tuple(line.encode() for line in lines)


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
