"""Whether an experiment can be trusted: each check is a finding of one sentence, an alarm or none."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mgoe.abtest.effects import Sums, compare, fixed_p, sum_units
from mgoe.abtest.samples import SKEW, Sample, list_differences
from mgoe.config.experiment import ExperimentSettings

ALARM = 0.001
"""p below which a check alarms; several checks run, each once or daily."""
SAME = 0.01
"""Share of differing lists below which arms answer the same."""
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

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


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
        _delivery(experiment, sample),
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


def _ratio(experiment: ExperimentSettings, sample: Sample) -> Finding:
    counts = np.bincount(sample.units["arm"], minlength=len(sample.arms))
    expected = counts.sum() * np.array([arm.share for arm in experiment.arms])
    p = float(stats.chisquare(counts, expected).pvalue)
    told = ", ".join(f"{n:,} in {arm}" for n, arm in zip(counts, sample.arms, strict=True))
    if p < ALARM:
        return Finding(
            "sample ratio",
            True,
            f"The arms have other numbers of units than their shares ask for ({told}; p = {p:.1g}), "
            f"so they "
            "differ in who is counted; look for an arm that loses answers.",
        )
    return Finding("sample ratio", False, f"The arms have the units that their shares ask for ({told}).")


def _delivery(experiment: ExperimentSettings, sample: Sample) -> Finding:
    pairs = list_differences(sample.answers, experiment.id, experiment.phase)
    if pairs.empty:
        return Finding(
            "delivery",
            False,
            "No request has the lists of two arms, so nobody knows whether they differ; set `compare`.",
        )
    share, told = float(pairs["differs"].mean()), f"{len(pairs):,} compared requests"
    if share < SAME:
        return Finding(
            "delivery",
            True,
            f"The arms answer the same: lists differ in {share:.1%} of {told}; check the bundles of "
            f"the arms.",
        )
    return Finding("delivery", False, f"Lists of the arms differ in {share:.1%} of {told}.")


def _two_arms(own: Any) -> Finding:
    arms = own.groupby("unit")["arm"].nunique()
    if twice := int((arms > 1).sum()):
        return Finding(
            "two arms",
            True,
            f"{twice:,} of {len(arms):,} units were answered by two arms; look for requests that "
            f"bring their arm.",
        )
    return Finding("two arms", False, "Each unit was answered by one arm.")


def _phases(experiment: ExperimentSettings, answers: Any) -> Finding:
    others = sorted(set(answers["phase"].dropna()) - {experiment.phase})
    if others:
        return Finding(
            "phase",
            True,
            f"Arms or shares changed in the middle: phases {', '.join(others)} were served too and "
            f"are left out, "
            "but their units carry what they saw; start a new experiment.",
        )
    return Finding("phase", False, "Arms and shares did not change.")


def _versions(own: Any) -> Finding:
    unknown = own.loc[own["version"].isna() & (own["status"] == "ok"), "arm"].unique()
    if len(unknown):
        return Finding(
            "versions",
            True,
            f"Answers of {', '.join(sorted(unknown))} name no version, so nobody knows what was "
            "served; update the service.",
        )
    numbers = own.groupby("arm")["version"].nunique()
    told = ", ".join(f"{n} in {arm}" for arm, n in numbers.items())
    return Finding("versions", False, f"Versions that answered: {told}.")


def _shares(own: Any, status: str, word: str) -> Finding:
    bad = (own["status"] == status).groupby(own["arm"]).sum()
    table = np.stack([bad, own.groupby("arm").size() - bad])
    p = _independent(table) if table.all(1).any() and table[0].sum() else 1.0
    shares = table[0] / table.sum(0)
    told = ", ".join(f"{share:.2%} in {arm}" for share, arm in zip(shares, bad.index, strict=True))
    if p < ALARM and np.ptp(shares) > SAME / 10:
        return Finding(
            word,
            True,
            f"The arms have other shares of {word} ({told}; p = {p:.1g}), so they differ in more than "
            "their policy; find out why.",
        )
    return Finding(word, False, f"Shares of {word}: {told}.")


def _latency(own: Any) -> Finding:
    p99 = own.groupby("arm")["latency"].quantile(0.99) / 1000
    told = ", ".join(f"{value:.1f} ms in {arm}" for arm, value in p99.items())
    if p99.max() > 1.5 * p99.min() and p99.max() - p99.min() > 10:
        return Finding("latency", True, f"One arm is slower, which users feel as well: p99 is {told}.")
    return Finding("latency", False, f"p99 of the latency: {told}.")


def _early(sample: Sample) -> Finding:
    rows = sample.rows[sample.rows["row"].notna() & (sample.rows["time"] >= sample.start)]
    first = sample.units["first"].to_numpy()[rows["row"].astype(int)]
    early = (rows["time"].to_numpy() < first - SKEW).mean() if len(rows) else 0.0
    if early > SAME:
        return Finding(
            "before assignment",
            True,
            f"{early:.1%} of the rows since the start are older than the assignment of their unit and "
            f"are left "
            "out; they were shown outside of the experiment, or answers are missing.",
        )
    return Finding("before assignment", False, "Rows follow the assignment of their unit.")


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
    if (shares == 0).any() or (p < ALARM and np.ptp(shares) > 0.05):
        return Finding(
            "logging",
            True,
            f"The arms log other shares of their units ({told}); rows of an arm are missing.",
        )
    return Finding("logging", False, f"Units of which something was logged: {told}.")


def _bots(sample: Sample, own: Any) -> Finding:
    requests = own.groupby("unit").size()
    limit = max(BOT * float(requests.quantile(0.99)), MIN_BOT * sample.days)
    if bots := int((requests > limit).sum()):
        share = requests[requests > limit].sum() / requests.sum()
        return Finding(
            "bots",
            True,
            f"{bots:,} units made more requests than a person can ({limit:,.0f}), {share:.1%} of all; "
            "leave them out of the log.",
        )
    return Finding("bots", False, f"No unit made more than {limit:,.0f} requests.")


def _clocks(sample: Sample, own: Any) -> Finding:
    by_request = own.drop_duplicates("request").set_index("request")["time"]
    lag = (sample.rows["time"] - sample.rows["request"].map(by_request)).dropna()
    early = float((lag < -SKEW).mean()) if len(lag) else 0.0
    if early > SAME:
        return Finding(
            "clocks",
            True,
            f"{early:.1%} of the rows are dated more than a minute before the answer that showed "
            "them; set the clocks of the machines that log.",
        )
    return Finding("clocks", False, "Rows are dated after the answers that showed them.")


def _reassigned(sample: Sample, seed: int) -> Finding:
    share = reassign(sample, seed=seed)
    if share > 0.1:
        return Finding(
            "A/A",
            True,
            f"Units assigned at random differ with p < .05 in {share:.1%} of the deals, not in 5 %; "
            "few units make up most of a metric.",
        )
    return Finding("A/A", False, f"Units assigned at random differ with p < .05 in {share:.1%} of the deals.")


def reassign(sample: Sample, deals: int = 1000, seed: int = 0) -> float:
    """Return the largest share over metrics of deals of the units into two halves that differ (p < .05)."""
    rng, shares = np.random.default_rng(seed), []
    tables = [sample.values(metric) for metric in sample.metrics]
    assigned = rng.random((deals, len(sample.units))) < 0.5
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
