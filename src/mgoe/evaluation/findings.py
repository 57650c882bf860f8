"""The result of a run in words: the first lines of its report and of what `mgoe run` prints.

How many of 100 users act on one of k items is HR@k over the whole catalogue, with Wilson's interval over the
queries. Two models are told apart by Newcombe's interval of the difference (1998, method 10). It takes their
users as independent although they are the same, so it is too wide rather than too narrow.
"""

import math
from collections.abc import Mapping

from mgoe.config import BOUNDS
from mgoe.evaluation.rows import ALL, MEAN, Column, Summaries, Summary, best, summarize
from mgoe.evaluation.standings import Standings
from mgoe.evaluation.tables import Cell, Table

SIMPLE = ("popularity", "history")
"""Rows that a page of recommendations should beat."""
UNMEASURED = (
    "Lists from the whole catalogue were not measured; run it again with "
    "`--set evaluation.ranking_queries=100 --overwrite`."
)
Z = 1.959964


def finding(standings: Standings) -> str:
    """Return the result in one sentence; nothing if the mean over tasks is unknown."""
    summaries, leader = summarize(standings.rows), standings.reference
    means = {
        m: found[MEAN]
        for m, found in summaries.items()
        if MEAN in found and math.isfinite(found[MEAN].mean) and m not in BOUNDS
    }
    if leader not in means:
        return ""
    rank = sum(one.mean > means[leader].mean for one in means.values()) + 1
    number = len({row["task"] for row in standings.rows} - {ALL})
    text = (
        f"{leader} reaches {means[leader].mean:.{means[leader].digits}f} on test, in the mean of AUC and "
        f"GAUC over {'one task' if number == 1 else f'{number} tasks'} (0.5 is guessing, 1 is perfect)"
    )
    if len(means) > 1:
        text += f", {'the best' if rank == 1 else f'number {rank}'} of {len(means)} models"
    if baselines := [e for e in standings.leads if (e.task, e.metric) == MEAN and math.isfinite(e.low)]:
        close = min(baselines, key=lambda e: e.value)
        text += (
            f", {'ahead of' if close.value >= 0 else 'behind'} {close.baseline}, the strongest baseline, by "
            f"{abs(close.value):.{close.digits}f}"
            f"{'' if close.low > 0 or close.high < 0 else ', which may be chance'} (95 % interval "
            f"{close.low:+.{close.digits}f} to {close.high:+.{close.digits}f})"
        )
    return f"{text}."


def page_findings(standings: Standings) -> list[str]:
    """Say of each task how many of 100 users act on one of the first items of a list from the whole
    catalogue, compared with popularity and the user's history.

    Returns:
        The question, then one line per task; one line if lists were not measured; nothing if no task can have
        them.
    """
    summaries = summarize(standings.rows)
    own = summaries.get(standings.reference, {})
    metric = _hit_rate(summaries)
    if not metric:
        return [UNMEASURED] if any(name == "auc" for _, name in own) else []
    lines = [
        "Would a page be better? Of 100 users who act on an item that was known when the test began, how "
        "many act on one of "
        f"{metric.removeprefix('hr@')} that are listed from the whole catalogue (95 % interval):"
    ]
    for task in [task for task, name in own if name == metric and task != ALL]:
        models = (standings.reference, *(m for m in SIMPLE if m != standings.reference))
        shares = {m: one for m in models if (one := _share(summaries.get(m, {}), (task, metric)))}
        if standings.reference in shares:
            texts = [f"{m} {_of_100(p)} ({_of_100(a)} to {_of_100(b)})" for m, (p, a, b) in shares.items()]
            mine = shares.pop(standings.reference)
            where = ", ".join(f"{_compared(mine, other)} {model}" for model, other in shares.items())
            lines.append(
                f"{task}: {', '.join(texts)}{f'; {standings.reference} is {where}' if where else ''}"
            )
    return lines if len(lines) > 1 else []


def page_table(summaries: Summaries) -> Table | None:
    """Return how many of 100 users act on one of the first items of each model's list, with intervals."""
    metric = _hit_rate(summaries)
    columns = list(dict.fromkeys(c for found in summaries.values() for c in found if c[1] == metric))
    columns = [column for column in columns if column[0] != ALL]
    leaders = {column: best(summaries, column) for column in columns}
    lines = []
    for model, found in summaries.items():
        shares = [(column, _share(found, column)) for column in columns]
        cells = [
            Cell(_of_100(one[0]), model in leaders[column], f"{_of_100(one[1])} to {_of_100(one[2])}")
            if one
            else Cell("-")
            for column, one in shares
        ]
        lines += [(model, cells)] if any(one for _, one in shares) else []
    return Table(["of 100 users", *(task for task, _ in columns)], lines) if lines else None


def _hit_rate(summaries: Summaries) -> str:
    """Return the name of HR@10, or of HR at the first depth that was measured; nothing if none was."""
    names = [name for found in summaries.values() for _, name in found if name.startswith("hr@")]
    return "hr@10" if "hr@10" in names else next(iter(names), "")


def _share(found: Mapping[Column, Summary], column: Column) -> tuple[float, float, float] | None:
    """Return a share of users with Wilson's interval; None if it was not measured."""
    if column not in found or not math.isfinite(share := found[column].mean):
        return None
    users = max(1.0, found[column[0], "queries"].mean if (column[0], "queries") in found else 1.0)
    middle, spread = share + Z * Z / (2 * users), share * (1 - share) / users + (Z / (2 * users)) ** 2
    half, whole = Z * math.sqrt(max(spread, 0.0)), 1 + Z * Z / users
    return share, max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def _compared(mine: tuple[float, float, float], other: tuple[float, float, float]) -> str:
    """Return whether a share is measurably ahead of another one or behind it."""
    (p, low, high), (q, other_low, other_high) = mine, other
    if p - q > math.hypot(p - low, other_high - q):
        return "ahead of"
    return "behind" if q - p > math.hypot(high - p, q - other_low) else "level with"


def _of_100(share: float) -> str:
    return f"{100 * share:.0f}"
