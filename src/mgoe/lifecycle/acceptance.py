"""The release test: may a candidate take the place of the bundle that is served?

Both bundles predict a window of rows that neither has learned from. The candidate is refused if

- it has other tasks, lacks an input of the current bundle, or is of the other form of log;
- AUC or GAUC of a binary task, or RMSE of a regression, is worse by more than a margin, and the paired
  interval of the difference excludes zero after Holm's correction over all comparisons;
- a task predicts too many or too few positives, beyond a bound that chance does not explain, and is further
  off than the current bundle;
- it takes longer to answer requests than a bound.

So an equal candidate is refused in at most 2.5 % of all windows by its metrics. A window that is too small to
compare anything approves nothing.

Axes: `N` examples, `T` tasks.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mgoe._util.files import read_json, write_json
from mgoe.bundle import Bundle
from mgoe.bundle.held import last_of_files
from mgoe.bundle.manifest import now
from mgoe.config import Settings, TaskSettings, check_settings, seconds
from mgoe.data import Examples
from mgoe.errors import DataError
from mgoe.evaluation import find_leads, holm, user_influence
from mgoe.graph.pair_rows import SIDES
from mgoe.lifecycle.new_rows import NewRows, Sources, learned_until
from mgoe.pipeline.serving_time import open_scorer, request_times

RELEASE = "release.json"
"""File of a version with the result of its release test."""
WORSE = {"auc": -1, "gauc": -1, "rmse": 1}
"""Compared metrics, and the sign of a difference that is worse."""

Window = tuple[Examples, Examples]
"""The same rows as examples of a candidate and of the current bundle."""


class Bounds(Settings):
    """How much worse than the current bundle a candidate may be.

    Example:
        >>> Bounds(margin=0.005).latency
        1.5
    """

    margin: float = Field(default=0.002, ge=0, allow_inf_nan=False)
    """AUC and GAUC that a binary task may lose."""
    error: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """Share by which RMSE of a regression may rise."""
    calibration: float = Field(default=1.25, gt=1, allow_inf_nan=False)
    """Factor by which predictions of a task may exceed what is observed, or stay below it."""
    latency: float = Field(default=1.5, ge=1, allow_inf_nan=False)
    """Processor time of a request, as a multiple of the current bundle's."""
    requests: int = Field(default=50, ge=1)
    """Number of timed requests."""


class Compared(Settings):
    """One metric of a task: of both bundles, and their difference with its 95 % interval."""

    task: str
    metric: str
    candidate: float
    current: float
    low: float
    """95 % interval of the difference."""
    high: float
    p: float
    """After Holm's correction over the comparisons."""

    @property
    def difference(self) -> float:
        """Candidate less current."""
        return self.candidate - self.current


class Release(Settings):
    """What a release test found: `release.json` of a version, and what `mgoe registry test` prints.

    Example:
        >>> facts = {"candidate": "3f9a", "baseline": "61c0", "time": "2026-05-02T06:10:00+00:00", "rows": 0}
        >>> reasons = ["features of the current bundle are missing: context device"]
        >>> Release(**facts, approved=False, reasons=reasons, bounds=Bounds()).compared
        []
    """

    candidate: str
    baseline: str
    """The version that was current."""
    time: str
    rows: int
    """Examples of the window."""
    approved: bool
    """Whether the candidate may go live."""
    reasons: list[str]
    """Why the candidate is refused."""
    bounds: Bounds
    """What was allowed."""
    compared: list[Compared] = Field(default=[])
    """Empty, as all below, if the versions have other tasks or features."""
    calibration: dict[str, tuple[float, float]] = Field(default={})
    """Predicted over observed by task: of the candidate, and of the current version."""
    latency: tuple[float, float] | None = None
    """Milliseconds of a request: with the candidate, and with the current version."""

    def save(self, bundle: Path) -> None:
        """Write it beside the files of a candidate."""
        write_json(bundle / RELEASE, self.model_dump(mode="json"))

    @classmethod
    def of(cls, bundle: Path) -> Self | None:
        """Read that of a candidate; None if it was not tested.

        Tests of before have `shift`, the drift of inputs by their means, which is left out.

        Raises:
            ConfigError: The file is damaged.
        """
        file = bundle / RELEASE
        if not file.exists():
            return None
        found = read_json(file)
        for part in (found, found.get("bounds")):
            if isinstance(part, dict):
                part.pop("shift", None)
        return check_settings(cls, found, file)


def check_release(
    candidate: Bundle, current: Bundle, window: Window | None, bounds: Bounds = Bounds()
) -> Release:
    """Test a candidate against the bundle that is served.

    Args:
        candidate, current: The bundles.
        window: The same rows as examples of the candidate and of the current bundle, see `window_of`.
        bounds: What is allowed.

    Raises:
        DataError: The window has no rows, or rows that served weights have learned.

    Example:
        >>> rows = prepared.examples("test")
        >>> check_release(bundle, bundle, (rows, rows), Bounds(requests=2)).compared[0].difference
        0.0
    """
    if window is None or not len(window[0]):
        raise DataError(
            "the window", "must hold rows that neither bundle has learned from, found none; wait for some"
        )
    for bundle, rows in zip((candidate, current), window, strict=True):
        until = learned_until(bundle) // 1_000_000 // seconds(bundle.settings.data.bucket)
        if bundle.manifest.weights == "served" and (first := int(rows.bucket.min())) < until:
            raise DataError(
                "the window",
                f"must hold rows that neither bundle has learned from, found some of bucket {first}, and the "
                f"weights of {bundle.path} have learned those until bucket {until}; take later rows",
            )
    found = Release(
        candidate=candidate.name,
        baseline=current.name,
        time=now(),
        rows=len(window[0]),
        approved=False,
        reasons=missing(candidate, current),
        bounds=bounds,
    )
    if found.reasons:
        return found
    tasks, labels, users = candidate.settings.tasks, window[0].labels, window[0].user
    scores = candidate.predict_examples(window[0]), current.predict_examples(window[1])
    compared = compare(*scores, labels, users, tasks)
    ours, theirs = (predicted_over_observed(one, labels, users, tasks) for one in scores)
    latency = time_requests((candidate, current), bounds.requests)
    reasons = [*worse(compared, bounds), *uncalibrated(ours, theirs, bounds)]
    if latency[0] > bounds.latency * latency[1]:
        reasons.append(
            f"a request takes {latency[0]:.2f} ms, {latency[0] / latency[1]:.1f} times as long as with the "
            f"current bundle, at most {bounds.latency:g} times are allowed"
        )
    return found.model_copy(
        update={
            "approved": not reasons,
            "reasons": reasons,
            "compared": compared,
            "calibration": {task: (ratio, theirs[task][0]) for task, (ratio, _) in ours.items()},
            "latency": latency,
        }
    )


def missing(candidate: Bundle, current: Bundle) -> list[str]:
    """Return what a candidate lacks that the current bundle has, one reason each."""
    reasons = []
    forms = candidate.settings.form, current.settings.form
    if forms[0] != forms[1]:
        reasons.append(f"the log must be one of {forms[1]}, as that of the current bundle, found {forms[0]}")
    if candidate.manifest.tasks != current.manifest.tasks:
        ours, theirs = (", ".join(one.tasks) for one in (candidate, current))
        reasons.append(f"the tasks must be those of the current bundle ({theirs}), found {ours}")
    if lost := sorted(_features(current) - _features(candidate)):
        reasons.append(f"features of the current bundle are missing: {', '.join(lost)}")
    return reasons


def _features(bundle: Bundle) -> set[str]:
    data = bundle.settings.data
    sides = {"users": data.users, "items": data.items}
    return {f"context {feature.name}" for feature in data.context} | {
        f"{side} {feature.name}" for side, table in sides.items() if table for feature in table.features
    }


def compare(
    candidate: NDArray[np.floating],
    current: NDArray[np.floating],
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    tasks: Sequence[TaskSettings],
) -> list[Compared]:
    """Compare two sets of predictions (N, T) of the same rows, with paired intervals over users.

    Metrics are left out if too few users have both kinds of labels.
    """
    ours, theirs = (user_influence(scores, labels, users, tasks) for scores in (candidate, current))
    values = dict(zip(ours.names, ours.values.tolist(), strict=True))
    leads = [
        lead
        for lead in find_leads("candidate", {0: ours}, {"current": {0: theirs}})
        if lead.metric in WORSE and lead.task in {task.name for task in tasks} and not np.isnan(lead.low)
    ]
    adjusted = holm([lead.p for lead in leads]).tolist()
    return [
        Compared(
            task=lead.task,
            metric=lead.metric,
            candidate=values[lead.task, lead.metric],
            current=values[lead.task, lead.metric] - lead.value,
            low=lead.low,
            high=lead.high,
            p=p,
        )
        for lead, p in zip(leads, adjusted, strict=True)
    ]


def worse(compared: Sequence[Compared], bounds: Bounds) -> list[str]:
    """Return where a candidate is worse than allowed, one reason each."""
    if not compared:
        return ["too few users have labels of both kinds to compare any task; wait for a larger window"]
    reasons = []
    for one in compared:
        loss = WORSE[one.metric] * one.difference
        allowed = bounds.error * one.current if one.metric == "rmse" else bounds.margin
        if loss > allowed and one.p < 0.05:
            reasons.append(
                f"{one.metric} of {one.task} is {one.candidate:.4f} instead of {one.current:.4f} "
                f"({one.difference:+.4f}, 95 % interval {one.low:+.4f} to {one.high:+.4f}), at most "
                f"{allowed:.4f} may be lost"
            )
    return reasons


def predicted_over_observed(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    users: NDArray[np.integer],
    tasks: Sequence[TaskSettings],
) -> dict[str, tuple[float, float]]:
    """Return predicted over observed positives of each binary task, and the standard error of its logarithm.

    Rows of one user depend on one another, so users are what varies.
    """
    found, index = {}, np.unique(users, return_inverse=True)[1]
    for t, task in enumerate(tasks):
        held = ~np.isnan(labels[:, t])
        positive = labels[held, t] > 0
        if task.kind == "binary" and positive.any():
            predicted = np.bincount(index[held], scores[held, t])
            observed = np.bincount(index[held], positive)
            ratio = predicted.sum() / observed.sum()
            error = np.sqrt(np.square(predicted - ratio * observed).sum()) / predicted.sum()
            found[task.name] = float(ratio), float(error)
    return found


def uncalibrated(
    candidate: dict[str, tuple[float, float]], current: dict[str, tuple[float, float]], bounds: Bounds
) -> list[str]:
    """Return which tasks predict too many or too few positives, one reason each."""
    reasons = []
    for task, (ratio, error) in candidate.items():
        off, before = abs(np.log(ratio)), abs(np.log(current[task][0]))
        if off - 3 * error > np.log(bounds.calibration) and off > before + np.log(1.1):
            reasons.append(
                f"{task} is predicted {ratio:.2f} times as often as it is observed, and "
                f"{current[task][0]:.2f} times by the current bundle; at most a factor of "
                f"{bounds.calibration:g} is allowed"
            )
    return reasons


def time_requests(bundles: tuple[Bundle, Bundle], requests: int) -> tuple[float, float]:
    """Return the median processor time of a request in milliseconds, of each bundle, as a service runs it."""
    scores = [open_scorer(bundle)[0].score for bundle in bundles]
    users, items = (min(bundle.size(side) for bundle in bundles) for side in SIDES)
    candidate, current = request_times(scores, users, items, requests)
    return candidate, current


def window_of(
    candidate: Bundle, current: Bundle, sources: Sources, folder: Path | None = None
) -> Window | None:
    """Return the rows that neither of two bundles has learned from, as examples of each; None without any.

    A candidate with other tasks or inputs, which no window can approve, need not be able to read them: they
    are then read as the current bundle reads them.

    Args:
        candidate: Made from the current bundle, or later.
        current: What is served.
        sources: Where the rows are; those of files may have been learned by both. Of a service's rows, those
            that one of both holds are left out.
        folder: Holds the rows while they are read, in a folder `mgoe-*`; by default that of the system for
            temporary files.

    Raises:
        MgoeError: The rows cannot be read, break a rule, or do no task.

    Example:
        >>> window_of(bundle, bundle, Sources(str(log))) is None  # it has learned from all
        True
    """
    reader, other = (current, candidate) if missing(candidate, current) else (candidate, current)
    with TemporaryDirectory(prefix="mgoe-", dir=folder) as work:
        rows = NewRows.of(reader, replace(sources, later=True), Path(work), beside=[other])
        files = [last_of_files(held) for held in rows.held]  # they may hold earlier rows of a service
        moments = (
            [*map(learned_until, (candidate, current))] if rows.by_time else [one for one in files if one]
        )
        new = rows.after(max(moments)) if moments else rows
        ours, theirs = (
            replace(new, bundle=one).examples(
                since=replace(rows.after(learned_until(one)) if rows.by_time else rows, bundle=one)
            )
            for one in (reader, current)
        )
    return None if ours is None or theirs is None else (ours, theirs)


def objection(version: Path, current: str | None) -> str | None:
    """Return why a version of a registry may not become current in place of another; None if it may.

    Args:
        version: Its folder.
        current: Name of the version that is current.
    """
    if (tested := Release.of(version)) is None:
        return None if current is None else "was not tested; run `mgoe registry test`"
    if (tested.candidate, tested.baseline) != (version.name, current):
        return f"was tested against {tested.baseline}, and {current} is current; test it again"
    if not tested.approved:
        return f"was refused by the release test ({'; '.join(tested.reasons)}); add a better one"
    return None
