"""A real Redis server of the tests' own, and events to write."""

import importlib
import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mgoe.errors import StoreError
from mgoe.serving.events.event import Event


class Server:
    """A Redis server on a free port of this machine, with its data in a folder; durable to the last event.

    Args:
        folder: For its files.
        password: That clients must give, if any.
    """

    def __init__(self, folder: Path, password: str = ""):
        program = shutil.which("redis-server")
        if program is None or importlib.util.find_spec("redis") is None:
            pytest.skip(
                "redis-server or its client is missing: apt-get install redis-server, pip install redis"
            )
        self.program, self.folder, self.password, self.process = program, folder, password, None
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        keep = [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
            "--requirepass",
            self.password,
        ]
        words = [
            self.program,
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            *keep,
        ]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", self.port)) == 0:
                    knock.sendall(b"PING\r\n")
                    if knock.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                        return
            time.sleep(0.02)
        raise TimeoutError("the Redis server did not start")

    def take(self, prefix: str) -> dict[bytes, bytes]:
        """The keys of a prefix without it, and what they hold, for any server of this version."""
        client, begin = self._client(), prefix.encode()
        return {key.removeprefix(begin): client.dump(key) for key in client.scan_iter(f"{prefix}:*")}

    def put(self, prefix: str, keys: dict[bytes, bytes]) -> None:
        """Put what was taken under another prefix."""
        for key, value in keys.items():
            self._client().restore(prefix.encode() + key, 0, value)

    def _client(self) -> Any:
        return importlib.import_module("redis").Redis.from_url(self.url, password=self.password or None)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None


def events(n: int, first: int = 0) -> list[Event]:
    """So many, each different."""
    return [
        Event(f"ü{k}" if k % 2 else k, k % 7, "click", 1_000_000 * k, f"e{k}")
        for k in range(first, first + n)
    ]


def when_back(work, seconds: float = 60):
    """What a call gives once its store is back."""
    end = time.monotonic() + seconds
    while True:
        try:
            return work()
        except StoreError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
