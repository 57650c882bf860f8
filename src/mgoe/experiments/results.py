"""What a run and a comparison return: numbers as frames, tables as text and, in notebooks, as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd

from mgoe.bundle import Bundle
from mgoe.evaluation import Row, Standings, markdown, read_rows, report
from mgoe.experiments.incumbent import INCUMBENT
from mgoe.experiments.report import plain_leads, rows_of, standings_of
from mgoe.pipeline import records
from mgoe.pipeline.plan import REFERENCES, Plan

LEADS = ("log", "model", "baseline", "task", "metric", "value", "low", "high", "adjusted")
"""Columns of a frame of leads."""


@dataclass(frozen=True, repr=False)
class RunResult:
    """A finished run.

    Attributes:
        path: Its folder.
        rows: The rows of `metrics.json`.
        standings: Its table: metrics and costs of every model, and the leads of the first one.

    Example:
        >>> result = mgoe.run("mine.yaml", "runs/mine")  # doctest: +SKIP
        >>> result.metrics.query("metric == 'auc' and split == 'test'")  # doctest: +SKIP
    """

    path: Path
    rows: list[Row]
    standings: Standings

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Read the result of a run whose cells are finished."""
        cells = [cell for name in plan.variants for cell in plan.cells if cell.variant.name == name]
        [standings] = standings_of(plan, records.latest(plan.out))
        other = [row for row in standings.rows if row["model"] == INCUMBENT]
        rows = rows_of(cells) + other + read_rows(plan.out / REFERENCES)
        return cls(plan.out, rows, standings)

    @property
    def metrics(self) -> pd.DataFrame:
        """One metric per row: model, seed, split, slice, task, metric, value."""
        return pd.DataFrame(self.rows)

    @property
    def leads(self) -> pd.DataFrame:
        """One lead of the first model per row, on test: model, baseline, task, metric, value, the 95 %
        interval `low` to `high`, and the p value after Holm's correction, `adjusted`.
        """
        return _leads([self.standings]).drop(columns="log")

    @property
    def bundle(self) -> Bundle:
        """The bundle of the model that is served, with its best seed on validation."""
        return Bundle.open(self.path / "bundle")

    def __repr__(self) -> str:
        return f"Run in {self.path}\n\n{markdown([self._untitled])}"

    def _repr_html_(self) -> str:
        return report.render_tables(f"Run in {self.path}", [self._untitled])

    @property
    def _untitled(self) -> Standings:
        """Its only table needs no title."""
        return replace(self.standings, question="")


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """The state of a comparison.

    Attributes:
        path: Its folder.
        standings: Every table on every log.
        failed: Titles of cells that failed, with the reason.
        waiting: Number of cells that are not run yet.
    """

    path: Path
    standings: Sequence[Standings]
    failed: dict[str, str]
    waiting: int

    @property
    def results(self) -> pd.DataFrame:
        """One metric per row: log, model, base, variant, seed, split, slice, task, metric, value."""
        return pd.read_parquet(self.path / "results.parquet")

    @property
    def leads(self) -> pd.DataFrame:
        """One lead of a table's reference per row, as `RunResult.leads`, with the name of the log."""
        return _leads(self.standings)

    def __repr__(self) -> str:
        return f"Comparison in {self.path}\n\n{markdown(self.standings)}"

    def _repr_html_(self) -> str:
        return report.render_tables(f"Comparison in {self.path}", self.standings)


def _leads(standings: Sequence[Standings]) -> pd.DataFrame:
    leads = [lead for one in standings for lead in plain_leads(one)]
    return pd.DataFrame(leads, columns=[*LEADS])
