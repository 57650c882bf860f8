"""What a colleague would say about what was measured on a log, each with what helps."""

import math
from collections.abc import Iterator, Mapping, Sequence

from mgoe._util.files import read_json
from mgoe.evaluation import ALL, Estimate, Row, summarize
from mgoe.evaluation.rows import FEW_USERS, MEAN
from mgoe.pipeline.plan import Cell
from mgoe.training.progress import CURVES

BY_HEART = 0.6
"""Training loss as a share of that on validation, below which a model has learned rows by heart."""
WORSE = 1.02
"""Log loss after calibration, over that before, from which it is said."""
REFERENCES = ("constant", "popularity", "history", "rates")
"""Models that learn nothing, which a trained one should beat."""


def of_results(
    cells: Sequence[Cell],
    rows: Sequence[Row],
    own: Sequence[Estimate],
    leads: Sequence[Estimate],
    shape: str = "",
) -> list[str]:
    """Return what is odd about the results of the first model: one sentence each.

    Args:
        cells: Its finished cells.
        rows: Measurements of all models.
        own: Its test metrics with their intervals.
        leads: Its leads over the others.
        shape: What `shape_of` says of the log.
    """
    return [
        *_too_few(own),
        *_hopeless(own, shape),
        *_training(cells),
        *_calibration(rows, cells),
        *_below(leads),
    ]


def _too_few(own: Sequence[Estimate]) -> Iterator[str]:
    for one in own:
        if (one.task, one.metric) == MEAN and (math.isnan(one.low) or one.users < FEW_USERS):
            known = (
                "no interval exists"
                if math.isnan(one.low)
                else f"the interval is {one.low:.2f} to {one.high:.2f}"
            )
            yield (
                f"only {one.users} test users have what AUC and GAUC compare, so small differences say "
                f"nothing ({known}); take a longer log, or fewer split.cuts"
            )


def _hopeless(own: Sequence[Estimate], shape: str) -> Iterator[str]:
    advice = shape or "leave the task out, or give features that say something about it"
    for one in own:
        if one.metric == "auc" and one.task != ALL and one.low <= 0.5 <= one.high:
            yield (
                f"nothing in the log predicts {one.task}: its AUC is between {one.low:.2f} and "
                f"{one.high:.2f}; {advice}"
            )
        elif one.metric == "auc" and one.task != ALL and one.high < 0.5:
            yield (
                f"{one.task} is ranked below chance: its AUC is between {one.low:.2f} and {one.high:.2f}, "
                "and 0.5 is guessing; look at its column, and at what changed between training and test"
            )


def _training(cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells[:1]:
        curves = read_json(cell.folder / CURVES)
        most = len(curves["epochs"])  # training that stops early has epochs after the best one
        if curves["best_epoch"] == most > 1:
            yield (
                f"the best epoch of {cell.variant.name} is the last of {most}, so more may be better; "
                "raise training.epochs"
            )
        best = next((one for one in curves["epochs"] if one["epoch"] == curves["best_epoch"]), {})
        yield from _by_heart(cell.variant.name, best)


def _by_heart(model: str, epoch: Mapping) -> Iterator[str]:
    for task, loss in epoch.get("losses", {}).items():
        held_out = epoch["validation"].get(task, {}).get("logloss")
        if loss is not None and held_out is not None and loss < BY_HEART * held_out:
            yield (
                f"{model} has learned rows by heart: the log loss of {task} is {loss:.3f} in training and "
                f"{held_out:.3f} on validation; switch `ids: off`, or lower training.learning_rate"
            )
            return


def _calibration(rows: Sequence[Row], cells: Sequence[Cell]) -> Iterator[str]:
    of_model = summarize(rows).get(cells[0].variant.name, {}) if cells else {}
    for (task, metric), found in of_model.items():
        before = of_model.get((task, "logloss"))
        if metric == "logloss_after" and before is not None and found.mean > WORSE * before.mean:
            yield (
                f"calibration on validation makes {task} worse on test: its log loss is {found.mean:.4f} "
                f"after and {before.mean:.4f} before; the two windows differ, see the page on data"
            )


def _below(leads: Sequence[Estimate]) -> Iterator[str]:
    for lead in leads:
        if (lead.task, lead.metric) == MEAN and lead.baseline in REFERENCES and lead.value < 0:
            yield (
                f"{lead.baseline}, which learns nothing, is ahead of {lead.model} by {-lead.value:.4f} on "
                "the mean; read the sentences above, and look at the tasks and the columns"
            )
        elif (lead.metric, lead.baseline) == ("auc", "popularity") and lead.task != ALL and lead.high < 0:
            yield (
                f"{lead.task} is ranked worse than popularity ranks it: the AUC of {lead.model} is "
                f"{-lead.value:.{lead.digits}f} lower, measurably; look at the task and its column"
            )
