"""HTTP whose heads end: the line and the headers of a request, which come before a token can be checked.

The parser holds whatever comes until a head is whole. So bytes are counted as they arrive: those that come in a row without being of a
body, be they of a head or of what follows a body in chunks.
"""

from __future__ import annotations

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST = 64 * 2**10
"""Bytes of a head."""
PIECE = 16 * 2**10
"""Bytes that are parsed at once, and by which a head may be longer than `MOST`."""
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


class Heads(HttpToolsProtocol):
    """A connection that is closed when a head does not end."""

    _held = 0

    def data_received(self, data: bytes) -> None:
        """Read what has come, a piece at a time."""
        for at in range(0, len(data), PIECE):
            if self.transport.is_closing():
                return
            piece = data[at : at + PIECE]
            self._held += len(piece)
            super().data_received(piece)
            if self._held > MOST:
                if self.cycle is None or self.cycle.response_complete:
                    self.transport.write(REFUSAL)
                self.transport.close()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._held = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of a body has come."""
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._held = 0
        super().on_message_complete()
