"""Commands on a bundle: measure it, score with it, rank with it, export it."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mgoe import experiments
from mgoe.cli.shared import (
    BundlePath,
    Json,
    Redis,
    State,
    live_events,
    say,
    show,
    show_json,
    show_leads,
    table,
)
from mgoe.errors import ConfigError

if TYPE_CHECKING:
    from mgoe.bundle import Bundle


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
    from mgoe.bundle import Bundle
    from mgoe.config import did_you_mean
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
        show_json(
            {
                "metrics": [row for row in rows if (row["split"], row["slice"]) == (split, part)],
                "leads": [asdict(lead) for lead in leads],
            }
        )
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
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """Score pairs: one row per pair, one probability (or value) per task."""
    import pyarrow.csv as csv

    opened = _opened(bundle, live_events(state, redis))
    if out is not None:
        rows = experiments.write_scores(opened, pairs, out)
        if as_json:
            show_json({"path": str(out), "rows": rows, "tasks": opened.tasks})
        else:
            say(f"{rows:,} pairs scored: {out}")
        return
    blocks = experiments.score_pairs(opened, pairs)
    if as_json:
        data = opened.settings.data
        show_json(
            [
                {"user": row[data.user], "item": row[data.item], "tasks": {t: row[t] for t in opened.tasks}}
                for block in blocks
                for row in block.to_pylist()
            ]
        )
        return
    for number, block in enumerate(blocks):
        csv.write_csv(block, typer.get_binary_stream("stdout"), csv.WriteOptions(include_header=number == 0))


def recommend(
    bundle: BundlePath,
    users: Annotated[list[str], typer.Argument(metavar="USER...", help="Ids, as in the log.")],
    k: Annotated[int, typer.Option("--k", "-k", help="Number of items per user.")] = 10,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What to rank by, such as `click * buy^2`; by default, that the strongest binary task is "
            "done at all.",
            show_default=False,
        ),
    ] = None,
    exclude_known: Annotated[
        bool, typer.Option("--exclude-known", help="Leave out items in the user's history.")
    ] = False,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="ITEM", help="Leave out this item. Repeatable.")
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=NUMBER", help="Least probability (or value): --at-least click=0.01. Repeatable."
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A context feature: --context device=phone. Repeatable."),
    ] = None,
    state: State = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """Show the best items of the whole catalogue for each user."""
    opened = _opened(bundle, live_events(state, redis))
    found = opened.recommend(
        users,
        k,
        objective,
        exclude_known=exclude_known,
        exclude=exclude or (),
        at_least=_numbers("--at-least", at_least),
        context=_named("--context", context),
    )
    if as_json:
        rows = found.to_dict("records")
        place = ("user", "rank", "item")
        show_json([{n: row[n] for n in place} | {"tasks": {t: row[t] for t in opened.tasks}} for row in rows])
        return
    lines = table([str(column) for column in found.columns], left=3)
    for (*place,) in found.itertuples(index=False):
        user, rank, item, *values = place
        lines.add_row(str(user), str(rank), str(item), *(f"{value:.4g}" for value in values))
    show(lines)


def export(
    path: BundlePath,
    onnx: Annotated[
        Path,
        typer.Option(
            "--onnx",
            help="File to write; its weights are stored beside it, in `<name>.data`.",
            show_default=False,
        ),
    ],
    precision: Annotated[
        Literal["float32", "int8"], typer.Option(help="Precision of weights in matrix products.")
    ] = "float32",
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            help="Labelled pairs on which the written model is compared with the bundle.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle's model as an ONNX graph: named batches in, one probability (or value) per task out."""
    from mgoe.bundle import Bundle
    from mgoe.serving.scoring.onnx_export import export_whole
    from mgoe.serving.scoring.onnx_sessions import Session

    bundle = Bundle.open(path)
    export_whole(bundle.model, onnx, precision)
    compared = []
    if on is not None:
        before, after = (experiments.measure_pairs(one, on) for one in (bundle, bundle.run_by(Session(onnx))))
        compared = [
            {name: row[name] for name in ("task", "metric")}
            | {"bundle": row["value"], "exported": other["value"]}
            for row, other in zip(before, after, strict=True)
            if row["slice"] == "all"
        ]
    if as_json:
        show_json({"path": str(onnx), "precision": precision, "compared": compared})
        return
    say(f"{precision} model written: {onnx}")
    if compared:
        found = table(("task", "metric", "bundle", "exported", "difference"), left=2)
        for row in compared:
            before, after = float(row["bundle"]), float(row["exported"])
            if math.isfinite(before) and math.isfinite(after):  # an AUC of one class does not exist
                numbers = (f"{value:.5f}" for value in (before, after, after - before))
                found.add_row(str(row["task"]), str(row["metric"]), *numbers)
        show(found)


def _opened(path: Path, events: str | None) -> "Bundle":
    from mgoe.bundle import Bundle

    bundle = Bundle.open(path)
    if events is None:
        return bundle
    from mgoe.serving import LiveBundle, open_events, open_exposures

    return LiveBundle(bundle, open_events(events, make=False), open_exposures(events))


def _named(option: str, texts: Sequence[str] | None) -> dict[str, Any]:
    """Return the values of a repeatable option by name, as they are written."""
    found = {}
    for text in texts or ():
        name, equals, found[name] = text.partition("=")
        if not name or not equals:
            raise ConfigError(option, f"takes NAME=VALUE, found {text!r}; write it as in device=phone")
    return found


def _numbers(option: str, texts: Sequence[str] | None) -> dict[str, float]:
    found = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(
                option, f"takes TASK=NUMBER, found {text!r}; write it as in click=0.01"
            ) from None
    return found
