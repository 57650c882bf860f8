"""What became of the last round of a cycle, as a file of figures for Prometheus.

A cycle is no server that could be asked, so it leaves them where the collector `textfile` of node_exporter
reads them.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from mgoe._util.extras import load
from mgoe._util.files import output_errors
from mgoe.errors import BundleError, ConfigError
from mgoe.lifecycle.cycle import DONE, HELD, WAITING, CycleSettings, Report, run_cycle
from mgoe.lifecycle.registry import CURRENT, Registry

FAILED = -1
"""A round that ended in an error."""
LABELS = {
    "cycle_result": ["result"],
    "cycle_held": ["version"],
    "current_timestamp_seconds": ["version"],
}
RESULTS = {"done": DONE, "held": HELD, "waiting": WAITING, "failed": FAILED}


def run_measured(settings: CycleSettings, report: Report, file: Path) -> int:
    """Run a round as `run_cycle` does, and replace the file when it has ended, however it ended.

    Raises:
        ConfigError: The file has no folder.
        MissingExtra: The client of Prometheus is not installed.
        OutputError: The file cannot be written.
        MgoeError: As for `run_cycle`.
    """
    load("prometheus_client", "--metrics", "prometheus_client", "pip install 'mgoe[serve]'")
    if not file.parent.is_dir():
        raise ConfigError(
            "--metrics", f"must be a file in a folder that exists, found {str(file)!r}; make the folder"
        )
    found, code, began = dict[str, dict[str, Any]](), FAILED, time.time()

    def note(step: dict[str, Any]) -> None:
        found[step["step"]] = step
        report(step)

    try:
        code = run_cycle(settings, note)
    finally:
        with output_errors(file):
            _write(file, **_figures(code, found, time.time() - began, _promoted(settings)))
    return code


def _figures(
    code: int, steps: Mapping[str, Mapping[str, Any]], seconds: float, promoted: Mapping[str, float]
) -> dict[str, tuple[str, Mapping[str, float]]]:
    """Return the text of each gauge, and its values by label, "" for the only one."""
    held = (steps.get("hold") or steps.get("held") or {}).get("version", "")
    return {
        "cycle_end_timestamp_seconds": ("When the last round of the cycle ended.", {"": time.time()}),
        "cycle_seconds": ("How long it took.", {"": seconds}),
        "cycle_rows": ("New examples that it found.", {"": steps.get("collect", {}).get("rows", 0)}),
        "cycle_result": ("What came of it.", {name: code == RESULTS[name] for name in RESULTS}),
        "cycle_held": ("The candidate that it held, or found held.", {held: bool(held)}),
        "current_timestamp_seconds": ("When the current version was promoted.", promoted),
    }


def _write(file: Path, **figures: tuple[str, Mapping[str, float]]) -> None:
    import prometheus_client as client

    registry = client.CollectorRegistry()
    for name, (text, values) in figures.items():
        gauge = client.Gauge(f"mgoe_{name}", text, LABELS.get(name, ()), registry=registry)
        for label, value in values.items():
            (gauge.labels(label) if name in LABELS else gauge).set(value)
    client.write_to_textfile(str(file), registry)


def _promoted(settings: CycleSettings) -> dict[str, float]:
    """Return when the current version became that, by its name; nothing if there is none."""
    with suppress(BundleError):
        changes = Registry(settings.registry).changes
        if current := changes[-1].aliases.get(CURRENT):
            since = takewhile(lambda change: change.aliases.get(CURRENT) == current, reversed(changes))
            return {current: min(datetime.fromisoformat(change.time).timestamp() for change in since)}
    return {}
