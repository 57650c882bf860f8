"""A closed loop: what is a better ranker worth online, and does an experiment find it?

    python benchmarks/loop.py --out runs/loop [--world NAME ...]
        [--design alone|pooled|own|explored|interleaved ...] [--arms NAME ...] [--days N]
    python benchmarks/loop.py --out runs/loop --coverage
    python benchmarks/loop.py --out runs/loop --short

Users of a simulated world visit a service over days. They click, favour, buy and stay by the truth of the
world, and what they do is what the next bundle learns from. The worlds are those of `loop.yaml`, the arms:

- `mmoe`: MMoE with its own inputs; `shared-bottom`: a shared bottom with the inputs of `mgoe`;
- `frozen`, `updated`, `retrained`: `mgoe` that stays as it is, that continues to train every morning, and
  that is trained from scratch every morning;
- `popularity`: the items with the most clicks up to the morning;
- `best`: the items with the highest true chance of a click, which nothing can beat on the first page.

Designs: `alone` gives all users to one arm, each arm in the same world, with the same random numbers. The
comparison of two such runs is the true lift. `pooled` and `own` are experiments in one service, whose arms
learn from what all users did, or from their own users' rows only. Everything else is shared. Two more designs
are played if they are named, with arms of their own:

- `explored`: `frozen-soft` serves all users, and draws every place at a temperature of two standard
  deviations of a user's values. From its answers `mgoe experiment estimate` tells what others would earn:
  `shared-bottom-soft` and `mmoe-soft`, which draw as much; itself; and `frozen`, which takes the best. The
  metric is clicks per list of `/v1/recommend`, on the first page of a session: later ones leave out what the
  session has shown. The truth is what lists of the estimated bundle's snapshot are worth to the same users at
  the same moments, by the true chance of a click. What the arm earns alone, with all users and the same
  random numbers, is printed too. It differs because a service reads the device and live events, and because
  users remember what they were shown, except in the world `null`.
- `interleaved`: `mmoe` and `frozen` make the lists of half of the users together (team draft). The other half
  is in an A/B test of the two, in the same service on the same days.

Metrics: `pctr` is clicks per shown item; `uctr` the share of days with a visit on which a user clicked; `cvr`
purchases per click; `gmv` the value of purchases per user; `stay` seconds per user. A lift is relative to the
first arm, the control.

Finished days are kept, and the same command resumes in the middle of a day. One line per figure:

- `loop.WORLD.alone.ARM.METRIC`: value; `against` that of the control. `.lift`, `.low`, `.high`: true lift for
  these users, and its 95 % interval for others like them;
- `loop.WORLD.alone.ARM.order`: place of the arm by true lift of `pctr`, from 1;
- `loop.WORLD.alone.ARM.coverage`, `.gini`: share of the catalogue that was shown, and how unequally;
- `loop.WORLD.DESIGN.ARM.METRIC.lift`: what the experiment estimates with CUPED; `against` the true lift.
  `.low`, `.high`: its 95 % interval at one look; `.every.low`, `.every.high`: at every look; `.bias`: the
  estimate less the true lift;
- `loop.WORLD.DESIGN.ARM.decided`: 1 if the interval of `pctr` at every look tells the sign of the true lift,
  -1 if it tells the other, 0 if it includes no lift;
- `loop.WORLD.DESIGN.report`: 1 if the report of the experiment takes an arm that is truly better than the
  control, or keeps a control that no arm beats; -1 if it does something else; 0 if it does not decide;
- `loop.WORLD.drawn.METRIC.coverage`, `.coverage_every`, with `--coverage`: the share of 1,000 experiments on
  drawn users in which the interval of `frozen` over `mmoe` holds the true lift (`_every`: at every look).
  `loop.WORLD.same.METRIC.excludes`: the share in which the interval of two equal arms excludes zero;
- `loop.WORLD.explored.ARM.SIZE.METHOD`, of the methods `IPS`, `self-normalised` and `doubly robust`: the
  estimate for an arm from the first SIZE exposures of `frozen-soft`; `against` the truth. `.low`, `.high`:
  its 95 % interval; `.error`: the estimate less the truth. Sizes are 1e4, 1e5 and 1e6 if there are as many,
  and all that there are: the first pages have two fifths of all exposures;
- `loop.WORLD.explored.ARM.SIZE.effective`: lists of its own that the log is worth to the arm, `against` those
  of the log. Fewer than 30, or lists that the log could not show, are refused, which gives 0;
- `loop.WORLD.explored.ARM.SIZE.alone`: what it earns alone; `against` the truth;
- `loop.WORLD.interleaved.ARM.LISTS.share`: share of the users' votes for the arm after so many interleaved
  lists. `.low`, `.high`: its 95 % interval at one look;
- `loop.WORLD.interleaved.ARM.needs.lists`, `.users`, `.days`: how many until the interval excludes one half,
  at that look and all that follow; `against` those of the A/B test until the interval of the lift of `pctr`
  excludes zero;
- `loop.WORLD.interleaved.ARM.sign`: 1 if that interval tells the sign of the true lift of `pctr`, -1 if it
  tells the other, 0 if none; `against` that of the A/B test.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import yaml

from benchmarks.arms import ARMS, EXPLORING, Arm, Served, World, how_of, policy_of, worth
from benchmarks.lifts import (
    FIRST_PAGE,
    LOOKS_PER_DECADE,
    METRICS,
    PRIMARY,
    Array,
    Lift,
    aligned,
    coverage,
    decided,
    estimated,
    lists_of,
    looks_at,
    settled,
    spread,
    sums_of,
    true_lift,
    values_of,
)
from benchmarks.measure import line, size_name
from mgoe.abtest.check import check
from mgoe.abtest.effects import fixed, sequential
from mgoe.abtest.interleaving import preferences
from mgoe.abtest.policy import PolicyEstimate, estimate_policy
from mgoe.abtest.report import make_report
from mgoe.abtest.samples import Sample, collect, read_answers, read_rows
from mgoe.bundle import Bundle
from mgoe.errors import DataError
from mgoe.lifecycle.taken import export
from mgoe.serving.events.answer_log import write_answers
from mgoe.simulation.loop import OUTCOMES, play
from mgoe.simulation.visits import DAY

WORLDS = Path(__file__).with_suffix(".yaml")
DESIGNS = ("alone", "pooled", "own")
"""Played by default."""
MORE_DESIGNS = ("explored", "interleaved")
METHODS = ("IPS", "self-normalised", "doubly robust")
SIZES = (10_000, 100_000, 1_000_000)
"""Exposures of which an estimate is printed, and all that there are."""
MIXED = ("mmoe", "frozen")
"""Arms of the design `interleaved`."""
SHOWN_LOOKS = (0, 6, 14)
"""Looks of a decade that are printed: those at 1, 2 and 5."""
WORLDS_OF_COVERAGE = ("null", "plain")
EXPERIMENTS = 1_000
"""Drawn for a coverage, so that a share of .95 is known within .014."""
SHORT = {"world": ["short"], "arms": ["mmoe", "updated", "best"]}
"""What `--short` measures."""
AFTER = 2 * DAY
"""Microseconds after the last day when no exposure waits for labels any more."""


def worlds_of(out: Path) -> dict[str, World]:
    """Return the worlds by name."""
    raw = yaml.safe_load(WORLDS.read_text())
    return {name: World(name, out / name, given) for name, given in raw.items()}


def played(world: World, arms: Sequence[Arm], design: str, days: range) -> Path:
    """Let a design play its days, or those that are left, and return its folder."""
    folder = world.folder / design / "-".join(arm.name for arm in arms)
    visits = world.visits()
    policy = policy_of(world, arms, folder, days, visits, design)

    def show(over: int, of: int) -> None:
        print(f"{world.name} {design} {folder.name}: day {over} of {of}", file=sys.stderr, flush=True)

    async def run() -> None:
        try:
            await play(visits, policy, folder, days, show, world.features)
        finally:
            await policy.close()

    if not all(file.exists() for file in outcomes(folder, days)):
        asyncio.run(run())
    return folder


def outcomes(folder: Path, days: range) -> list[Path]:
    """Return the files of what happened on days."""
    return [folder / OUTCOMES / f"day-{day:05}.parquet" for day in days]


def alone(world: World, arms: Sequence[Arm], days: range) -> tuple[np.ndarray, dict[str, Array]]:
    """Return all users, and what each did under each arm: numerators and so on of shape (M, U, 3)."""
    sums = {arm.name: sums_of(outcomes(played(world, [arm], "alone", days), days)) for arm in arms}
    users = np.unique(np.concatenate([own for own, _ in sums.values()]))
    before = log_of(world, users)
    return users, {name: values_of(aligned(users, *one), before) for name, one in sums.items()}


def log_of(world: World, users: np.ndarray) -> Array:
    """Return what users did before the loop. Shape (U, S)."""
    own, sums = sums_of([world.log], logged=True)
    known = np.isin(own, users)
    return aligned(users, own[known], sums[known])


def values_of_arms(
    world: World, arms: Sequence[Arm], files: Sequence[Path], where: str = "true"
) -> dict[str, Array]:
    """Return what the users of each arm of an experiment did, as of `values_of`.

    The covariate of a ratio goes by the ratio of the users of all arms, so that it tells the arms apart.
    """
    sums = {arm.name: sums_of(files, f"arm = '{arm.name}' AND {where}") for arm in arms}
    users = np.unique(np.concatenate([own for own, _ in sums.values()]))
    before = log_of(world, users)
    return {
        name: values_of(aligned(users, *one), before)[:, np.isin(users, one[0])] for name, one in sums.items()
    }


def show_alone(world: World, values: Mapping[str, Array], days: range) -> dict[str, Lift]:
    """Print the figures of arms that each had all users, and return their true lifts."""
    control, *_ = values.values()
    lifts = {name: true_lift(control, one) for name, one in values.items()}
    place = [*METRICS].index(PRIMARY)
    order = sorted(values, key=lambda name: -lifts[name].value[place])
    ends = world.visits()
    alive = np.unique(np.concatenate([ends.alive(day) for day in days]))
    for name, one in values.items():
        start = f"loop.{world.name}.alone.{name}"
        for m, metric in enumerate(METRICS):
            totals, base = (each[m, :, :2].sum(0) for each in (one, control))
            line(f"{start}.{metric}", totals[0] / totals[1], "1", base[0] / base[1])
            if name != next(iter(values)):
                for part, number in zip(("lift", "low", "high"), lifts[name], strict=True):
                    line(f"{start}.{metric}.{part}", number[m], "1")
        line(f"{start}.order", order.index(name) + 1, "1")
        share, gini = spread(outcomes(world.folder / "alone" / name, days), len(alive))
        line(f"{start}.coverage", share, "1")
        line(f"{start}.gini", gini, "1")
    return lifts


def show_together(
    world: World, arms: Sequence[Arm], design: str, days: range, lifts: Mapping[str, Lift]
) -> None:
    """Play an experiment, and print what it estimates beside the true lifts."""
    folder = played(world, arms, design, days)
    values = values_of_arms(world, arms, outcomes(folder, days))
    control = values[arms[0].name]
    place = [*METRICS].index(PRIMARY)
    for arm in arms[1:]:
        effect, start = estimated(control, values[arm.name]), f"loop.{world.name}.{design}.{arm.name}"
        once, every = (
            fixed(effect.lift, effect.lift_variance),
            sequential(effect.lift, effect.lift_variance, 1.0),
        )
        truth = lifts[arm.name].value
        for m, metric in enumerate(METRICS):
            line(f"{start}.{metric}.lift", effect.lift[m], "1", truth[m])
            for when, bounds in (("", once), (".every", every)):
                for side, bound in zip(("low", "high"), bounds, strict=True):
                    line(f"{start}.{metric}{when}.{side}", bound[m], "1")
            line(f"{start}.{metric}.bias", effect.lift[m] - truth[m], "1")
        line(f"{start}.decided", decided(every[0][place], every[1][place], truth[place]), "1")
    better = {arm.name for arm in arms[1:] if lifts[arm.name].value[place] > 0}
    decision = decision_of(world, arms, folder, days, design)
    print(f"{world.name} {design}: {decision}", file=sys.stderr)
    line(f"loop.{world.name}.{design}.report", judged(decision, better), "1")


def logged(
    world: World, arms: Sequence[Arm], folder: Path, days: range, design: str
) -> tuple[Served, Path, Path]:
    """Write the answers of a service, and the exposures with their labels, as a shop would export them."""
    served = policy_of(world, arms, folder, days, world.visits(), design)
    assert isinstance(served, Served)
    answers, rows = folder / "answers.parquet", folder / "rows.parquet"
    write_answers(served.state, answers)
    bundle, end = world.trained(str(arms[0].model)), world.visits().start_of(days.stop)
    export(bundle, served.state, rows, "exposures", now=end + AFTER)
    return served, answers, rows


def sample_of(
    world: World, arms: Sequence[Arm], folder: Path, days: range, design: str
) -> tuple[Any, Sample]:
    """Return an experiment, and what its service has logged."""
    served, answers, rows = logged(world, arms, folder, days, design)
    columns, experiment = Bundle.open(world.trained(str(arms[0].model))).settings, served.experiment
    return experiment, collect(
        experiment, columns, read_answers(answers, experiment.id), read_rows(columns, [str(rows)])
    )


def decision_of(world: World, arms: Sequence[Arm], folder: Path, days: range, design: str) -> str:
    """Return the decision of the experiment's report, from what the service has logged."""
    experiment, sample = sample_of(world, arms, folder, days, design)
    # how fast arms answer depends on the machine and what else it does, and is no part of the world
    findings = [one for one in check(experiment, sample) if one.name != "latency"]
    return make_report(experiment, sample, findings, "click per exposure").decision


def judged(decision: str, better: set[str]) -> int:
    """Return 1 for a right decision of a report, -1 for a wrong one, and 0 for none.

    Args:
        decision: Its sentence.
        better: Arms that are truly better than the control.

    Example:
        >>> [judged(said, {"new"}) for said in ("Take new: +1 %", "Keep the control: -1 %", "Wait: new")]
        [1, -1, 0]
    """
    if decision.startswith("Take "):
        return 1 if decision.removeprefix("Take ").split(":")[0] in better else -1
    if decision.startswith("Keep the control"):
        return -1 if better else 1
    return 0


def show_explored(world: World, days: range) -> None:
    """Print what bundles would earn by the answers of an arm that explored, beside what they do earn."""
    log = EXPLORING[0]
    folder = played(world, [log], "explored", days)
    _, answers, rows = logged(world, [log], folder, days, "explored")
    lists = read_answers(answers).sort_values("time", kind="stable")
    lists = lists[lists["request"].str.endswith(FIRST_PAGE)]
    exposures = lists["items"].map(len).cumsum().to_numpy()
    shown = {
        request: world.truth.item_ids.index(items)
        for request, items in lists_of(outcomes(folder, days), "item_id").items()
    }
    for target in EXPLORING:
        path, start = world.trained(str(target.model)), f"loop.{world.name}.explored.{target.name}"
        found = dict[int, PolicyEstimate]()
        for size in [*(size for size in SIZES if size < exposures[-1]), int(exposures[-1])]:
            own = lists[exposures <= size]
            try:
                found[size] = estimate_policy(Bundle.open(path), own, [str(rows)], how_of(target, path))
            except DataError as error:
                print(f"{start}.{size_name(size)}: {error}", file=sys.stderr)
            line(
                f"{start}.{size_name(size)}.effective",
                found[size].effective if size in found else 0,
                "1",
                len(own),
            )
        if not found:
            continue
        clicks = lists_of(outcomes(played(world, [target], "explored", days), days), "click")
        true = worth(world, shown, days, target)
        for size, one in found.items():
            requests = lists["request"][exposures <= size]
            show_estimates(
                f"{start}.{size_name(size)}",
                one,
                float(np.mean([true[request] for request in requests])),
                float(np.mean([sum(clicks[request]) for request in requests if request in clicks])),
            )


def show_estimates(start: str, found: PolicyEstimate, true: float, alone: float) -> None:
    """Print the estimates of clicks per list, beside what it truly is."""
    line(f"{start}.alone", alone, "1", true)
    for one in found.estimates:
        if one.task == "click" and one.method in METHODS:
            line(f"{start}.{one.method}", one.value, "1", true)
            for side, bound in zip(("low", "high"), one.interval, strict=True):
                line(f"{start}.{one.method}.{side}", bound, "1")
            line(f"{start}.{one.method}.error", one.value - true, "1")


def show_interleaved(world: World, days: range) -> None:
    """Print which of two arms interleaved lists prefer, and how much sooner than an A/B test."""
    arms = [ARMS[name] for name in MIXED]
    lift = true_lift(*alone(world, arms, days)[1].values()).value[[*METRICS].index(PRIMARY)]
    folder = played(world, arms, "interleaved", days)
    experiment, sample = sample_of(world, arms, folder, days, "interleaved")
    files = outcomes(folder, days)

    def votes(time: int) -> tuple[float, float, float]:
        """Return the share of the votes up to a time, less one half."""
        answers, rows = (part[part["time"] <= time] for part in (sample.answers, sample.rows))
        of_all = preferences(experiment, replace(sample, answers=answers, rows=rows))
        clicks = [(one.share, *one.interval) for one in of_all if one.task == "click"]
        share, low, high = clicks[0] if clicks else (0.5, 0.0, 1.0)
        return share - 0.5, low - 0.5, high - 0.5

    def lifts(time: int) -> tuple[float, float, float]:
        """Return the lift of the A/B test up to a time."""
        values = values_of_arms(world, arms, files, f"time <= make_timestamp({time})").values()
        with np.errstate(invalid="ignore", divide="ignore"):
            effect = estimated(*values)
            bounds = fixed(effect.lift, effect.lift_variance)
        place = [*METRICS].index(PRIMARY)
        low, high = (float(bound[place]) for bound in bounds)
        return float(effect.lift[place]), low, high

    is_mixed = sample.answers["teams"].notna()
    by_votes = looks_at(sample.answers[is_mixed], votes)
    by_lift = looks_at(sample.answers[~is_mixed], lifts)
    start, first = f"loop.{world.name}.interleaved.{arms[1].name}", world.visits().start_of(days.start)
    for number, one in enumerate(by_votes):
        if number % LOOKS_PER_DECADE in SHOWN_LOOKS or one is by_votes[-1]:
            for part, value in (("share", one.value), ("low", one.low), ("high", one.high)):
                line(f"{start}.{one.lists}.{part}", value + 0.5, "1")
    needs = []
    for every in (by_votes, by_lift):
        number = settled(every)
        one = every[number] if number < len(every) else None
        needs.append((one.lists, one.users, (one.time - first) / DAY) if one else (np.nan,) * 3)
    for part, unit, value, of_test in zip(
        ("lists", "users", "days"), ("1", "1", "days"), *needs, strict=True
    ):
        line(f"{start}.needs.{part}", value, unit, of_test)
    signs = [decided(every[-1].low, every[-1].high, lift) for every in (by_votes, by_lift)]
    line(f"{start}.sign", signs[0], "1", signs[1])


def show_coverage(world: World, days: range) -> None:
    """Print how often intervals hold the true lift of two arms that do not learn, and differ for one arm."""
    _, values = alone(world, [ARMS["mmoe"], ARMS["frozen"]], days)
    rng = np.random.default_rng(0)
    control, treated = values.values()
    different = coverage(control, treated, EXPERIMENTS, rng)
    same = coverage(treated, treated, EXPERIMENTS, rng)
    for m, metric in enumerate(METRICS):
        line(f"loop.{world.name}.drawn.{metric}.coverage", different.fixed[m], "1", 0.95)
        line(f"loop.{world.name}.drawn.{metric}.coverage_every", different.sequential[m], "1", 0.95)
        line(f"loop.{world.name}.same.{metric}.excludes", same.excludes_zero[m], "1", 0.05)


def main(arguments: Sequence[str] | None = None) -> None:
    """Play what is left, and print every figure."""
    asked = _parser().parse_args(arguments)
    if asked.short:
        vars(asked).update(SHORT)
    logging.getLogger("mgoe").setLevel(logging.ERROR)
    worlds = worlds_of(asked.out)
    names = asked.world or (
        WORLDS_OF_COVERAGE if asked.coverage else [name for name in worlds if name != "short"]
    )
    arms = [ARMS[name] for name in asked.arms]
    for world in (worlds[name] for name in names):
        days = range(world.first, world.first + min(asked.days or 1_000, world.given["loop"]))
        if asked.coverage:
            show_coverage(world, days)
            continue
        if {*asked.design} & {*DESIGNS}:
            _, values = alone(world, arms, days)
            lifts = show_alone(world, values, days)
            served = [arm for arm in arms if arm.model]
            for design in asked.design:
                if design in DESIGNS[1:] and len(served) > 1:
                    show_together(world, served, design, days, lifts)
        if "explored" in asked.design:
            show_explored(world, days)
        if "interleaved" in asked.design:
            show_interleaved(world, days)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of everything, resumed if it exists")
    parser.add_argument(
        "--world", nargs="*", choices=yaml.safe_load(WORLDS.read_text()), help="all by default"
    )
    parser.add_argument(
        "--design",
        nargs="*",
        choices=DESIGNS + MORE_DESIGNS,
        default=DESIGNS,
        help="the first three by default",
    )
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=[*ARMS], help="the control first")
    parser.add_argument("--days", type=int, help="of the loop; those of the world by default")
    parser.add_argument("--coverage", action="store_true", help="intervals of drawn experiments instead")
    parser.add_argument("--short", action="store_true", help="three days of a small world, with three arms")
    return parser


if __name__ == "__main__":
    main()
