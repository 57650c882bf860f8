"""Commands on a bundle: measure it, score with it, export it, serve it, and use what a service has taken."""

import math
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mgoe import experiments
from mgoe.cli.shared import BundlePath, Json, Overwrite, facts, say, show, show_json, show_leads, table
from mgoe.errors import ConfigError

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
    as_json: Json = False,
) -> None:
    """Score pairs: one row per pair, one probability (or value) per task."""
    import pyarrow.csv as csv

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


def serve(
    bundle: BundlePath,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Only this machine can reach the default.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port; 0 picks a free one, which the log line `serving` shows.")
    ] = 8000,
    workers: Annotated[int, typer.Option(help="Number of processes, each on its own core.")] = 1,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the received events and of an index; BUNDLE.state by default.",
            show_default=False,
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Redis that stores the events instead, for several servers.",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="How long exposures and labels wait for each other; "
            "duplicates are recognised for at least this time."
        ),
    ] = "1d",
    engine: Annotated[
        Literal["onnx", "torch"],
        typer.Option(help="What runs the model: ONNX Runtime, or PyTorch, the reference."),
    ] = "onnx",
    precision: Annotated[
        Literal["float32", "bfloat16", "int8"],
        typer.Option(
            help="`bfloat16` halves the memory per item; `int8` also has weights of 8 bits, with `onnx`."
        ),
    ] = "float32",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of bearer tokens that grant access, one per line; MGOE_TOKEN otherwise.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let other machines connect without a token.")
    ] = False,
    max_body: Annotated[int, typer.Option(help="Bytes per request.")] = 2 * 2**20,
    max_candidates: Annotated[int, typer.Option(help="Candidates, or pairs, per request.")] = 10_000,
    max_events: Annotated[int, typer.Option(help="Events per request.")] = 1_000,
    max_requests: Annotated[int, typer.Option(help="Concurrent requests per worker.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds to receive a request, and to answer it.")] = 10.0,
    access_log: Annotated[bool, typer.Option(help="Log one line per request.")] = True,
) -> None:
    """Serve a bundle over HTTP: rankings, scores, live events, explanations, and a page at /."""
    given = {
        "bundle": bundle,
        "host": host,
        "port": port,
        "workers": workers,
        "state": state,
        "redis": redis,
        "window": window,
        "token_file": token_file,
        "runtime": {"engine": engine, "precision": precision},
        "public": public,
        "access_log": access_log,
        "limits": {
            "body": max_body,
            "candidates": max_candidates,
            "events": max_events,
            "requests": max_requests,
            "seconds": timeout,
        },
    }
    with suppress(KeyboardInterrupt):  # stopped before it serves, which loses nothing
        from mgoe.config import check_settings
        from mgoe.serving.http.settings import ServeSettings, require_serving

        require_serving()
        from mgoe.serving.http.service import serve as run

        run(check_settings(ServeSettings, given, "serve"))


def refresh(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.", show_default=False)],
    events: Annotated[
        str | None,
        typer.Option(
            "--events",
            metavar="STATE",
            help="State folder of the service, or redis://host:port.",
            show_default=False,
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="LOG",
            help="Instead: a file, folder or glob with only the new rows of the bundle's log. Repeatable.",
            show_default=False,
        ),
    ] = None,
    recluster: Annotated[
        bool,
        typer.Option(
            "--recluster",
            help="Learn macro nodes again. The model was trained on the former ones, so measure it.",
        ),
    ] = False,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim",
            help="Remove from the log what BUNDLE already held. No service may return to an earlier bundle.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a bundle whose graph holds new events, calibrated on how the old one predicted them. The weights
    stay."""
    refreshed = experiments.refresh(
        bundle, events, out, log=log or (), recluster=recluster, trim=trim, overwrite=overwrite, say=say
    )
    calibration, graph = refreshed.calibration, refreshed.graph.describe()
    if as_json:
        show_json({"path": str(out), "calibration": calibration.model_dump(mode="json"), "graph": graph})
        return
    show(facts(graph))
    found = table(("calibration", "positives", "predicted / observed", "after", "calibration error", "after"))
    for name, task in calibration.tasks.items():
        measured = ("predicted_over_observed", "calibration_error")
        values = [getattr(when, measure) for measure in measured for when in (task.before, task.after)]
        numbers = ("-" if value is None else f"{value:.4f}" for value in values)
        found.add_row(name, f"{task.positives:,}", *numbers)
    if calibration.tasks:
        show(found)
    say(f"wrote {out}")


def exposures(
    bundle: BundlePath,
    state: Annotated[
        Path,
        typer.Option("--events", metavar="STATE", help="State folder of the service.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The Parquet file to write.", show_default=False)],
) -> None:
    """Write the exposures that a service has taken, with their labels, as a log.

    The columns are those of the log that the bundle was trained on. Exposures that still wait for labels are
    left out.
    """
    experiments.write_exposures(bundle, state, out, say)
    say(f"wrote {out}")


def _opened(path: Path, state: str | None) -> "Bundle":
    from mgoe.bundle import Bundle

    bundle = Bundle.open(path)
    if state is None:
        return bundle
    from mgoe.serving import LiveBundle, open_events, open_exposures

    return LiveBundle(bundle, open_events(state, make=False), open_exposures(state))
