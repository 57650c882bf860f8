"""Metrics of several workers, some of which died."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

for _name in ("orjson", "prometheus_client"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]'")

WORKERS = """
import os
from mgoe.serving.http.telemetry import Telemetry
from types import SimpleNamespace
click = SimpleNamespace(
    before=SimpleNamespace(predicted_over_observed=3.0, calibration_error=0.25),
    after=SimpleNamespace(predicted_over_observed=1.5, calibration_error=None),
)
calibration = SimpleNamespace(tasks={"click": click})
taken, ages = {"exposures taken": 3}, {"graph age seconds": 60, "graph drift": 0.25}
dead = os.fork() == 0  # a worker that dies, and one that is asked afterwards
if not dead:
    os.wait()
telemetry = Telemetry(dict, lambda: calibration, lambda: taken | ages)
telemetry.expect(["/v1/rank"])
telemetry.in_flight.inc(7 if dead else 2)
telemetry.scored.inc(7 if dead else 2)
if dead:
    os._exit(1)
print(telemetry.page().decode())
"""


def test_requests_in_flight_of_a_dead_worker_are_not_counted(tmp_path: Path):
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", WORKERS], env=environment, capture_output=True, text=True, timeout=120
    )
    page = told.stdout.splitlines()
    assert "mgoe_in_flight 2.0" in page
    assert {
        'mgoe_bundle_swaps_total{outcome="refused"} 0.0',
        'mgoe_shadow_requests_total{outcome="failed"} 0.0',
        'mgoe_write_failures_total{store="events"} 0.0',
        'mgoe_requests_total{route="/v1/rank",status="503"} 0.0',
        'mgoe_request_seconds_count{route="/v1/rank"} 0.0',
        "mgoe_token_file_failures_total 0.0",
    } <= {*page}
    assert "mgoe_scored_total 9.0" in page
    assert "mgoe_exposures_taken 3.0" in page  # of all workers together, whoever answers
    assert {"mgoe_graph_age_seconds 60.0", "mgoe_graph_drift 0.25"} <= {*page}
    assert [line for line in page if line.startswith(("mgoe_predicted", "mgoe_calibration"))] == [
        'mgoe_predicted_over_observed{calibration="before",task="click"} 3.0',
        'mgoe_predicted_over_observed{calibration="after",task="click"} 1.5',
        'mgoe_calibration_error{calibration="before",task="click"} 0.25',
        'mgoe_calibration_error{calibration="after",task="click"} NaN',
    ]
