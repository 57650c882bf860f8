"""How a service is set up: where it listens, who may ask, and how much."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from pydantic import Field, field_validator

from mgoe.config import Settings
from mgoe.errors import ConfigError
from mgoe.serving.events.stores import REDIS
from mgoe.serving.scoring.onnx import Precision, Runtime

TOKEN = "MGOE_TOKEN"
"""Environment variable with the token, where no file is named."""
SHORTEST = 16
"""Characters of a token."""


class Limits(Settings):
    """What one request, and all at once, may ask for."""

    body: int = Field(default=2 * 2**20, ge=1024)
    """Bytes of a body; above, 413."""
    candidates: int = Field(default=10_000, ge=1)
    """Of a request; above, 422. So for pairs to score."""
    events: int = Field(default=1_000, ge=1)
    """Of a batch; above, 422."""
    seconds: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Until a body must be there (408), and then until it must be answered (503)."""
    requests: int = Field(default=64, ge=1)
    """At once, a worker; above, 429."""


class ServeSettings(Settings):
    """Of one service."""

    bundle: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=256)
    state: Path | None = None
    """Folder of the event log, and of what workers share; BUNDLE.state by default."""
    redis: str | None = None
    """URL of a Redis that holds the event log for several servers, instead of a folder."""
    engine: Runtime = "onnx"
    """What runs the model."""
    precision: Precision = "float32"
    """See `Scorer`."""
    token_file: Path | None = None
    public: bool = False
    """Listen beyond loopback without a token."""
    access_log: bool = True
    """A line a request."""
    limits: Limits = Limits()

    @field_validator("redis")
    @classmethod
    def _has_a_scheme(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(REDIS):
            raise ValueError(
                f"must begin with {', '.join(REDIS[:-1])} or {REDIS[-1]}, found {url!r}; write it as in redis://host:6379/0"
            )
        return url


def read_tokens(settings: ServeSettings) -> tuple[bytes, ...]:
    """Tokens that open the service, one a line of the file; none: everybody may ask.

    Raises:
        ConfigError: The file cannot be read or holds none, a token is short, or the service would be open to the network.
    """
    if settings.token_file is not None:
        try:
            lines = settings.token_file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                settings.token_file,
                f"the token file cannot be read ({error}); name a text file, a token a line",
            ) from None
        if not lines:
            raise ConfigError(
                settings.token_file, "must hold a token a line, found none; `openssl rand -hex 32` makes one"
            )
    else:
        lines = os.environ.get(TOKEN, "").split()
    if short := [line for line in lines if len(line) < SHORTEST]:
        rule = f"a token has at least {SHORTEST} characters, found one of {len(short[0])}; `openssl rand -hex 32` makes one"
        raise ConfigError(settings.token_file or TOKEN, rule)
    if not lines and not settings.public and not is_loopback(settings.host):
        mend = f"name a --token-file (or set {TOKEN}), or say --public to let everybody ask"
        raise ConfigError(
            "--host",
            f"{settings.host} can be reached from other machines, so a token is needed, found none; {mend}",
        )
    return tuple(line.encode() for line in lines)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
