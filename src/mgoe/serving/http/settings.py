"""How a service is set up: where it listens, who may ask, and how much."""

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator

from mgoe._util.extras import install, load
from mgoe.config import CLOCK_SKEW, Settings, seconds
from mgoe.config.base import PositiveLength
from mgoe.serving.scoring.runtime import Runtime

NEEDED = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")
"""Libraries of the extra `serve`."""


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
    """Requests at once per worker and token; more get 429."""


class ServeSettings(Settings):
    """The settings of one service."""

    bundle: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=256)
    state: Path | None = None
    """Folder of the logs, or of a replica of those on Redis, and of what workers share; BUNDLE.state by
    default."""
    redis: str | None = None
    """Address of a Redis that holds the logs of several servers, see `RedisServer`."""
    redis_password_file: Path | None = None
    """File with its password."""
    window: PositiveLength | None = None
    """How long exposures and labels wait for each other, and duplicates of exposures are recognised at
    least: of a new log, by default a day; a log keeps its window."""
    adopt: bool = False
    """Let the store become that of the bundle's deployment, though it is another's."""
    runtime: Runtime = Runtime()
    """What runs the model."""
    shadow: Path | None = None
    """A second bundle, or a link to one, that scores a share of the requests after they are answered."""
    shadow_share: float = Field(default=0.05, gt=0, le=1)
    """Share of the requests that the shadow scores."""
    experiment: tuple[Path, ...] = ()
    """Files of experiments, whose arms answer beside the bundle."""
    token_file: Path | None = None
    public: bool = False
    """Listen beyond loopback without a token."""
    access_log: bool = True
    """Log one line per request."""
    limits: Limits = Limits()

    @property
    def url(self) -> str:
        """Where the service listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def wait(self) -> int | None:
        """The window in microseconds; None for that of the log."""
        return None if self.window is None else seconds(self.window) * 1_000_000

    @field_validator("window")
    @classmethod
    def _is_long_enough(cls, window: str | None) -> str | None:
        if window is not None and seconds(window) * 1_000_000 < CLOCK_SKEW:
            raise ValueError(
                f"must be at least {CLOCK_SKEW // 60_000_000}m, by which clocks of clients may be ahead, "
                f"found {window!r}"
            )
        return window


def require_serving() -> None:
    """Check that the libraries of the service are installed.

    Raises:
        MissingExtra: One is not installed.
    """
    for name in NEEDED:
        load(name, "serve", name, install("serve"))


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
