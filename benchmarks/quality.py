"""How good models are on small logs, with the settings of `benchmarks/quality.yaml`: means over runs on test.

    python benchmarks/quality.py events [--runs 3]
    python benchmarks/quality.py tmall --data FOLDER

A run has a seed of its own, which changes initialisation, order, negatives and macro nodes. `tmall` and
`kuairand` need the folder with the samples of the public logs (docs/datasets.md).

One line per figure, `{name, value, unit, against, ratio}`:

- `quality.LOG.TASK.examples`, `.positives`: what the metrics are of, the same in all runs;
- `quality.LOG.MODEL.parameters`: likewise;
- `quality.LOG.MODEL.TASK.METRIC`: METRIC is `auc`, `gauc` or `logloss`.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import child, line, use_cores
from mgoe.experiments import records

SETTINGS = "benchmarks/quality.yaml"
LOGS = ("events", "exposures", "tmall", "kuairand")
METRICS = {"auc": "share", "gauc": "share", "logloss": "nats"}
COUNTS = ("examples", "positives")


def train(log: str, data: Path | None, runs: int, work: Path) -> list[records.Line]:
    """Train every model with every seed on a log, and return the lines of its cells."""
    overrides: list[str] = []
    if log == "tmall":
        overrides = [f"log={_given(data, log) / 'tmall.parquet'}"]
    elif log == "kuairand":
        made = work / "log"
        child("examples/kuairand.py", _given(data, log) / "kuairand", made)
        overrides = [
            f"log={made / 'log'}",
            *(f"{one}.path={made / one}.parquet" for one in ("users", "items")),
        ]
    sets = [word for one in overrides for word in ("--set", f"logs.{log}.data.{one}")]
    sets += ["--set", f"seeds={[*range(runs)]}"]
    child("-m", "mgoe", "compare", SETTINGS, "--out", work / "out", "--logs", log, *sets)
    return [one for one in records.read(work / "out" / records.RESULTS) if one["state"] == "finished"]


def _given(data: Path | None, log: str) -> Path:
    if data is None:
        sys.exit(f"{log} needs --data, the folder with its sample")
    return data.resolve()


def show(lines: Sequence[records.Line]) -> None:
    """Print the figures of the cells of a log."""
    log = lines[0]["log"]
    tasks = [key.split(".")[1] for key in lines[0] if key.startswith("test.") and key.endswith(".positives")]
    for task in tasks:
        for count in COUNTS:
            [value] = {one[f"test.{task}.{count}"] for one in lines}
            line(f"quality.{log}.{task}.{count}", value, "rows")
    for model in dict.fromkeys(one["model"] for one in lines):
        cells = [one for one in lines if one["model"] == model]
        line(f"quality.{log}.{model}.parameters", mean(one["parameters"] for one in cells), "numbers")
        for task in tasks:
            for metric, unit in METRICS.items():
                value = mean(one[f"test.{task}.{metric}"] for one in cells)
                line(f"quality.{log}.{model}.{task}.{metric}", value, unit)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", choices=LOGS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder with tmall.parquet and kuairand/")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        show(train(asked.log, asked.data, asked.runs, Path(work)))


if __name__ == "__main__":
    use_cores()
    main()
