"""How a service starts and stops: in this process, in a thread beside other work of it, such as that of a
notebook, or in workers that this process supervises.

A supervisor lives as long as its workers and needs nothing of what they open, so this module does not import
what that needs.
"""

import atexit
import errno
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from mgoe._util.files import Hold, remove_unless_held
from mgoe.errors import ConfigError, MgoeError
from mgoe.serving.http.settings import ServeSettings
from mgoe.serving.http.telemetry import SHARED, configure_logs, log
from mgoe.serving.http.tokens import read_tokens

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from mgoe.serving.scoring.engine import Clock

SETTINGS = "MGOE_SERVE"
"""Environment variable in which workers find the settings, as JSON."""
METRICS = "mgoe-metrics-"
"""Beginning of the names of folders in which workers add up their metrics."""
DRAIN = 30
"""Seconds that requests in flight have when the service is asked to stop."""
QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
"""Python's warning about what uvicorn's supervisor leaves to clean up, which is no JSON."""
PROTOCOL = "mgoe.serving.http.protocol:LimitedProtocol"
"""By its name: passing the class would import this whole package before a worker answers its supervisor,
which waits five seconds."""
PAUSE = 0.02
"""Seconds between looks at whether the service has started."""


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
        from mgoe.serving.http.service import alone, application, leave

        _run(alone(application(settings)), settings, factory=False)
        leave()
        return
    check_workers(settings)
    with shared_metrics() as shared:
        os.environ |= {SETTINGS: settings.model_dump_json(), SHARED: str(shared), "PYTHONWARNINGS": QUIET}
        try:
            _run("mgoe.serving.http.supervisor:worker", settings, factory=True)
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


def check_workers(settings: ServeSettings) -> None:
    """Check what every worker needs, in a process that ends: it opens what a worker opens.

    Raises:
        MgoeError: No worker could start, see `check_start`; or the process was killed.
    """
    alike = multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(1, *alike) as pool:
        try:
            pool.submit(_check, settings).result()
        except BrokenProcessPool:
            rule = "the process that opened the bundle first was killed; memory may have run out: free some"
            raise ConfigError("workers", rule) from None
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _check(settings: ServeSettings) -> None:
    from mgoe.serving.http.service import check_start

    check_start(settings)


@contextmanager
def shared_metrics() -> Iterator[Path]:
    """Make a folder in which workers add up their metrics, and remove those that killed supervisors left."""
    for left in Path(tempfile.gettempdir()).glob(f"{METRICS}*"):
        with suppress(OSError):  # that of another user
            remove_unless_held(left)
    made = Path(tempfile.mkdtemp(prefix=f"new-{METRICS}"))
    hold = Hold(made)  # before it has the name by which another supervisor finds it
    folder = made.replace(made.with_name(made.name.removeprefix("new-")))
    try:
        yield folder
    finally:
        hold.close()
        shutil.rmtree(folder, ignore_errors=True)


def worker() -> "ASGIApp":
    """Return the application of one of several workers.

    One that cannot start logs one line: it is started again, by when the cause may be gone.
    """
    from mgoe.serving.http.service import alone, application, leave

    configure_logs()
    ignore_hang_up()
    try:
        app = alone(application(ServeSettings.model_validate_json(os.environ[SETTINGS])))
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


def _run(app: "ASGIApp | str", settings: ServeSettings, factory: bool) -> None:
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when everything is answered
        uvicorn.run(app, factory=factory, workers=settings.workers, **uvicorn_options(settings))


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


class Service(AbstractContextManager["Service"]):
    """A running service. It stops with `stop`, at the end of a `with` block, and when Python ends.

    Args:
        settings: Its settings.
        owner: Kept alive while it serves, such as the owner of a temporary bundle.
        clock: See `application`.

    Attributes:
        url: Where it listens.

    Raises:
        MgoeError: The settings, the bundle or the store cannot be served with.

    Example:
        >>> with ranker.serve(port=0, runtime={"engine": "torch"}) as service:
        ...     print(service.url)  # doctest: +ELLIPSIS
        http://127.0.0.1:...
    """

    def __init__(self, settings: ServeSettings, owner: object = None, clock: "Clock | None" = None):
        from mgoe.serving.http.service import application

        if settings.workers != 1:
            raise ConfigError(
                "workers",
                f"must be 1 in a process with other work, found {settings.workers}; `mgoe serve` starts more",
            )
        read_tokens(settings)
        settings = settings.model_copy(update={"port": check_address(settings)})
        self.url, self._owner = settings.url, owner
        self._server = uvicorn.Server(
            uvicorn.Config(application(settings, clock), **uvicorn_options(settings))
        )
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mgoe-serve", daemon=True)
        self._thread.start()
        try:
            while not self._server.started:
                self._thread.join(PAUSE)
                if not self._thread.is_alive():
                    reason = self._failure or "the port may be taken"
                    raise ConfigError("serve", f"could not start at {self.url}: {reason}; see its log")
        except BaseException:
            self._server.should_exit = True
            self._thread.join()
            raise
        atexit.register(self.stop)

    def _run(self) -> None:
        """Serve, and keep what ended the service before it had started."""
        try:
            self._server.run()
        except BaseException as error:
            self._failure = error

    def stop(self) -> None:
        """Answer the requests in flight, then stop. A stopped service stays stopped."""
        atexit.unregister(self.stop)
        self._server.should_exit = True
        self._thread.join()
        self._owner = None

    def wait(self) -> None:
        """Block until the service is stopped by another thread, or interrupted (Ctrl-C), which stops it."""
        with suppress(KeyboardInterrupt):
            self._thread.join()
        self.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Service({'serves' if self._thread.is_alive() else 'stopped'} at {self.url})"

    def _repr_html_(self) -> str:
        state = "serves at" if self._thread.is_alive() else "is stopped; it served at"
        return f'<p>The service {state} <a href="{self.url}" target="_blank">{self.url}</a></p>'
