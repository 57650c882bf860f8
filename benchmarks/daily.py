"""What the days after a training cost: a run that finds everything finished, and updates of its bundle.

    python benchmarks/daily.py examples/tmall.yaml LOG.parquet --work FOLDER

The first four fifths of the log in time are trained on for one epoch, what follows is new. What is
trained stays in `--work`, so the same command measures alone. All figures are processor time of a process of
its own, Python's start included.

- `daily.finished.cpu_s`: `mgoe.run(..., reuse=True)` on the finished folder;
- `daily.update.cpu_s`: `mgoe update`, whose weights stay;
- `daily.continue.cpu_s`: `mgoe update --weights continue`.
"""

import argparse
import sys
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import child, line
from mgoe.config import load_settings

UPDATES = {
    "update": ["update"],
    "continue": ["update", "--weights", "continue"],
}
"""Arguments of `mgoe` for each update."""

RUN = """
import sys
from mgoe import run
from mgoe.config import load_settings

config, log, folder = sys.argv[1:]
changes = [f"data.log={log}", "models=[mgoe]", "training.epochs=1", "evaluation.ranking_queries=0"]
run(load_settings(config, changes), folder, reuse=True)
"""


def split_log(log: Path, time: str, folder: Path) -> tuple[Path, Path]:
    """Write the first four fifths of a log in time, and what follows; rows of one moment stay together."""
    parts = folder / "before.parquet", folder / "new.parquet"
    if not parts[1].exists():
        column = f'"{time}"'
        with duckdb.connect() as database:
            database.execute(f"SET VARIABLE cut = (SELECT quantile_disc({column}, 0.8) FROM '{log}')")
            for part, side in zip(parts, ("<=", ">"), strict=True):
                rows = f"FROM '{log}' WHERE {column} {side} getvariable('cut') ORDER BY ALL"
                database.execute(f"COPY ({rows}) TO '{part}' (FORMAT parquet)")
    return parts


def main() -> None:
    """Train where that was not done yet, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the run, used again if it exists")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    time = load_settings(asked.config, [f"data.log={asked.log}"]).data.time
    before, new = split_log(asked.log, time, asked.work)
    folder = asked.work / "run"
    child("-c", RUN, asked.config, before, folder)
    line("daily.finished.cpu_s", child("-c", RUN, asked.config, before, folder).cpu_seconds, "s")
    for name, words in UPDATES.items():
        where = ["--log", new, "--out", asked.work / name, "--overwrite"]
        spent = child("-m", "mgoe", words[0], folder / "bundle", *where, *words[1:])
        line(f"daily.{name}.cpu_s", spent.cpu_seconds, "s")


if __name__ == "__main__":
    main()
