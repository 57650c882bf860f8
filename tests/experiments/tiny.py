"""Comparisons on a tiny log: other settings, jobs in this process, the numbers of a folder."""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mgoe._util.processes import Job, Outcome
from mgoe.config import ComparisonSettings, check_settings
from mgoe.errors import MgoeError


def settings(raw: dict[str, Any], **changes: Any) -> ComparisonSettings:
    return check_settings(ComparisonSettings, raw | changes)


def here(
    jobs: Sequence[Job],
    at_once: int = 1,
    folder: Path | None = None,
    threads: int = 1,
    until: float | None = None,
) -> Iterator[Outcome]:
    """`run_jobs` in this process, which needs none to start. An error of a job is raised."""
    for job in jobs:
        if until is None or time.monotonic() < until:
            logging.disable(logging.INFO)  # nobody hears what a process of its own logs
            try:
                value = job.work(*job.args)
            finally:
                logging.disable(logging.NOTSET)
            yield Outcome(job, value)


def here_or_failed(jobs: Sequence[Job], *_: Any) -> Iterator[Outcome]:
    """The same, where an error of a job is what became of it, as of a process."""
    for job in jobs:
        try:
            yield Outcome(job, job.work(*job.args))
        except MgoeError as error:
            yield Outcome(job, failed=str(error))


def taken_out(out: Path, *models: str) -> list[str]:
    """Take the cells of models and their lines out of a comparison, and return the lines."""
    for model in models:
        shutil.rmtree(out / "logs/tiny/cells" / model)
    file = out / "results.jsonl"
    lines = file.read_text().splitlines()
    of_them = [line for line in lines if json.loads(line)["model"] in models]
    file.write_text("".join(f"{line}\n" for line in lines if line not in of_them))
    return of_them


def numbers(out: Path) -> pd.DataFrame:
    table = pd.read_parquet(out / "results.parquet")
    return table.sort_values([*table.columns[:-1]]).reset_index(drop=True)
