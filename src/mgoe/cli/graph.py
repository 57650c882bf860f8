"""`graph build`, `graph describe`, `graph update`, `graph forget`."""

from pathlib import Path
from typing import Annotated

import typer

from mgoe import experiments, lifecycle
from mgoe.cli.shared import Config, Json, Out, Overwrite, Set, examples, logger, show_facts

graph = typer.Typer(
    help="The macro graph: build it, describe one, add new events, remove users.", no_args_is_help=True
)
Graph = Annotated[
    Path, typer.Argument(metavar="GRAPH", help="A graph, or the run that holds it.", show_default=False)
]


@graph.command(
    epilog=examples(
        "mgoe graph build mine.yaml --out runs/mine",
        "mgoe graph build mine.yaml --set graph.snapshots=last --out runs/all  [dim]the whole log[/]",
        "mgoe graph build mine.yaml --set memory=8 --set graph.beta=0.5 --out runs/beta",
    )
)
def build(
    config: Config, out: Out, sets: Set = None, overwrite: Overwrite = False, as_json: Json = False
) -> None:
    """Build the macro graph of a log in OUT/graph, or resume. `run` with the same --out uses it."""
    from mgoe.data import read_settings

    built = experiments.macro_graph(read_settings(config, sets or ()), out, overwrite=overwrite)
    show_facts(built.describe(), as_json)


@graph.command(
    epilog=examples(
        "mgoe graph describe runs/mine",
        "mgoe graph describe runs/mine/graph --json",
        "mgoe graph describe runs/mine --plot graph.html  [dim]macro nodes, edges and sizes as pictures[/]",
        "mgoe graph describe runs/mine --check            [dim]compare every file with its checksum[/]",
    )
)
def describe(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="GRAPH", help="A graph, or the run or bundle that holds one.", show_default=False
        ),
    ],
    plot: Annotated[
        Path | None, typer.Option(help="Write an HTML page with plots to this file.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare every file with its checksum.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a graph was built from, its sizes, edges, balance and drift, and what the build took."""
    found = experiments.open_graph(path)
    if check:
        found.verify()
    if plot is not None:
        experiments.write_graph_page(found, plot)
        logger.info(f"wrote {plot}")
    show_facts(found.describe(), as_json)


@graph.command(
    epilog=examples(
        "mgoe graph update runs/mine/graph today.parquet",
        "mgoe graph update runs/mine 'logs/2025-06-*.parquet' --recluster",
        "mgoe graph update runs/mine --recluster   [dim]the same events, new macro nodes[/]",
    )
)
def update(
    path: Graph,
    log: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOG...",
            help="Files, folders or globs that hold only the new events.",
            show_default=False,
        ),
    ] = None,
    recluster: Annotated[
        bool,
        typer.Option(
            "--recluster",
            help="Learn macro nodes again. They keep the numbers of the former ones with the same members.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Add new events to the latest snapshot, as a rebuild that keeps the macro nodes would."""
    from mgoe.graph import DRIFT_LIMIT

    updated = lifecycle.update_macro_graph(path, log or (), recluster=recluster)
    change = updated.manifest.changes[-1]
    if change["late_pairs"]:
        logger.info(
            f"  {change['late_pairs']:,} pairs have events from before the latest window, which earlier "
            "snapshots lack"
        )
    if updated.drift > DRIFT_LIMIT:
        logger.info(
            f"  drift {updated.drift:.3f} is above {DRIFT_LIMIT}: learn macro nodes again with "
            f"`mgoe graph update {path} --recluster`"
        )
    show_facts(updated.describe(), as_json)


@graph.command(
    epilog=examples(
        "mgoe graph forget runs/mine/graph --user 4711", "mgoe graph forget runs/mine --user 4711 --user 4712"
    )
)
def forget(
    path: Graph,
    user: Annotated[list[str], typer.Option(help="Id of a user. Repeatable.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Remove users from every snapshot, as if they had never been there."""
    show_facts(lifecycle.forget_in_macro_graph(path, user).describe(), as_json)
