"""What a service reports: one line of JSON per event on standard error, and metrics for Prometheus."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from mgoe.errors import MgoeError

if TYPE_CHECKING:
    from mgoe.bundle.calibration import Calibration

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which workers add up their metrics; prometheus_client reads it at
import."""
BUCKETS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0)
LOGGER = "mgoe.serving"
Stats = Callable[[], Mapping[str, float]]


class Json(logging.Formatter):
    """A record as one line of JSON: time, level, event, and the fields given with it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
            **({"trace": "".join(traceback.format_exception(*record.exc_info))} if record.exc_info else {}),
        }
        return orjson.dumps(line, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def log(event: str, level: int = logging.INFO, trace: BaseException | None = None, **fields: Any) -> None:
    """Log one line, with the trace of an error unless a user can fix it."""
    logging.getLogger(LOGGER).log(
        level,
        event,
        extra={"fields": fields},
        exc_info=None if isinstance(trace, MgoeError) else trace,
    )


def configure_logs() -> None:
    """Write all logs of this process as JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json())
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.INFO
    for name in ("mgoe", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"


class Agreements:
    """Collector of how the served bundle's probabilities agreed with the newest labels.

    Args:
        calibration: Returns its calibration, read when the page is.
    """

    def __init__(self, calibration: Callable[[], Calibration]):
        self._calibration = calibration

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield one gauge per measure, by task, before and after calibration; NaN where it does not exist."""
        found = self._calibration()
        for name, text in (
            ("predicted_over_observed", "Predicted over observed positives in the newest labelled window."),
            ("calibration_error", "Expected calibration error in the newest labelled window."),
        ):
            gauge = GaugeMetricFamily(f"mgoe_{name}", text, labels=("task", "calibration"))
            for task, one in found.tasks.items():
                for when, agreement in (("before", one.before), ("after", one.after)):
                    value = getattr(agreement, name)
                    gauge.add_metric((task, when), math.nan if value is None else value)
            yield gauge


class Telemetry:
    """The metrics of one worker; `page` adds up those of all workers.

    Args:
        live: Counts of the live state, read when the page is.
        calibration: Calibration of the served bundle, likewise.
        figures: What is the same in all workers, likewise.
    """

    def __init__(
        self,
        live: Stats,
        calibration: Callable[[], Calibration],
        figures: Stats = dict,
    ):
        self.registry = CollectorRegistry()
        self._of_all = Agreements(calibration), _Gauges("mgoe", figures)

        def counter(name: str, text: str, label: str = "", values: Iterable[str] = ()) -> Counter:
            found = Counter(f"mgoe_{name}", text, [label] if label else [], registry=self.registry)
            for value in values:  # a series that is not there at 0 has no increase at 1
                found.labels(value)
            return found

        self.requests = Counter(
            "mgoe_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.scored = counter("scored", "Pairs scored.")
        self.asked = counter("asked", "Ids that clients named, by kind.", "kind", ("user", "item"))
        self.unseen = counter("unseen", "Of these, ids never seen.", "kind", ("user", "item"))
        self.events = counter("events", "Events, by outcome.", "outcome", ("accepted", "erased", "refused"))
        self.swaps = counter(
            "bundle_swaps", "Refreshed bundles, by outcome.", "outcome", ("taken", "refused")
        )
        self.shadow = counter(
            "shadow_requests", "Requests of the share of the shadow, by outcome.", "outcome",
            ("logged", "dropped", "failed"),
        )  # fmt: skip
        self.experiment = counter(
            "experiment_answers", "Answers of an experiment's arms, by outcome.", "outcome",
            ("ok", "fallback", "error", "compare", "dropped", "failed"),
        )  # fmt: skip
        self.write_failures = counter(
            "write_failures",
            "Batches that could not be written, by store.",
            "store",
            ("events", "exposures", "answers"),
        )
        self.token_failures = counter("token_file_failures", "Looks at the tokens that kept the former ones.")
        self.seconds = Histogram(
            "mgoe_request_seconds", "From the first byte of a request to its answer.", ("route",),
            buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "mgoe_in_flight", "Requests in flight, of those whose number is limited.",
            multiprocess_mode="livesum", registry=self.registry,
        )  # fmt: skip
        self.score_psi, self.input_psi = (
            Gauge(
                f"mgoe_{name}_psi", f"Population stability index of {name}s.", (label,),
                multiprocess_mode="livemostrecent", registry=self.registry,
            )
            for name, label in (("score", "task"), ("input", "input"))
        )  # fmt: skip
        for collector in (_Gauges("mgoe_live", live), *self._of_all):
            self.registry.register(collector)

    def expect(self, routes: Iterable[str]) -> None:
        """Begin to count the requests of each route, with the statuses that an alert reads."""
        for route in (*routes, "other"):
            self.seconds.labels(route)
            for status in ("200", "500", "503"):
                self.requests.labels(route, status)

    def answered(self, route: str, status: int, started: float) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(time.perf_counter() - started)

    def page(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        for file in Path(os.environ[SHARED]).glob("gauge_live*_*.db"):
            worker = int(file.stem.rpartition("_")[2])
            if not psutil.pid_exists(worker):  # what it had in flight when it died is no longer
                with suppress(FileNotFoundError):  # another worker was faster
                    mark_process_dead(worker)
        total = CollectorRegistry()
        MultiProcessCollector(total)
        for collector in self._of_all:  # the same in every worker
            total.register(collector)
        return generate_latest(total)


class _Gauges:
    """Counts that are read when the page is, as a collector of a registry."""

    def __init__(self, prefix: str, stats: Stats):
        self._prefix, self._stats = prefix, stats

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield one gauge per count."""
        for name, value in self._stats().items():
            yield GaugeMetricFamily(
                f"{self._prefix}_{name.replace(' ', '_')}", f"{name.capitalize()}.", value=value
            )
