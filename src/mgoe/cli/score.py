"""`evaluate`, `predict`, `recommend`: how good a model is, and what it predicts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgoe.cli.options import BundlePath, Json
from mgoe.cli.show import say, show, show_json, show_leads, table

if TYPE_CHECKING:
    from mgoe.bundle import Bundle

State = Annotated[
    str | None,
    typer.Option(
        metavar="STATE|REDIS",
        help="Add the live events of a service: its --state folder, or redis://...",
        show_default=False,
    ),
]


def evaluate(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|RUN", help="A bundle, or the --out of a run, finished or not.", show_default=False
        ),
    ],
    pairs: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAIRS]",
            help="Pairs to measure a bundle on, with one 0/1 (or value) column per task.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="`valid`, or `test`, the default.", show_default=False)
    ] = None,
    part: Annotated[
        str, typer.Option("--slice", help="`all`, or a slice of the examples such as `new-pairs`.")
    ] = "all",
    as_json: Json = False,
) -> None:
    """Show what was measured, or measure a bundle on new labelled pairs."""
    from mgoe import experiments
    from mgoe.bundle import Bundle
    from mgoe.config import did_you_mean
    from mgoe.errors import ConfigError
    from mgoe.evaluation import rich_table

    if pairs is not None:
        if split is not None:
            raise ConfigError(
                "--split", "is a split of the log, and the pairs are a file of their own; leave it out"
            )
        rows, split = experiments.measure_pairs(Bundle.open(path), pairs), "new"
    else:
        rows, split = experiments.measured(path), split or "test"
    for option, value, name in (("--split", split, "split"), ("--slice", part, "slice")):
        valid = sorted({row[name] for row in rows})
        if value not in valid:
            raise ConfigError(option, f"{value!r} was not measured{did_you_mean(value, valid)}")
    leads = experiments.leads(path) if (split, part) == ("test", "all") else []
    if as_json:
        chosen = [row for row in rows if (row["split"], row["slice"]) == (split, part)]
        show_json({"metrics": chosen, "leads": [asdict(lead) for lead in leads]})
        return
    show(rich_table(rows, split=split, slice=part))
    show_leads(leads)


def predict(
    bundle: BundlePath,
    pairs: Annotated[
        str,
        typer.Argument(
            metavar="PAIRS", help="Parquet or CSV file, folder or glob with the log's user and item columns."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Scores as .parquet or .csv; standard output, as CSV, by default."),
    ] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Score pairs: one row per pair, one probability (or value) per task."""
    import pyarrow.csv as csv

    from mgoe import experiments

    opened = _opened(bundle, state)
    if out is not None:
        rows = experiments.write_scores(opened, pairs, out)
        if as_json:
            show_json({"path": str(out), "rows": rows, "tasks": opened.tasks})
        else:
            say(f"{rows:,} pairs scored: {out}")
        return
    blocks = experiments.score_pairs(opened, pairs)
    if as_json:
        show_json([row for block in blocks for row in block.to_pylist()])
        return
    for number, block in enumerate(blocks):
        csv.write_csv(block, typer.get_binary_stream("stdout"), csv.WriteOptions(include_header=number == 0))


def recommend(
    bundle: BundlePath,
    user: Annotated[str, typer.Argument(metavar="USER", help="An id, as in the log.")],
    k: Annotated[int, typer.Option("--k", "-k", help="Number of items.")] = 10,
    task: Annotated[
        str | None,
        typer.Option(help="Task to rank by; the strongest binary task by default.", show_default=False),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Leave out items the user has a history with.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show the best items of the whole catalogue for a user."""
    found = _opened(bundle, state).recommend(user, k, task, exclude_known=new)
    if as_json:
        show_json(found.to_dict("records"))
        return
    columns = [str(column) for column in found.columns]
    lines = table(columns, left=columns.index("item") + 1)
    for item, *values in found.itertuples(index=False):
        lines.add_row(str(item), *(f"{value:.4g}" for value in values))
    show(lines)


def _opened(path: Path, state: str | None) -> Bundle:
    from mgoe.bundle import Bundle

    bundle = Bundle.open(path)
    if state is None:
        return bundle
    from mgoe.serving import LiveBundle, open_events

    return LiveBundle(bundle, open_events(state, make=False))
