"""The process, or the processes, of a service: how they start and stop, and what workers share."""

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
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from mgoe.bundle import Bundle
from mgoe.errors import AwayError, ConfigError, MgoeError
from mgoe.serving.events.event import every
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.stores import open_events, open_exposures, with_query
from mgoe.serving.http.app import create_app
from mgoe.serving.http.reloader import Reloader
from mgoe.serving.http.settings import ServeSettings
from mgoe.serving.http.shadow import Shadow
from mgoe.serving.http.telemetry import SHARED, configure_logs, log
from mgoe.serving.http.tokens import Tokens, read_tokens
from mgoe.serving.http.watch import is_opening
from mgoe.serving.online.base_values import item_rows
from mgoe.serving.scoring.onnx_export import NEEDED, package

SETTINGS = "MGOE_SERVE"
"""Environment variable in which workers find the settings, as JSON."""
DRAIN = 30
"""Seconds that requests in flight have when the service is asked to stop."""
QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
"""Python's warning about what uvicorn's supervisor leaves to clean up, which is no JSON."""
PROTOCOL = "mgoe.serving.http.protocol:LimitedProtocol"
"""By its name: passing the class would import this whole package before a worker answers its supervisor,
which waits five seconds."""
SWITCH = 0.001
"""Seconds after which a thread gives another its turn. Python's own 0.005 is long for requests of one or two
milliseconds."""


def serve(settings: ServeSettings) -> None:
    """Serve until asked to stop (SIGTERM or Ctrl-C), then answer the requests in flight.

    Raises:
        MgoeError: The settings, the bundle or the store cannot be served with.
    """
    read_tokens(settings)
    settings = settings.model_copy(update={"port": check_address(settings)})
    configure_logs()
    ignore_hang_up()
    if settings.workers == 1:
        _run(_alone(application(settings)), settings, factory=False)
        return
    check_start(settings)
    with tempfile.TemporaryDirectory(prefix="mgoe-metrics-") as shared:
        os.environ |= {SETTINGS: settings.model_dump_json(), SHARED: shared, "PYTHONWARNINGS": QUIET}
        try:
            _run("mgoe.serving.http.service:worker", settings, factory=True)
        finally:
            del os.environ[SHARED]  # the folder goes too


def check_address(settings: ServeSettings) -> int:
    """Check that the address can be listened on, before a bundle is opened, which takes long.

    Returns:
        The port; if any free one was asked for, the one that was found.

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
                "host", f"must be an address or a name of this machine, found {host!r} ({error})"
            ) from None
        raise ConfigError(
            "port",
            f"must be free on {host}, found {port} ({error.strerror}); "
            "choose another, or 0 for any that is free",
        ) from None


def check_start(settings: ServeSettings) -> None:
    """Check what every worker needs: a worker that does not start would be started again, without end.

    Raises:
        MgoeError: The bundle, its model, the extra or the store is missing, an event cannot be read, the
            exposures have another window, or the state cannot be written.
    """
    bundle, state = Bundle.open(settings.bundle), state_of(settings)
    for name in NEEDED if settings.runtime.engine == "onnx" else ():
        package(name)
    bundle.model  # noqa: B018 - the module of a user's own model may be missing here
    events = open_events(logs_of(settings))
    with suppress(AwayError):
        for _ in every(events):
            pass
    events.close()
    open_exposures(logs_of(settings), settings.wait).close()
    item_rows(bundle.graph, state)


def worker() -> ASGIApp:
    """Return the application of one of several workers.

    One that cannot start logs one line: it is started again, by when the cause may be gone.
    """
    configure_logs()
    ignore_hang_up()
    try:
        app = _alone(application(ServeSettings.model_validate_json(os.environ[SETTINGS])))
    except MgoeError as error:
        log("cannot start", logging.ERROR, error=str(error))
        raise SystemExit(1) from None
    atexit.register(leave)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return app


def ignore_hang_up() -> None:
    """Let SIGHUP, which asks others to read their settings again, end nothing: tokens are read anyhow."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Multiprocess.handle_hup = lambda self: None  # it would start all workers anew


def _end_with_supervisor() -> None:
    """Stop when the supervisor was killed: nobody else would stop its workers, which would keep the port."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


def application(settings: ServeSettings) -> ASGIApp:
    """Open what the settings name."""
    state, tokens, logs = state_of(settings), Tokens(partial(read_tokens, settings)), logs_of(settings)
    events = open_events(logs)
    with suppress(AwayError):
        if isinstance(events, RedisLog) and events.durable is False:
            log(
                "events may be lost",
                logging.WARNING,
                store="redis",
                error="a crash of Redis loses events that were acknowledged; "
                "give Redis `appendonly yes` and `appendfsync always`",
            )
    exposures = open_exposures(logs, settings.wait)
    reloader = Reloader(settings.bundle, events, exposures, state, settings.runtime, url=url_of(settings))
    return create_app(
        reloader,
        settings.limits,
        tokens,
        settings.access_log,
        local=not (tokens.granted or settings.public),
        shadow=None if settings.shadow is None else shadow_of(settings, settings.shadow, reloader),
    )


def shadow_of(settings: ServeSettings, path: Path, reloader: Reloader) -> Shadow:
    """Return the shadow, which reads the logs by itself, so that nothing waits for it."""
    logs = logs_of(settings)
    return Shadow(
        path,
        settings.shadow_share,
        open_events(logs),
        state_of(settings),
        lambda: reloader.engine.bundle,
        settings.runtime,
        open_exposures(logs),
    )


def _alone(app: ASGIApp) -> ASGIApp:
    """Set up a process that has no work but to serve what is open now."""
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # no request has to wait while a collection goes through what is there now
    return app


def url_of(settings: ServeSettings) -> str:
    """Return where a service listens."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def state_of(settings: ServeSettings) -> Path:
    """Return the folder of the state; by default beside the bundle, or beside the link that is served."""
    bundle = settings.bundle
    if bundle.name in ("", ".."):
        bundle = Path(os.path.abspath(bundle))
    return settings.state or bundle.parent / f"{bundle.name}.state"


def logs_of(settings: ServeSettings) -> str:
    """Return where events and exposures are, as `open_events` and `open_exposures` take it."""
    state, file = state_of(settings), settings.redis_password_file
    return with_query(settings.redis, state=state, password_file=file) if settings.redis else str(state)


def _run(app: ASGIApp | str, settings: ServeSettings, factory: bool) -> None:
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when everything is answered
        uvicorn.run(app, factory=factory, workers=settings.workers, **uvicorn_options(settings))
    leave()


def uvicorn_options(settings: ServeSettings) -> dict[str, Any]:
    """Return the options of uvicorn that every way to serve has in common."""
    return {
        "host": settings.host,
        "port": settings.port,
        "timeout_graceful_shutdown": DRAIN,
        "timeout_keep_alive": 75,
        "lifespan": "on",
        "http": PROTOCOL,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
    }


def leave() -> None:
    """End the process here if a bundle is still being opened, once all requests are answered.

    Python would end that thread by itself, possibly in the midst of C++, which aborts the process.
    """
    if is_opening():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
