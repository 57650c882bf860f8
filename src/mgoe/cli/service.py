"""Commands around a service: serve a bundle, and use the live events that a service has taken."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

import mgoe
from mgoe import lifecycle
from mgoe.cli.shared import (
    Adopt,
    BundlePath,
    Json,
    Overwrite,
    Redis,
    RedisPassword,
    State,
    examples,
    facts,
    live_events,
    logger,
    show,
    show_json,
    show_outcome,
    table,
)
from mgoe.errors import ConfigError

Followed = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE",
        help="A bundle, or a link to one such as REGISTRY/current.",
        show_default=False,
    ),
]

NewLog = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="LOG",
        help="Instead: a file, folder or glob with only the new rows of the bundle's log. Repeatable.",
        show_default=False,
    ),
]

ShadowPath = Annotated[
    Path | None,
    typer.Option(
        metavar="BUNDLE",
        help="A second bundle that scores a share of the requests after they are answered, such as "
        "REGISTRY/candidate. `mgoe registry compare` reads what both said.",
        show_default=False,
    ),
]
ExperimentFiles = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="YAML file of an experiment, whose arms answer beside the bundle. Repeatable. `mgoe answers` "
        "writes what they answered.",
        show_default=False,
    ),
]
RunBy = Annotated[
    Literal["onnx", "torch"],
    typer.Option(help="What runs the model: ONNX Runtime, or PyTorch, the reference."),
]
PrecisionName = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="`bfloat16` halves the memory per item."),
]


WrittenRows = Annotated[
    Path, typer.Option("--out", "-o", help="The Parquet file to write.", show_default=False)
]
OnlyNew = Annotated[bool, typer.Option("--new", help="Write only the rows that the bundle lacks.")]


def serve(
    bundle: Followed,
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
            help="Folder of live events, exposures and an index; BUNDLE.state by default.",
            show_default=False,
        ),
    ] = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="How long an exposure or a label is held until the other arrives, and duplicates are "
            "recognised at least. A new log has 1d by default; a log keeps its window.",
            show_default=False,
        ),
    ] = None,
    adopt: Adopt = False,
    shadow: ShadowPath = None,
    shadow_share: Annotated[float, typer.Option(help="Share of the requests that it scores.")] = 0.05,
    experiment: ExperimentFiles = None,
    engine: RunBy = "onnx",
    precision: PrecisionName = "float32",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of bearer tokens, one per line, each with its scopes unless it may do everything "
            "(TOKEN rank,write); it is read again when it changes. MGOE_TOKEN otherwise.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let other machines connect without a token.")
    ] = False,
    max_body: Annotated[int, typer.Option(help="Bytes per request.")] = 2 * 2**20,
    max_candidates: Annotated[int, typer.Option(help="Candidates, or pairs, per request.")] = 10_000,
    max_events: Annotated[int, typer.Option(help="Events per request.")] = 1_000,
    max_requests: Annotated[int, typer.Option(help="Concurrent requests per worker and token.")] = 64,
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
        "redis_password_file": redis_password_file,
        "window": window,
        "adopt": adopt,
        "token_file": token_file,
        "runtime": {"engine": engine, "precision": precision},
        "shadow": shadow,
        "shadow_share": shadow_share,
        "experiment": experiment or (),
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
        from mgoe.serving.http.supervisor import serve as run

        run(check_settings(ServeSettings, given, "serve"))


def update(
    bundle: BundlePath,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the new bundle; OUT.training beside it is for the next update.",
            show_default=False,
        ),
    ],
    state: State = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    log: NewLog = None,
    weights: Annotated[
        Literal["keep", "continue", "new"],
        typer.Option(
            help="`keep` the weights, `continue` to train them on the new rows, or train `new` ones from "
            "scratch on all files of the bundle's log and these."
        ),
    ] = "keep",
    groups: Annotated[
        Literal["learn", "keep"],
        typer.Option(help="`learn` sketch and macro nodes again with the new rows, or `keep` them."),
    ] = "learn",
    adopt: Adopt = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a bundle whose graph holds new rows, calibrated on them.

    The same command resumes an interrupted training. It says when and why a full training is due. Under
    torchrun, several processes train together.
    """
    made = lifecycle.update(
        bundle,
        lifecycle.Sources(log or (), live_events(state, redis, redis_password_file), adopt=adopt),
        out,
        weights=weights,
        groups=groups,
        overwrite=overwrite,
    )
    if os.environ.get("RANK", "0") != "0":  # the first process shows it
        return
    if as_json:
        show_json(
            {
                "path": str(out),
                "lineage": made.manifest.lineage.model_dump(mode="json"),
                "due": made.manifest.due,
                "calibration": made.calibration,
                "graph": made.graph.describe(),
            }
        )
        return
    _show_bundle(made)
    logger.info(f"wrote {out}")


def _show_bundle(bundle: "mgoe.Bundle") -> None:
    """Show the graph of a bundle, and how well its predictions agreed with the newest labels."""
    show(facts(bundle.graph.describe()))
    found = table(("calibration", "positives", "predicted / observed", "after", "calibration error", "after"))
    for name, task in bundle.calibration.tasks.items():
        measured = ("predicted_over_observed", "calibration_error")
        values = [getattr(when, measure) for measure in measured for when in (task.before, task.after)]
        numbers = ("-" if value is None else f"{value:.4f}" for value in values)
        found.add_row(name, f"{task.positives:,}", *numbers)
    if bundle.calibration.tasks:
        show(found)


log = typer.Typer(help="What a service has taken, as files.", no_args_is_help=True)


@log.command(
    "export",
    epilog=examples(
        "mgoe log export runs/mine/bundle --kind events --state state --out logs/taken.parquet",
        "mgoe log export bundles/today --kind exposures --redis redis://store:6379 --out new.parquet --new",
    ),
)
def export_rows(
    bundle: BundlePath,
    out: WrittenRows,
    kind: Annotated[
        Literal["events", "exposures"],
        typer.Option(
            help="Events, each once; or exposures with their labels, but for those that wait for some.",
            show_default=False,
        ),
    ],
    state: State = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    new: OnlyNew = False,
    as_json: Json = False,
) -> None:
    """Write what a service has taken as a log.

    The columns are those of the log that the bundle was trained on. The file says which rows of the service
    it holds, so that each counts once.
    """
    from mgoe.lifecycle.taken import export

    if (where := live_events(state, redis, redis_password_file)) is None:
        raise ConfigError("--state", "or --redis must name the rows of a service, found none; give one")
    show_outcome(f"wrote {out}", {"path": str(out), "rows": export(bundle, where, out, kind, new)}, as_json)


def exposures(
    bundle: BundlePath,
    out: WrittenRows,
    state: State = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    new: OnlyNew = False,
    as_json: Json = False,
) -> None:
    """Write the exposures that a service has taken, with their labels: `mgoe log export --kind exposures`."""
    export_rows(bundle, out, "exposures", state, redis, redis_password_file, new, as_json)


def events(
    bundle: BundlePath,
    out: WrittenRows,
    state: State = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    new: OnlyNew = False,
    as_json: Json = False,
) -> None:
    """Write the events that a service has taken, each once: `mgoe log export --kind events`."""
    export_rows(bundle, out, "events", state, redis, redis_password_file, new, as_json)


def answers(
    state: Annotated[Path, typer.Argument(help="Folder of the state of a service.", show_default=False)],
    out: WrittenRows,
    as_json: Json = False,
) -> None:
    """Write the logged answers of an experiment or a shadow, one row per request and arm."""
    from mgoe.serving.events.answer_log import write_answers

    show_outcome(f"wrote {out}", {"path": str(out), "rows": write_answers(state, out)}, as_json)
