"""What a service says of itself: a line of JSON an event on standard error, and figures for Prometheus."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Folder in which workers add up their figures; prometheus_client reads it when it is imported."""
BUCKETS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0)
LOGGER = "mgoe.serving"


class Json(logging.Formatter):
    """A record as one line of JSON: time, level, event, and the fields given with it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = "".join(traceback.format_exception(*record.exc_info))
        return orjson.dumps(line, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def log(event: str, level: int = logging.INFO, trace: BaseException | None = None, **fields: Any) -> None:
    """Write one line."""
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields}, exc_info=trace)


def configure_logs() -> None:
    """Everything of this process that logs, as JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json())
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.INFO
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"


class Figures:
    """Counters of one worker; `page` adds those of all workers up.

    Args:
        stats: Of the live state, read when the page is.
    """

    def __init__(self, stats: Callable[[], Mapping[str, float]]):
        self.registry = CollectorRegistry()
        self._labelled: dict[tuple[str, int], tuple[Any, Any]] = {}

        def named(kind: type, name: str, text: str, labels: Iterable[str] = (), **options: Any) -> Any:
            return kind(f"mgoe_{name}", text, tuple(labels), registry=self.registry, **options)

        self.requests = named(Counter, "requests", "Requests answered.", ("route", "status"))
        self.seconds = named(
            Histogram,
            "request_seconds",
            "From the first byte of a request to its answer.",
            ("route",),
            buckets=BUCKETS,
        )
        self.in_flight = named(
            Gauge,
            "in_flight",
            "Requests under way, of those whose number is limited.",
            multiprocess_mode="livesum",
        )
        self.scored = named(Counter, "scored", "Pairs scored.")
        self.unseen = named(Counter, "unseen", "Ids never seen, by kind.", ("kind",))
        self.events = named(Counter, "events", "Events, by outcome.", ("outcome",))
        self.swaps = named(Counter, "bundle_swaps", "Refreshed bundles, by outcome.", ("outcome",))
        self.registry.register(_Live(stats))

    def answered(self, route: str, status: int, started: float) -> None:
        """Count a request."""
        held = self._labelled.get((route, status))
        if held is None:
            held = self._labelled[route, status] = (
                self.requests.labels(route, str(status)),
                self.seconds.labels(route),
            )
        held[0].inc()
        held[1].observe(time.perf_counter() - started)

    def page(self) -> bytes:
        """In Prometheus's text format."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        _forget_the_dead(Path(os.environ[SHARED]))
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)


def _forget_the_dead(shared: Path) -> None:
    """Drop the gauges of workers that are gone: what one had under way when it died is no longer."""
    for file in shared.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _lives(int(pid)):
            file.unlink(missing_ok=True)  # another worker may be at it too


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # with the latter its number is somebody else's by now
        return False
    return True


class _Live:
    """What the live state of this worker holds."""

    def __init__(self, stats: Callable[[], Mapping[str, float]]):
        self._stats = stats

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, value in self._stats().items():
            yield GaugeMetricFamily(
                f"mgoe_live_{name.replace(' ', '_')}", f"Of the live state: {name}.", value=value
            )
