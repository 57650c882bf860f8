"""A service in a thread, beside other work of its process, such as that of a notebook."""

import atexit
import threading
from contextlib import AbstractContextManager, suppress

import uvicorn

from mgoe.errors import ConfigError
from mgoe.serving.http.service import application, url_of
from mgoe.serving.http.settings import ServeSettings
from mgoe.serving.http.supervisor import check_address, uvicorn_options
from mgoe.serving.http.tokens import read_tokens
from mgoe.serving.scoring.engine import Clock

PAUSE = 0.02
"""Seconds between looks at whether the service has started."""


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

    def __init__(self, settings: ServeSettings, owner: object = None, clock: Clock | None = None):
        if settings.workers != 1:
            raise ConfigError(
                "workers",
                f"must be 1 in a process with other work, found {settings.workers}; `mgoe serve` starts more",
            )
        read_tokens(settings)
        settings = settings.model_copy(update={"port": check_address(settings)})
        self.url, self._owner = url_of(settings), owner
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
