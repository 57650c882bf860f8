"""The process, or the processes, of a service: start, stop, and what workers share."""

from __future__ import annotations

import atexit
import errno
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from mgoe.bundle import Bundle
from mgoe.errors import ConfigError, MgoeError
from mgoe.serving.events.log import EventLog, every
from mgoe.serving.events.redis import RedisLog
from mgoe.serving.events.stores import open_events
from mgoe.serving.http.app import create_app
from mgoe.serving.http.reloader import Current, is_opening
from mgoe.serving.http.settings import ServeSettings, read_tokens
from mgoe.serving.http.telemetry import SHARED, configure_logs, log
from mgoe.serving.online.item_pairs import item_rows
from mgoe.serving.scoring.engine import Scoring
from mgoe.serving.scoring.onnx import NEEDED, package
from mgoe.serving.scoring.scorer import check_precision

if TYPE_CHECKING:
    from mgoe.serving.http.middleware import App

SETTINGS = "MGOE_SERVE"
"""Environment variable in which workers find the settings, as JSON."""
DRAIN = 30
"""Seconds that requests under way have when the service is asked to stop."""
QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
"""Of what uvicorn's supervisor leaves for Python to clean up, Python says so in words that are no JSON."""
HTTP = "mgoe.serving.http.protocol:Heads"
"""By its name: a class is imported, and all of this package with it, before a worker answers its supervisor, which waits five seconds."""
SWITCH = 0.001
"""Seconds after which a thread gives another its turn; five times less than Python's own, because a request takes one or two."""


def serve(settings: ServeSettings) -> None:
    """Serve until asked to stop (SIGTERM or Ctrl-C), then answer what is under way.

    Raises:
        MgoeError: The settings, the bundle or the store cannot be served with.
    """
    read_tokens(settings)
    check_precision(settings.engine, settings.precision)
    settings = settings.model_copy(update={"port": check_address(settings)})
    configure_logs()
    if settings.workers == 1:
        _run(application(settings), settings, factory=False)
        return
    check_start(settings)
    with tempfile.TemporaryDirectory(prefix="mgoe-figures-") as shared:
        os.environ |= {SETTINGS: settings.model_dump_json(), SHARED: shared, "PYTHONWARNINGS": QUIET}
        try:
            _run("mgoe.serving.http.service:worker", settings, factory=True)
        finally:
            del os.environ[SHARED]  # the folder goes too


def check_address(settings: ServeSettings) -> int:
    """See that the address can be listened on before a bundle is opened, which takes long.

    Returns:
        The port; where any free one was asked for, the one that is taken.

    Raises:
        ConfigError: The port is taken, or this machine has no such address.
    """
    host, port = settings.host, settings.port
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
            return tried.getsockname()[1]
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(
                "--host", f"must be an address or a name of this machine, found {host!r} ({error})"
            ) from None
        rule = f"must be free on {host}, found {port} ({error.strerror}); choose another, or 0 for any that is free"
        raise ConfigError("--port", rule) from None


def check_start(settings: ServeSettings) -> None:
    """See that there is what every worker needs, while a mistake can still be said: a worker that does not start is started again.

    Raises:
        MgoeError: The bundle, its model, the extra or the store is not there, an event cannot be read, or the state cannot be written.
    """
    bundle, state = Bundle.open(settings.bundle), state_of(settings)
    for name in NEEDED if settings.engine == "onnx" else ():
        package(name)
    bundle.model  # noqa: B018 - a class of its own may be missing here
    events = open_events(settings.redis or state)
    for _ in every(events):
        pass
    events.close()
    item_rows(bundle.graph, state)


def worker() -> App:
    """The application of one of several workers. One that cannot start says so in a line: it is started again, when all may be well."""
    configure_logs()
    try:
        app = application(ServeSettings.model_validate_json(os.environ[SETTINGS]))
    except MgoeError as error:
        log("cannot start", logging.ERROR, error=str(error))
        raise SystemExit(1) from None
    atexit.register(leave)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return app


def _end_with_supervisor() -> None:
    """Where the supervisor was killed nobody would stop its workers, who would keep the port: they answer what is under way, and end."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


def application(settings: ServeSettings) -> App:
    """Open what the settings name."""
    sys.setswitchinterval(SWITCH)
    state, scorer = state_of(settings), Scoring(settings.engine, settings.precision)
    events = open_events(settings.redis or state)
    warn_of_loss(events)
    current = Current(settings.bundle, events, state, scorer, url=url_of(settings))
    tokens = read_tokens(settings)
    app = create_app(
        current, settings.limits, tokens, settings.access_log, local=not (tokens or settings.public)
    )
    gc.collect()
    gc.freeze()  # what is there now stays: no request has to wait while a collection goes through it
    return app


def url_of(settings: ServeSettings) -> str:
    """Where a service listens."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def state_of(settings: ServeSettings) -> Path:
    """Folder of the state; where none is named, beside the bundle, by the name of the link that is served if it is one."""
    bundle = (
        settings.bundle if settings.bundle.name not in ("", "..") else Path(os.path.abspath(settings.bundle))
    )
    return settings.state or bundle.parent / f"{bundle.name}.state"


def warn_of_loss(events: EventLog) -> None:
    """Say so where a crash of the store itself loses events that were acknowledged."""
    if isinstance(events, RedisLog) and events.durable is False:
        mend = "give Redis `appendonly yes` and `appendfsync always`"
        log(
            "events may be lost",
            logging.WARNING,
            store="redis",
            error=f"a crash of Redis loses events that were acknowledged; {mend}",
        )


def _run(app: App | str, settings: ServeSettings, factory: bool) -> None:
    with suppress(KeyboardInterrupt):  # which uvicorn raises again when all is answered
        uvicorn.run(
            app,  # type: ignore[arg-type]
            factory=factory, host=settings.host, port=settings.port, workers=settings.workers, timeout_graceful_shutdown=DRAIN,
            http=HTTP, ws="none",
            log_config=None, access_log=False, server_header=False, date_header=False, lifespan="on", timeout_keep_alive=75,
        )  # fmt: skip
    leave()


def leave() -> None:
    """End the process here where a bundle is still being opened, when all requests are answered. Python would end that thread by itself, in
    the midst of C++ too, which aborts the process."""
    if is_opening():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
