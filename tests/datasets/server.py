"""A small HTTP server for downloads that are resumed, cut, changed and refused."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file, and how the server behaves. Change it between requests."""

    body: bytes = b""
    tag: str | None = '"one"'
    date: str | None = "Sat, 01 Jan 2022 00:00:00 GMT"
    ranges: bool = True
    """Whether it knows of them."""
    careless: bool = False
    """Sends a range of whatever file it has, whatever If-Range says."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    status: list[int] = field(default_factory=list)
    """Of the next answers, in place of the file."""
    sized: bool = True
    """Whether it says how long the file is."""
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of what came in."""
    address: str = ""


@contextmanager
def serve() -> Iterator[Served]:
    """Serve a file at `address` until the block ends."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(dict(self.headers))
            if served.status:
                self.send_error(served.status.pop(0))
                return
            body, start = served.body, _start(self.headers.get("Range"), self.headers.get("If-Range"), served)
            if start is not None and start >= len(body):
                self.send_error(416)
                return
            cut = (
                served.cuts.pop(0) if served.cuts else None
            )  # before the first byte: the next request may change what is served
            self.send_response(200 if start is None else 206)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if served.tag:
                self.send_header("ETag", served.tag)
            if served.date:
                self.send_header("Last-Modified", served.date)
            if served.sized:
                self.send_header("Content-Length", str(len(body) - (start or 0)))
            self.end_headers()
            self.wfile.write(body[start or 0 :][:cut])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}/files/data.bin"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _start(asked: str | None, condition: str | None, served: Served) -> int | None:
    """First byte of the range to send; None where all is sent."""
    if asked is None or not served.ranges:
        return None
    if not served.careless and condition not in (None, served.tag, served.date):
        return None
    found = re.fullmatch(r"bytes=(\d+)-", asked)
    return int(found[1]) if found else None
