"""`graph build`, `graph describe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgoe.cli.show import Config, Json, Overwrite, Set, examples, facts, say, show, show_json
from mgoe.cli.stages import Out

graph = typer.Typer(help="The macro graph: build it, or look at one.", no_args_is_help=True)


@graph.command(
    epilog=examples("mgoe graph build mine.yaml --out runs/mine", "mgoe graph build mine.yaml --set graph.beta=0 --out runs/beta0")
)
def build(config: Config, out: Out, sets: Set = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """Prepare the log and build its macro graph in OUT/graph; `run` with the same --out goes on from there."""
    from mgoe import pipeline
    from mgoe.config import load_settings

    built = pipeline.macro_graph(load_settings(config, sets or ()), out, overwrite=overwrite, say=say)
    _show(built.describe(), as_json)


@graph.command(epilog=examples("mgoe graph describe runs/mine", "mgoe graph describe runs/mine/graph --json"))
def describe(
    path: Annotated[Path, typer.Argument(metavar="GRAPH", help="A graph, or the run or bundle that holds one.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Sizes, edges and balance of the latest snapshot, and the seconds of the build."""
    from mgoe.graph import MacroGraph

    inner = path / "graph"
    _show(MacroGraph.open(inner if inner.is_dir() else path).describe(), as_json)


def _show(description: dict, as_json: bool) -> None:
    if as_json:
        show_json(description)
    else:
        show(facts(description))
