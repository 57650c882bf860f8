"""Whether an experiment can be trusted: each check is a finding of one sentence, an alarm or none."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mgoe.abtest.effects import Sums, compare, fixed_p, sum_units
from mgoe.abtest.samples import SKEW, Sample
from mgoe.config.experiment import ExperimentSettings

ALARM = 0.001
"""p below which a check alarms; several checks run, each once or daily."""
SAME = 0.01
"""Share of differing lists below which arms answer the same."""
QUANTILES = (0.5, 0.95)
"""Of the latency, that of one request and of the slow ones."""
SLOWER = 1.25
"""Ratio of a quantile between arms from which one is called slower."""
BOT = 50
"""Requests of a unit, as a multiple of the 99th percentile, that no person makes."""
MIN_BOT = 500
"""Fewest requests per day of the experiment that are called impossible."""


@dataclass(frozen=True)
class Finding:
    """One check: its name, whether it is an alarm, and what was found.

    Example:
        >>> Finding("sample ratio", False, "The arms have the units that their shares ask for.").alarm
        False
    """

    name: str
    alarm: bool
    sentence: str


def check(experiment: ExperimentSettings, sample: Sample, seed: int = 0) -> list[Finding]:
    """Return what speaks for and against the data of an experiment, alarms first.

    Args:
        experiment: Its settings.
        sample: Its units and rows.
        seed: Seed of the reassignments of the A/A check.
    """
    shown = sample.answers[sample.answers["use"] == "answer"]
    all_phases = shown[(shown["experiment"] == experiment.id) & shown["arm"].notna() & shown["teams"].isna()]
    own = all_phases[(all_phases["phase"] == experiment.phase) & all_phases["arm"].isin(sample.arms)]
    found = [
        _ratio(experiment, sample),
        _delivery(sample),
        _two_arms(own),
        _phases(experiment, all_phases),
        _versions(own),
        _shares(own, "fallback", "fallbacks"),
        _shares(own, "error", "errors"),
        _latency(own),
        _early(sample),
        _one_arm(sample),
        _bots(sample, own),
        _clocks(sample, own),
        _reassigned(sample, seed),
    ]
    return sorted(found, key=lambda finding: not finding.alarm)


def _finding(name: str, alarm: bool, wrong: str, fine: str) -> Finding:
    return Finding(name, bool(alarm), wrong if alarm else fine)


def _ratio(experiment: ExperimentSettings, sample: Sample) -> Finding:
    counts = np.bincount(sample.units["arm"], minlength=len(sample.arms))
    expected = counts.sum() * np.array([arm.share for arm in experiment.arms])
    p = float(stats.chisquare(counts, expected).pvalue)
    told = ", ".join(f"{n:,} in {arm}" for n, arm in zip(counts, sample.arms, strict=True))
    return _finding(
        "sample ratio",
        p < ALARM,
        f"The arms have other numbers of units than their shares ask for ({told}; p = {p:.1g}), so they "
        "differ in who is counted; look for an arm that loses answers.",
        f"The arms have the units that their shares ask for ({told}).",
    )


def _delivery(sample: Sample) -> Finding:
    share, told = sample.pairs["differs"].mean(), f"{len(sample.pairs):,} compared requests"
    if sample.pairs.empty:
        said = "No request has the lists of two arms, so nobody knows whether they differ; set `compare`."
        return Finding("delivery", False, said)
    return _finding(
        "delivery",
        share < SAME,
        f"The arms answer the same: lists differ in {share:.1%} of {told}; check the bundles of the arms.",
        f"Lists of the arms differ in {share:.1%} of {told}.",
    )


def _two_arms(own: Any) -> Finding:
    arms = own.groupby("unit")["arm"].nunique()
    twice = int((arms > 1).sum())
    return _finding(
        "two arms",
        twice > 0,
        f"{twice:,} of {len(arms):,} units were answered by two arms; look for requests that bring their "
        "arm.",
        "Each unit was answered by one arm.",
    )


def _phases(experiment: ExperimentSettings, answers: Any) -> Finding:
    others = sorted(set(answers["phase"].dropna()) - {experiment.phase})
    return _finding(
        "phase",
        len(others) > 0,
        f"Arms or shares changed in the middle: phases {', '.join(others)} were served too and are left "
        "out, but their units carry what they saw; start a new experiment.",
        "Arms and shares did not change.",
    )


def _versions(own: Any) -> Finding:
    unknown = sorted(own.loc[own["version"].isna() & (own["status"] == "ok"), "arm"].unique())
    numbers = own.groupby("arm")["version"].nunique()
    return _finding(
        "versions",
        len(unknown) > 0,
        f"Answers of {', '.join(unknown)} name no version, so nobody knows what was served; update the "
        "service.",
        f"Versions that answered: {', '.join(f'{n} in {arm}' for arm, n in numbers.items())}.",
    )


def _shares(own: Any, status: str, word: str) -> Finding:
    bad = (own["status"] == status).groupby(own["arm"]).sum()
    table = np.stack([bad, own.groupby("arm").size() - bad])
    p = _independent(table) if table.all(1).any() and table[0].sum() else 1.0
    shares = table[0] / table.sum(0)
    told = ", ".join(f"{share:.2%} in {arm}" for share, arm in zip(shares, bad.index, strict=True))
    return _finding(
        word,
        p < ALARM and np.ptp(shares) > SAME / 10,
        f"The arms have other shares of {word} ({told}; p = {p:.1g}), so they differ in more than their "
        "policy; find out why.",
        f"Shares of {word}: {told}.",
    )


def _latency(own: Any) -> Finding:
    """Compare how often requests of an arm are slower than a quantile of all, by units: whatever else the
    machine does delays both arms, whose units are random."""
    answered, found, is_slower = own[own["unit"].notna()], list[str](), False
    for quantile in QUANTILES:
        limit = answered["latency"].quantile(quantile)
        beyond = answered.assign(slow=answered["latency"] > limit, n=1.0, none=0.0)
        units = beyond.groupby(["arm", "unit"])[["slow", "n", "none"]].sum()
        values = answered.groupby("arm")["latency"].quantile(quantile) / 1000
        arms = [(values[arm], sum_units(one.to_numpy(float))) for arm, one in units.groupby("arm")]
        pairs = [*combinations(arms, 2)]
        for (one, of_one), (other, of_other) in pairs:
            effect = compare(of_one, of_other)
            p = fixed_p(np.nan_to_num(effect.difference), np.nan_to_num(effect.variance))
            is_slower |= bool(p < ALARM / len(pairs) and max(one, other) > SLOWER * min(one, other))
        told = ", ".join(f"{value:.1f} ms in {arm}" for arm, value in values.items())
        found.append(f"p{100 * quantile:.0f} is {told}")
    return _finding(
        "latency",
        is_slower,
        f"One arm is slower, which users feel as well: {'; '.join(found)}.",
        f"Latency: {'; '.join(found)}.",
    )


def _early(sample: Sample) -> Finding:
    rows = sample.rows[sample.rows["row"].notna() & (sample.rows["time"] >= sample.start)]
    first = sample.units["first"].to_numpy()[rows["row"].astype(int)]
    early = (rows["time"].to_numpy() < first - SKEW).mean() if len(rows) else 0.0
    return _finding(
        "before assignment",
        early > SAME,
        f"{early:.1%} of the rows since the start are older than the assignment of their unit and are left "
        "out; they were shown outside of the experiment, or answers are missing.",
        "Rows follow the assignment of their unit.",
    )


def _one_arm(sample: Sample) -> Finding:
    active = np.zeros(len(sample.units), bool)
    active[sample.cells["row"].to_numpy()] = True
    arm = sample.units["arm"].to_numpy()
    table = np.array(
        [[(active & (arm == a)).sum(), (~active & (arm == a)).sum()] for a in range(len(sample.arms))]
    )
    shares = table[:, 0] / np.maximum(table.sum(1), 1)
    told = ", ".join(f"{share:.1%} in {name}" for share, name in zip(shares, sample.arms, strict=True))
    p = _independent(table) if table.sum(0).all() else 1.0
    return _finding(
        "logging",
        (shares == 0).any() or (p < ALARM and np.ptp(shares) > 0.05),
        f"The arms log other shares of their units ({told}); rows of an arm are missing.",
        f"Units of which something was logged: {told}.",
    )


def _bots(sample: Sample, own: Any) -> Finding:
    requests = own.groupby("unit").size()
    limit = max(BOT * float(requests.quantile(0.99)), MIN_BOT * sample.days)
    bots = int((requests > limit).sum())
    share = requests[requests > limit].sum() / requests.sum()
    return _finding(
        "bots",
        bots > 0,
        f"{bots:,} units made more requests than a person can ({limit:,.0f}), {share:.1%} of all; leave "
        "them out of the log.",
        f"No unit made more than {limit:,.0f} requests.",
    )


def _clocks(sample: Sample, own: Any) -> Finding:
    by_request = own.drop_duplicates("request").set_index("request")["time"]
    lag = (sample.rows["time"] - sample.rows["request"].map(by_request)).dropna()
    early = float((lag < -SKEW).mean()) if len(lag) else 0.0
    return _finding(
        "clocks",
        early > SAME,
        f"{early:.1%} of the rows are dated more than a minute before the answer that showed them; set the "
        "clocks of the machines that log.",
        "Rows are dated after the answers that showed them.",
    )


def _reassigned(sample: Sample, seed: int) -> Finding:
    share = reassign(sample, seed=seed)
    told = f"Of 1,000 random assignments of the same units, {share:.1%} differ with p < .05"
    return _finding("A/A", share > 0.1, f"{told}, not 5 %; few units make up most of a metric.", f"{told}.")


def reassign(sample: Sample, times: int = 1000, seed: int = 0) -> float:
    """Return which share of random halves of the units differ (p < .05), the largest over metrics."""
    rng, shares = np.random.default_rng(seed), []
    tables = [sample.values(metric) for metric in sample.metrics]
    assigned = rng.random((times, len(sample.units))) < 0.5
    for values in tables:
        whole, products = sum_units(values), values[:, :, None] * values[:, None, :]
        treated = Sums(assigned.sum(1).astype(float), assigned @ values, _assigned(assigned, products))
        control = Sums(*(all_ - part for all_, part in zip(whole, treated, strict=True)))
        effect = compare(control, treated)
        p = fixed_p(np.nan_to_num(effect.difference), np.nan_to_num(effect.variance))
        shares.append(float((p < 0.05).mean()))
    return max(shares)


def _assigned(assigned: NDArray[np.bool_], products: NDArray[np.float64]) -> NDArray[np.float64]:
    return (assigned @ products.reshape(len(products), -1)).reshape(len(assigned), *products.shape[1:])


def _independent(table: NDArray[np.number]) -> float:
    """Return the p value of rows and columns without relation."""
    found: Any = stats.chi2_contingency(table)
    return float(found.pvalue)
