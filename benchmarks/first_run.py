"""What a first run takes, by size of log, and that `Ranker` gives the same result.

    python benchmarks/first_run.py runs/strangers --out runs/first-runs [--only NAME ...]

The logs are the samples that `strangers.py` drew, and the configurations those that `mgoe init` wrote for it.
Each log, smallest first, gets one `mgoe run` and one `Ranker().fit(log)`, in processes of their own. Kernels
are compiled before. What was measured is kept, so the same command resumes.

- `first_run.NAME.rows`: of the log.
- `first_run.NAME.seconds`, `.cpu_seconds`: of `mgoe run`; `against` `Ranker`, which trains one model.
- `first_run.NAME.memory`: peak of the process, in GiB; `against` that of `Ranker`.
- `first_run.NAME.disk`: of the run's folder, in MB; `against` the log's Parquet, and how many times that.
- `first_run.NAME.ranking`: mean of AUC and GAUC on test; `against` that of `Ranker`.
- `first_run.NAME.other`: how many metrics of the same model differ between the two, in any bit.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import pyarrow.dataset as ds

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import child, folder_bytes, line

MODEL = "mgoe"
FIT = """
import sys
from mgoe import Ranker

Ranker().fit(sys.argv[1], workdir=sys.argv[2])
"""


def measure(sample: Path, out: Path) -> dict[str, list[float | None]]:
    """Run both, and return value, what it is compared with, and the ratio of each figure."""
    shutil.rmtree(out, ignore_errors=True)
    run = child("-m", "mgoe", "run", sample / "first.yaml", "--out", out / "run")
    ranker = child("-c", FIT, sample / "log", out / "ranker")
    disk, parquet = folder_bytes(out / "run") / 1e6, folder_bytes(sample / "log") / 1e6
    ours, theirs = (metrics_of(run) for run in (out / "run", out / "ranker" / "run"))
    ranking = "test", "all", "all", "ranking"
    return {
        "rows": [rows_of(sample), None, None],
        "seconds": [run.seconds, ranker.seconds, None],
        "cpu_seconds": [run.cpu_seconds, ranker.cpu_seconds, None],
        "memory": [run.anonymous_gib, ranker.anonymous_gib, None],
        "disk": [disk, parquet, disk / parquet],
        "ranking": [ours[ranking], theirs[ranking], None],
        "other": [sum(ours.get(name) != value for name, value in theirs.items()), len(theirs), None],
    }


def metrics_of(run: Path) -> dict[tuple[str, ...], float | None]:
    """Return the metrics of the model, by split, slice, task and metric."""
    return {
        (row["split"], row["slice"], row["task"], row["metric"]): row["value"]
        for row in json.loads((run / "metrics.json").read_text())
        if row["model"] == MODEL
    }


def rows_of(sample: Path) -> int:
    return ds.dataset(sample / "log", format="parquet").count_rows()


def main() -> None:
    """Measure what is not measured yet, and print everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("samples", type=Path, help="folder of `strangers.py`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, resumed if it exists")
    parser.add_argument("--only", nargs="*", help="folders of samples by name; all by default")
    asked = parser.parse_args()
    samples = [file.parent for file in asked.samples.rglob("first.yaml")]
    for sample in sorted(samples, key=rows_of):
        if asked.only and sample.name not in asked.only:
            continue
        kept = asked.out / f"{sample.name}.json"
        if not kept.exists():
            found = measure(sample, asked.out / sample.name)
            kept.write_text(json.dumps(found))
        for name, (value, against, ratio) in json.loads(kept.read_text()).items():
            line(f"first_run.{sample.name}.{name}", value, UNITS.get(name, "1"), against, ratio)


UNITS = {"seconds": "s", "cpu_seconds": "s", "memory": "GiB", "disk": "MB"}

if __name__ == "__main__":
    main()
