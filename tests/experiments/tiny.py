"""Comparisons on a tiny log: other settings, jobs in this process, the numbers of a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mgoe.config import ComparisonSettings, check_settings
from mgoe.experiments.processes import Job, Outcome


def settings(raw: dict[str, Any], **changes: Any) -> ComparisonSettings:
    return check_settings(ComparisonSettings, raw | changes)


def here(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
    """`run_jobs` in this process, which needs none to start."""
    for job in jobs:
        yield Outcome(job, job.work(*job.args))


def numbers(out: Path) -> pd.DataFrame:
    table = pd.read_parquet(out / "results.parquet")
    return table.sort_values([*table.columns[:-1]]).reset_index(drop=True)
