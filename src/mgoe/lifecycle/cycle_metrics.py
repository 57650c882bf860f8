"""What became of the last round of a cycle, as a file of figures for Prometheus.

A cycle is no server that could be asked, so it leaves them where the collector `textfile` of node_exporter
reads them.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mgoe._util.files import write_text
from mgoe.errors import BundleError, BusyError, ConfigError
from mgoe.lifecycle.cycle import DONE, HELD, WAITING, CycleSettings, Report, run_cycle
from mgoe.lifecycle.registry import CURRENT, Registry

FAILED = -1
"""A round that ended in an error."""
RESULTS = {"done": DONE, "held": HELD, "waiting": WAITING, "failed": FAILED}


def run_measured(settings: CycleSettings, report: Report, file: Path) -> int:
    """Run a round as `run_cycle` does, and replace the file when it has ended, however it ended.

    A round that did not begin, because another one runs, leaves the file to that one.

    Raises:
        ConfigError: The file has no folder.
        OutputError: The file cannot be written.
        MgoeError: As for `run_cycle`.
    """
    if not file.parent.is_dir():
        raise ConfigError(
            "--metrics", f"must be a file in a folder that exists, found {str(file)!r}; make the folder"
        )
    found, code, began, busy = dict[str, dict[str, Any]](), FAILED, time.time(), False

    def note(step: dict[str, Any]) -> None:
        found[step["step"]] = step
        report(step)

    try:
        code = run_cycle(settings, note)
    except BusyError:
        busy = True
        raise
    finally:
        if not busy:
            current = promoted(Registry(settings.registry))
            write_text(file, page_of(code, found, time.time() - began, current))
    return code


def page_of(
    code: int, steps: Mapping[str, Mapping[str, Any]], seconds: float, current: tuple[str, float]
) -> str:
    """Return the figures of a round in Prometheus's text format.

    Args:
        code: Its exit code, or `FAILED`.
        steps: Its steps by name.
        seconds: How long it took.
        current: The current version, and when it became that, in seconds since 1970.
    """
    held = (steps.get("hold") or steps.get("held") or {}).get("version", "")
    results = {f'{{result="{name}"}}': int(code == RESULTS[name]) for name in RESULTS}
    figures: dict[str, tuple[str, Mapping[str, float]]] = {
        "cycle_end_timestamp_seconds": ("When the last round of the cycle ended.", {"": time.time()}),
        "cycle_seconds": ("How long it took.", {"": seconds}),
        "cycle_rows": ("New examples that it found.", {"": steps.get("collect", {}).get("rows", 0)}),
        "cycle_result": ("What came of it.", results),
        "cycle_held": ("What it held, or found held.", {f'{{version="{held}"}}': int(bool(held))}),
        "current_timestamp_seconds": (
            "When the current version became that.",
            {f'{{version="{current[0]}"}}': current[1]},
        ),
    }
    return "".join(
        f"# HELP mgoe_{name} {text}\n# TYPE mgoe_{name} gauge\n"
        + "".join(f"mgoe_{name}{labels} {value}\n" for labels, value in values.items())
        for name, (text, values) in figures.items()
    )


def promoted(registry: Registry) -> tuple[str, float]:
    """Return the current version and when it became that, in seconds since 1970; now if there is none."""
    with suppress(BundleError):
        made = [change for change in registry.changes if change.aliases.get(CURRENT) == change.version]
        if made:
            return made[-1].version, datetime.fromisoformat(made[-1].time).timestamp()
    return "", time.time()
