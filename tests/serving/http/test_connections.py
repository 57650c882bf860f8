"""Connections that do nothing keep nobody out."""

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.effort import SOAK

for _name in ("httptools", "orjson", "uvicorn"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]'")

FILES = 256
"""Files that the process of the service may open."""
LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]
SERVICE = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (%d, %d))
import uvicorn
from mgoe.serving.http.protocol import LimitedProtocol

async def app(scope, receive, send):
    if scope["path"] == "/slow":
        await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
config = uvicorn.Config(app, http=LimitedProtocol, ws="none", lifespan="off", loop=sys.argv[1],
                        log_config=None, timeout_keep_alive=600)
uvicorn.Server(config).run([listening])
"""


@contextmanager
def service(loop: str) -> Iterator[int]:
    """Serve in a process that may open few files, and return its port."""
    words = [sys.executable, "-c", SERVICE % (FILES, FILES), loop]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=120)


def ask(connection: socket.socket, path: str = "/healthz") -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection.recv(65536)[:12]


@pytest.mark.parametrize("loop", LOOPS if SOAK else LOOPS[-1:])  # the one that uvicorn takes
def test_hundreds_of_idle_connections_keep_nobody_out(loop: str):
    """More than the process may open files: some that never say a word, some in the midst of their headers,
    and some that were answered before."""
    with service(loop) as port, ExitStack() as stack:
        slow = stack.enter_context(connect(port))
        slow.sendall(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
        used = stack.enter_context(connect(port))
        for number in range(3 * FILES):
            one = stack.enter_context(connect(port))
            if number % 3 == 0:
                one.sendall(b"GET /healthz HTTP/1.1\r\nHo")
            if number % 3 == 1:
                assert ask(one) == b"HTTP/1.1 200"
            if number % 20 == 0:
                assert ask(used) == b"HTTP/1.1 200"  # never the one that has been idle longest
        for _ in range(3):
            with connect(port) as new:
                assert ask(new) == b"HTTP/1.1 200"
        assert ask(used) == b"HTTP/1.1 200"
        slow.sendall(b"x")  # was being answered all the time
        assert slow.recv(65536)[:12] == b"HTTP/1.1 200"
