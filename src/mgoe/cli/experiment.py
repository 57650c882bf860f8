"""`experiment plan`, `check`, `report` and `estimate`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mgoe
from mgoe.cli.shared import BundlePath, Json, examples, show, show_json, table
from mgoe.errors import ConfigError

if TYPE_CHECKING:
    from mgoe.abtest.samples import Sample
    from mgoe.config.experiment import ExperimentSettings

ALARM = 1
"""Exit code of a check with an alarm."""
experiment = typer.Typer(help="Experiments on real users: two policies, measured.", no_args_is_help=True)
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The experiment that was served.", show_default=False)
]
Answers = Annotated[Path, typer.Option(help="Parquet file of `mgoe answers`.", show_default=False)]
Log = Annotated[
    list[str],
    typer.Option(
        help="What users did: files of `mgoe exposures` or `mgoe events`. Repeatable.", show_default=False
    ),
]
Served = Annotated[
    Path,
    typer.Option("--bundle", help="A bundle of the tasks and columns of the log.", show_default=False),
]


@experiment.command(
    epilog=examples("mgoe experiment plan bundles/current --log exposures.parquet --lift 0.02")
)
def plan(
    bundle: BundlePath,
    log: Log,
    lift: Annotated[float, typer.Option(min=1e-6, help="Effect to find, as a share of the metric.")] = 0.05,
    as_json: Json = False,
) -> None:
    """Show which effects experiments of several lengths find, from what users did before."""
    from mgoe.abtest.plan import make_plans, verdicts
    from mgoe.abtest.samples import read_rows

    settings = mgoe.load(bundle).settings
    plans = make_plans(settings, read_rows(settings, log), lift)
    if as_json:
        show_json([asdict(one) for one in plans])
        return
    lines = table(("metric", "days", "units", "detectable", "with CUPED", "at every look", "units needed"))
    for one in plans:
        lifts = (f"{part:.2%}" for part in (one.detectable, one.with_cuped, one.at_every_look))
        lines.add_row(one.metric, str(one.days), f"{one.units:,}", *lifts, f"{one.needed:,}")
    show(lines)
    for sentence in verdicts(plans, lift):
        show(sentence)


@experiment.command(
    epilog=examples(
        "mgoe experiment check ab.yaml --answers answers.parquet --log exposures.parquet "
        "--bundle bundles/current"
    )
)
def check(file: File, answers: Answers, log: Log, bundle: Served, as_json: Json = False) -> None:
    """Say whether the data of an experiment can be trusted. Exit code 1 if an alarm stands."""
    from mgoe.abtest.check import check as check_sample

    findings = check_sample(*_sample(file, answers, log, bundle))
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            show(f"{'ALARM' if finding.alarm else 'ok'}: {finding.sentence}")
    if any(finding.alarm for finding in findings):
        raise typer.Exit(ALARM)


@experiment.command(
    epilog=examples(
        "mgoe experiment report ab.yaml --answers answers.parquet --log exposures.parquet "
        "--bundle bundles/current --out report.html"
    )
)
def report(
    file: File,
    answers: Answers,
    log: Log,
    bundle: Served,
    metric: Annotated[str | None, typer.Option(help="The metric that decides.", show_default=False)] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=SHARE", help="It must not fall by more than this share. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML page to write.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show what an experiment found, and whether one can decide."""
    from mgoe.abtest.check import check as check_sample
    from mgoe.abtest.report import make_report, write_page

    settings, sample = _sample(file, answers, log, bundle)
    found = make_report(
        settings, sample, check_sample(settings, sample), metric, dict(map(_guard, guard or []))
    )
    if out is not None:
        write_page(found, out)
    if as_json:
        show_json(asdict(found))
        return
    lines = table(("metric", "arm", "lift", "at every look", "always-valid p"), left=2)
    for line in found.lines:
        name, bounds = line.metric + ", CUPED" * line.cuped, "{:+.2%} to {:+.2%}".format(*line.sequential)
        lines.add_row(name, line.arm, f"{line.lift:+.2%}", bounds, f"{line.always_valid_p:.3g}")
    show(lines)
    show(found.primary_reason)
    for one in found.interleaving:
        show(one.sentence)
    show(found.decision)


@experiment.command(
    epilog=examples(
        "mgoe experiment estimate bundles/next --answers answers.parquet --log exposures.parquet "
        "--experiment ab.yaml --arm daily"
    )
)
def estimate(
    bundle: BundlePath,
    answers: Answers,
    log: Log,
    file: Annotated[
        Path | None,
        typer.Option("--experiment", metavar="FILE", help="An experiment with --arm.", show_default=False),
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Explore as this arm; without it, show the best.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate what a bundle's lists would have earned, from answers that explored."""
    from mgoe.abtest.policy import estimate_policy
    from mgoe.abtest.samples import read_answers
    from mgoe.config import did_you_mean, load_experiment

    if (file is None) != (arm is None):
        raise ConfigError("--arm", "and --experiment belong together, found one of them; give both")
    arms = {} if file is None else {one.name: one.explore for one in load_experiment(file).arms}
    if arm is not None and arm not in arms:
        raise ConfigError("--arm", f"must be an arm of {file}, found {arm!r}{did_you_mean(arm, list(arms))}")
    found = estimate_policy(mgoe.load(bundle), read_answers(answers), log, arms[arm] if arm else None)
    if as_json:
        show_json(asdict(found))
        return
    lines = table(("task", "method", "per list", "interval"), left=2)
    for one in found.estimates:
        lines.add_row(one.task, one.method, f"{one.value:.4g}", "{:.4g} to {:.4g}".format(*one.interval))
    show(lines)
    show(
        f"{found.lists:,} lists of {found.users:,} users are worth {found.effective:,.0f} of the bundle's "
        f"own; {found.left_out:,} that it has learned, or that are newer than the log, are left out."
    )


def _guard(text: str) -> tuple[str, float]:
    """Read the option of a guard rail."""
    name, _, share = text.rpartition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ConfigError(
            "--guard", f"must be METRIC=SHARE, found {text!r}; write it as in 'click per unit=0.01'"
        ) from None


def _sample(file: Path, answers: Path, log: list[str], bundle: Path) -> "tuple[ExperimentSettings, Sample]":
    """Read an experiment and what its units did."""
    from mgoe.abtest.samples import collect, read_answers, read_rows
    from mgoe.config import load_experiment

    settings = load_experiment(file)
    columns = mgoe.load(bundle).settings
    return settings, collect(settings, columns, read_answers(answers, settings.id), read_rows(columns, log))
