"""uvicorn's HTTP protocol with a limit on the line and headers of a request, which come before any token.

The parser keeps whatever comes until the headers are complete, and uvicorn limits that only for its slower
parser. So bytes are counted as they arrive: those in a row that belong to no body, whether they are headers
or trailers.
"""

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST = 64 * 2**10
"""Bytes of the line and headers of a request."""
PIECE = 16 * 2**10
"""Bytes that are parsed at once, by which the headers may be longer than `MOST`."""
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
    """A connection that is closed when the headers of a request do not end."""

    _outside_bodies = 0

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

    def on_headers_complete(self) -> None:
        """Start to count again."""
        self._outside_bodies = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Start to count again."""
        self._outside_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Start to count again."""
        self._outside_bodies = 0
        super().on_message_complete()
