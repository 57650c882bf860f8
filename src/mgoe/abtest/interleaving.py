"""Which of two arms users prefer, in lists that both made together.

What is done with an item of such a list counts for the arm that brought it. Arms take turns in a random
order, so a unit that does not care prefers each as often (team draft, Radlinski et al. 2008). Each unit has
one vote, and the sign test asks whether more than half of the votes go to one arm.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from mgoe.abtest.effects import fixed
from mgoe.abtest.samples import Sample, shown_items, until_end
from mgoe.config.experiment import ExperimentSettings


@dataclass(frozen=True)
class Preference:
    """Which arm's items a task was done with."""

    task: str
    arm: str
    """The treated one."""
    units: int
    """With interleaved lists."""
    wins: int
    """Units that did more with the treated arm's items."""
    losses: int
    share: float
    """Wins as a share of wins and losses."""
    interval: tuple[float, float]
    """Of the share, at one look."""
    p: float
    difference: float
    """Credit of the treated arm minus that of the control, per unit."""
    difference_interval: tuple[float, float]
    sentence: str


def preferences(experiment: ExperimentSettings, sample: Sample) -> list[Preference]:
    """Return which arm interleaved lists prefer, by each task with which a unit preferred one.

    Args:
        experiment: Its id and phase.
        sample: Its answers and rows.

    Raises:
        DataError: Lists and their teams differ in length.
    """
    tasks = {metric.task: metric.numerator for metric in sample.metrics if metric.kind == "unit"}
    answers = until_end(sample.answers, experiment)
    shown = shown_items(answers, sample.rows, "unit", "teams", list(tasks.values()))
    control, treated, preferred = sample.arms[0], sample.arms[-1], list[Preference]()
    for task, column in tasks.items():
        credit = shown.pivot_table(column, "unit", "teams", "sum", fill_value=0.0)
        differs = credit.reindex(columns=[control, treated], fill_value=0.0).diff(axis=1)[treated].to_numpy()
        wins, losses = int((differs > 0).sum()), int((differs < 0).sum())
        if not wins + losses:
            continue
        test = binomtest(wins, wins + losses)
        bounds = test.proportion_ci(method="wilson")
        low, high = fixed(differs.mean(), differs.var(ddof=1) / len(differs) if len(differs) > 1 else np.nan)
        preferred.append(
            Preference(
                task=task,
                arm=treated,
                units=len(differs),
                wins=wins,
                losses=losses,
                share=wins / (wins + losses),
                interval=(float(bounds.low), float(bounds.high)),
                p=float(test.pvalue),
                difference=float(differs.mean()),
                difference_interval=(float(low), float(high)),
                sentence=f"In interleaved lists {treated} wins {task} in {wins / (wins + losses):.1%} "
                f"({bounds.low:.1%} to {bounds.high:.1%}) of the {wins + losses:,} units that preferred an "
                f"arm, of {len(differs):,} (p = {test.pvalue:.2g} at one look).",
            )
        )
    return preferred
