"""`serve`: a bundle behind HTTP."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mgoe.cli.options import BundlePath


def serve(
    bundle: BundlePath,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Only this machine reaches the default one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one, which the log line `serving` shows.")] = 8000,
    workers: Annotated[int, typer.Option(help="Processes, each on its own core.")] = 1,
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
    engine: Annotated[
        Literal["onnx", "torch"],
        typer.Option(help="ONNX Runtime, or `torch`, the reference, runs the model."),
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
        bool, typer.Option("--public", help="Listen beyond this machine without a token.")
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
        _serve(given)


def _serve(given: dict[str, Any]) -> None:
    from mgoe.config import check_settings
    from mgoe.serving.http.settings import ServeSettings, require_serving

    require_serving()
    from mgoe.serving.http.service import serve as run

    run(check_settings(ServeSettings, given, "serve"))
