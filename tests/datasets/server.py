"""A small HTTP server for downloads that are cut and refused."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file, and how the server behaves. Change it between requests."""

    body: bytes = b""
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
            body = served.body  # the next request may change it
            cut = served.cuts.pop(0) if served.cuts else None
            self.send_response(200)
            if served.sized:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])

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
