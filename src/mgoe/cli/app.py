"""The root command: every command with its examples, and how commands end.

A user's mistake ends in one sentence and code 2, an interrupt with a hint how to resume.
"""

import gc
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mgoe._util.progress import hidden, shown
from mgoe.cli import (
    bundles,
    configuration,
    demo,
    doctor,
    experiment,
    graph,
    logs,
    recommendations,
    registry,
    run,
    service,
)
from mgoe.cli.shared import examples
from mgoe.errors import MgoeError, ReportedByPeer

MISTAKE, INTERRUPTED, TERMINATED = 2, 130, 143
"""Exit codes; the last two are what shells give to SIGINT and SIGTERM."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C so that unfinished files are removed."""


class Root(TyperGroup):
    """The group of all commands. An error that is no `MgoeError` is a defect and keeps its traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read --quiet before the command or among its options."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, sorted(args[:end], key=lambda word: word != "--quiet") + args[end:])

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with _terminable():
                return super().invoke(ctx)
        except ReportedByPeer:
            raise typer.Exit(MISTAKE) from None
        except MgoeError as error:
            typer.echo(f"mgoe: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt as stop:
            if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0":
                typer.echo(  # once, whatever the number of processes
                    "mgoe: stopped; what was finished is kept, and the same command (without --overwrite) "
                    "resumes from there",
                    err=True,
                )
            raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from None


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


app = typer.Typer(
    cls=Root,
    name="mgoe",
    help="Train, benchmark and serve multi-task rankers from behaviour logs, using a compact graph of "
    "user and item groups.",
    epilog=examples(
        "mgoe demo                              [dim]a first run on a simulated log[/]",
        "mgoe init clicks.parquet -o mine.yaml  [dim]a configuration for your log, with comments[/]",
        "mgoe run mine.yaml --out runs/mine     [dim]bundle, table and report[/]",
        "mgoe predict runs/mine/bundle pairs.parquet --out scores.parquet",
        "mgoe COMMAND --help                    [dim]help of each command, with examples[/]",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from mgoe import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001, its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print results and errors alone, with any command.")
    ] = False,
) -> None:
    """Show the version, or run a command."""
    gc.set_threshold(100_000, 50, 100)  # what a command imports and compiles is no garbage to search
    # the kind and the text of a warning, without the line of code that Python adds
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    context.with_resource(hidden() if quiet else shown("stderr"))


COMMANDS = {
    "Start": {
        demo.demo: (
            "mgoe demo                       [dim]in the folder mgoe-demo[/]",
            "mgoe demo --out runs/demo",
        ),
        logs.init: (
            "mgoe init clicks.parquet --out mine.yaml",
            "mgoe init 'logs/2025-*.csv' > mine.yaml",
            "mgoe init clicks.parquet --items items.csv > mine.yaml   [dim]with features of items[/]",
        ),
        logs.describe: (
            "mgoe describe clicks.parquet         [dim]columns guessed as by init[/]",
            "mgoe describe mine.yaml --json       [dim]columns as configured[/]",
            "mgoe describe runs/mine/bundle",
        ),
        configuration.schema: (
            "mgoe schema > mgoe.schema.json",
            "mgoe schema comparison              [dim]of the file of `mgoe compare`[/]",
        ),
        doctor.doctor: (
            "mgoe doctor",
            "mgoe doctor --json",
        ),
    },
    "Data and graph": {
        logs.simulate: (
            "mgoe simulate --out runs/demo-log",
            "mgoe simulate --out big --users 1000000 --items 200000 --events 100000000 --form events",
            "mgoe simulate --out steep --set popularity=1.2 --set days=90 --seed 3",
            "mgoe simulate --serve runs/mine/bundle --world runs/demo-log --days 3 --out runs/days",
        ),
    },
    "Train and evaluate": {
        run.plan: (
            "mgoe plan mine.yaml",
            "mgoe plan mine.yaml --out /big/runs/mine --set memory=2 --set training.epochs=1",
            "mgoe plan mine.yaml --force         [dim]prints also what this machine cannot hold[/]",
        ),
        run.run: (
            "mgoe run mine.yaml --out runs/mine",
            "mgoe run examples/tmall.yaml --set data.log=tmall.parquet --set seeds=0 --out runs/tmall",
            "mgoe run mine.yaml --out runs/mine --overwrite --jobs 2",
            "mgoe run mine.yaml --out runs/mine --tune 10m                  [dim]searches settings before[/]",
            "mgoe run mine.yaml --out runs/mine --incumbent scores.parquet  [dim]beside a ranker's scores[/]",
        ),
        run.train: (
            "mgoe train mine.yaml --out runs/mine",
            "mgoe train mine.yaml --out runs/mine --model mmoe --seed 3",
            "torchrun --nproc-per-node 4 -m mgoe train mine.yaml --out runs/mine",
        ),
        bundles.evaluate: (
            "mgoe evaluate runs/mine",
            "mgoe evaluate runs/mine --slice unseen-users",
            "mgoe evaluate runs/mine/bundle --json",
            "mgoe evaluate runs/mine/bundle labelled.parquet   [dim]columns user_id, item_id, click, buy[/]",
        ),
        run.rows: (
            "mgoe rows runs/mine --out test.parquet",
            "mgoe rows runs/mine --split valid --out valid.csv",
        ),
        run.compare: (
            "mgoe compare examples/arena-worlds.yaml --out runs/worlds",
            "mgoe compare arena-tmall.yaml --set logs.tmall.data.log=tmall.parquet --out runs/arena --jobs 2",
            "mgoe compare arena.yaml --out runs/arena --models mgoe,mmoe --seeds 0,1 --stop-after 90m",
        ),
    },
    "Score and serve": {
        bundles.predict: (
            "mgoe predict runs/mine/bundle pairs.parquet --out scores.parquet",
            "mgoe predict runs/mine/bundle 'pairs/*.csv' > scores.csv",
            "mgoe predict runs/mine/bundle pairs.parquet --out scores.parquet --jobs 4",
            "mgoe predict runs/mine/bundle s3a://logs/pairs --out s3a://logs/scores --engine spark",
        ),
        recommendations.recommend: (
            "mgoe recommend runs/mine/bundle 42",
            "mgoe recommend runs/mine/bundle 42 43 --objective 'click * buy^2' --exclude-known",
            "mgoe recommend runs/mine/bundle 42 -k 50 --at-least click=0.01 --state state --json",
            "mgoe recommend runs/mine/bundle 42 --where category=shoes --max-per brand=2",
            "mgoe recommend runs/mine/bundle --users users.parquet --out tomorrow.parquet",
        ),
        service.serve: (
            "mgoe serve runs/mine/bundle                [dim]on this machine alone: http://127.0.0.1:8000[/]",
            "mgoe serve runs/mine/bundle --host 0.0.0.0 --token-file tokens --workers 4",
            "mgoe serve bundles/current --redis redis://10.0.0.5:6379/0",
            "mgoe serve bundles/frozen --experiment experiment.yaml",
        ),
        bundles.export: (
            "mgoe export runs/mine/bundle --onnx mine.onnx",
            "mgoe export runs/mine/bundle --onnx mine.onnx --on labelled.parquet",
        ),
    },
    "Daily loop": {
        service.update: (
            "mgoe update runs/mine/bundle --state state --out bundles/today",
            "mgoe update bundles/today --redis redis://store:6379 --out bundles/next",
            "mgoe update bundles/today --log today.parquet --out bundles/next --weights continue",
            "mgoe update bundles/today --log today.parquet --out bundles/next --weights new",
            "torchrun --nproc-per-node 2 -m mgoe update bundles/today --state state --out bundles/next "
            "--weights continue",
        ),
        service.events: (
            "mgoe events runs/mine/bundle --state state --out logs/taken.parquet",
            "mgoe events bundles/today --redis redis://store:6379 --out logs/monday.parquet --new",
        ),
        service.exposures: (
            "mgoe exposures runs/mine/bundle --state state --out logs/taken.parquet",
            "mgoe graph update runs/mine logs/taken.parquet   [dim]as any other exposures[/]",
        ),
        service.answers: ("mgoe answers bundles/frozen.state --out logs/answers.parquet",),
        registry.cycle: (
            "mgoe cycle cycle.yaml",
            "mgoe cycle cycle.yaml --set registry=bundles --set log=logs/events",
        ),
        registry.erase: (
            "mgoe erase --registry bundles --user 4711",
            "mgoe erase --registry bundles --users ids.txt --redis redis://store:6379 --log 'logs/*.parquet'",
            "mgoe erase --registry bundles            [dim]again, after a backup was restored[/]",
            "mgoe erase --registry bundles --verify   [dim]what remains of all who were erased[/]",
        ),
    },
}
"""Panel of `mgoe --help` to its commands, each with examples. Groups of commands come after them."""
for _panel, _commands in COMMANDS.items():
    for _command, _examples in _commands.items():
        app.command(epilog=examples(*_examples), rich_help_panel=_panel)(_command)
app.add_typer(logs.data, name="data", rich_help_panel="Data and graph")
app.add_typer(graph.graph, name="graph", rich_help_panel="Data and graph")
app.add_typer(configuration.models, name="models", rich_help_panel="Train and evaluate")
app.add_typer(service.log, name="log", rich_help_panel="Daily loop")
app.add_typer(experiment.experiment, name="experiment", rich_help_panel="Daily loop")
app.add_typer(registry.registry, name="registry", rich_help_panel="Daily loop")
