"""uvicorn's HTTP protocol with limits on what comes before any token: connections, and the line and headers
of a request.

A connection takes one of the files that a process may open. Who holds more of them than that would keep all
others out, `/healthz` included. So of too many connections those are closed that have waited longest.

The parser keeps whatever comes until the headers are complete, and uvicorn limits that only for its slower
parser. So bytes are counted as they arrive: those in a row that belong to no body, whether they are headers
or trailers.
"""

import asyncio
import resource
import time

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST = 64 * 2**10
"""Bytes of the line and headers of a request."""
PIECE = 16 * 2**10
"""Bytes that are parsed at once, by which the headers may be longer than `MOST`."""
CONNECTIONS = min(2048, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
"""Connections of a process, at most. Bundles, stores and those that are being closed need files, too."""
_BODY = orjson.dumps(
    {
        "error": f"the line and headers of a request may have {MOST:,} bytes",
        "place": "headers",
        "position": None,
    }
)
REFUSAL = b"\r\n".join(
    [
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"content-type: application/json",
        b"content-length: %d" % len(_BODY),
        b"connection: close",
        b"",
        _BODY,
    ]
)


class LimitedProtocol(HttpToolsProtocol):
    """A connection that is closed when the headers of a request do not end, or when it is idle and there are
    too many."""

    _outside_bodies = 0
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place of the connection that has been idle longest if there is no other."""
        super().connection_made(transport)
        self._idle_since = time.monotonic()
        if len(self.connections) > CONNECTIONS:
            others = (one for one in self.connections if isinstance(one, LimitedProtocol) and one.is_idle)
            min(others, key=lambda one: one._idle_since).transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered; one whose headers are not complete is none yet."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def on_response_complete(self) -> None:
        """Be idle from now on."""
        self._idle_since = time.monotonic()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, a piece at a time."""
        for at in range(0, len(data), PIECE):
            if self.transport.is_closing():
                return
            piece = data[at : at + PIECE]
            self._outside_bodies += len(piece)
            super().data_received(piece)
            if self._outside_bodies > MOST:
                if self.cycle is None or self.cycle.response_complete:
                    self.transport.write(REFUSAL)
                self.transport.close()

    def on_body(self, body: bytes) -> None:
        """Start to count again."""
        self._outside_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Start to count again."""
        self._outside_bodies = 0
        super().on_message_complete()
