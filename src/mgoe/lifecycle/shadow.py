"""What a shadow says in the log of answers: how two versions differ, and which of them predicted better.

Both have scored the same pairs as of the same moments. Differences are taken over pairs drawn at random from
all that were scored. Quality is taken over pairs with labels. Most of these are what the version that
answered ranked first, among which its own scores differ less than elsewhere, so the other version looks
better than it would by itself. The release test decides what goes live.

Axes: `N` pairs, `T` tasks.
"""

import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from mgoe.bundle import Bundle
from mgoe.bundle.manifest import iso_time
from mgoe.config import Settings, seconds_of
from mgoe.errors import DataError
from mgoe.lifecycle.acceptance import Compared, compare, predicted_over_observed
from mgoe.lifecycle.outcomes import outcomes, texts_of
from mgoe.metrics import spearman
from mgoe.serving.events.answer_log import FOLDER, IS_OF_SHADOW, Answer, read_answers


class Difference(Settings):
    """How far the scores of a task differ."""

    task: str
    candidate: float
    """Mean score."""
    current: float
    correlation: float | None
    """Rank correlation of both scores over pairs; null if one of them is constant."""


class ShadowReport(Settings):
    """What `mgoe registry compare` prints.

    Example:
        >>> facts = {"candidate": "3f9a", "baseline": "61c0", "requests": 1, "pairs": 500, "labelled": 0}
        >>> moments = dict.fromkeys(("first", "last"), "2026-05-02T06:10:00+00:00")
        >>> ShadowReport(**facts, **moments, differences=[]).compared
        []
    """

    candidate: str
    """The version that scored as a shadow."""
    baseline: str
    """The version that answered."""
    requests: int
    first: str
    """When the first of these was answered."""
    last: str
    pairs: int
    """Pairs drawn at random from all that were scored."""
    differences: list[Difference]
    """Over these pairs."""
    labelled: int
    """Pairs whose labels have matured."""
    compared: list[Compared] = Field(default=[])
    """Empty while too few users have labels of both kinds."""
    calibration: dict[str, tuple[float, float]] = Field(default={})
    """Predicted over observed by task: of the shadow, and of the version that answered."""


def compare_shadow(
    candidate: str, current: Bundle, state: Path, events: str, window: str = "1d", now: int | None = None
) -> ShadowReport:
    """Compare a version that scored as a shadow with the one that answered.

    Args:
        candidate: Name of the shadow's version.
        current: The bundle that answered.
        state: State folder of the service.
        events: Where its live events are: the same folder, or a Redis server.
        window: For how long an event, or an exposure, may follow its answer.
        now: The present, in microseconds since 1970.

    Raises:
        ConfigError: The window is no length of time.
        DataError: The log holds nothing of the two.
        StoreError: A log cannot be read.
    """
    records = _records(candidate, current.name, state)
    scores = np.array([row for one in records for row in one.served_scores or ()])  # (N, T)
    theirs = np.array([row for one in records for row in one.scores or ()])
    pairs = _pairs(records, current)
    drawn = ~pairs["shown"].to_numpy()
    length = seconds_of(window, "window") * 1_000_000
    rows, labels = outcomes(current, pairs, events, length, time.time_ns() // 1000 if now is None else now)
    users = np.unique(pairs["user"].to_numpy(str), return_inverse=True)[1][rows]
    known = labels, users, current.settings.tasks
    ratios, former = (predicted_over_observed(of[rows], *known) for of in (theirs, scores))
    moments = [one.time for one in records]
    return ShadowReport(
        candidate=candidate,
        baseline=current.name,
        requests=len({one.request for one in records}),
        first=iso_time(min(moments)),
        last=iso_time(max(moments)),
        pairs=int(drawn.sum()),
        differences=[
            Difference(
                task=task,
                candidate=float(theirs[drawn, t].mean()),
                current=float(scores[drawn, t].mean()),
                correlation=None if np.isnan(rho := spearman(scores[drawn, t], theirs[drawn, t])) else rho,
            )
            for t, task in enumerate(current.tasks)
        ],
        labelled=len(rows),
        compared=compare(theirs[rows], scores[rows], *known) if len(rows) else [],
        calibration={task: (ratio, former[task][0]) for task, (ratio, _) in ratios.items()},
    )


def _records(candidate: str, current: str, state: Path) -> list[Answer]:
    log, found = read_answers(state), defaultdict[tuple[str, str | None], list[Answer]](list)
    for one in log.where(IS_OF_SHADOW) if log else ():
        found[one.version, one.served].append(one)
    if (candidate, current) not in found:
        held = ", ".join(
            f"{len({one.request for one in several}):,} of {shadow} beside {version}"
            for (shadow, version), several in found.items()
        )
        raise DataError(
            state / FOLDER,
            f"must hold requests that {candidate} scored beside {current}, found {held or 'none'}; name the "
            "--state of the service, or serve with --shadow",
        )
    return found[candidate, current]


def _pairs(records: list[Answer], bundle: Bundle) -> pd.DataFrame:
    """Return the pairs of records. N of them."""
    users = [one.user or "" for one in records for _ in one.items]
    return pd.DataFrame({
        "user": texts_of(bundle, "user", users),
        "item": texts_of(bundle, "item", [item for one in records for item in one.items]),
        "time": np.repeat([one.time for one in records], [len(one.items) for one in records]),
        "shown": [place < (one.shown or 0) for one in records for place in range(len(one.items))],
    })  # fmt: skip
