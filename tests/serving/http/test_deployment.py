"""Two servers on one Redis behind nginx, set up as in examples/serving: each sees the events of the other."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import mgoe
from tests.serving.served import check_ready, get, post

EXAMPLES = Path(__file__).parents[3] / "examples" / "serving"
MISSING = [name for name in ("redis-server", "nginx") if shutil.which(name) is None]
MISSING += [] if importlib.util.find_spec("redis") else ["the Python package redis"]
FIX = "apt-get install redis-server nginx, pip install redis"
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; {FIX}")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def running(folder: Path, *command: object) -> Iterator[subprocess.Popen[bytes]]:
    log = (folder / f"{Path(str(command[0])).name}-{time.monotonic_ns()}.log").open("wb")
    with subprocess.Popen(
        [str(word) for word in command], cwd=folder, stdout=log, stderr=log, env=os.environ
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def configured(name: str, folder: Path, ports: dict[int, int]) -> Path:
    """Return an example with other ports."""
    text = (EXAMPLES / name).read_text()
    for written, port in ports.items():
        assert str(written) in text
        text = text.replace(str(written), str(port))
    (folder / name).write_text(text)
    return folder / name


@contextmanager
def nginx(folder: Path, site: Path) -> Iterator[None]:
    """Run nginx with one site, and let it write below one folder only."""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
    (folder / "whole.conf").write_text(f"{main}http {{\naccess_log off;\n{temporary}include {site};\n}}\n")
    with running(folder, "nginx", "-p", folder, "-c", folder / "whole.conf", "-e", "stderr"):
        yield


def test_two_servers_on_one_redis_behind_nginx(finished: Path, graphs: Path, tmp_path: Path):
    store, one, other, front = free_ports(4)
    item = mgoe.load(finished / "bundle").encoders.items.ids([0]).to_pylist()[0]
    serve = (
        sys.executable,
        "-m",
        "mgoe",
        "serve",
        finished / "bundle",
        "--redis",
        f"redis://127.0.0.1:{store}/0",
    )
    with ExitStack() as stack:
        stack.enter_context(
            running(tmp_path, "redis-server", configured("redis.conf", tmp_path, {6379: store}))
        )
        wait_for_port(store)
        for port in (one, other):
            shutil.copytree(graphs, tmp_path / str(port))
        servers = [
            stack.enter_context(running(tmp_path, *serve, "--port", port, "--state", tmp_path / str(port)))
            for port in (one, other)
        ]
        for port in (one, other):
            check_ready(f"http://127.0.0.1:{port}")
        stack.enter_context(
            nginx(tmp_path, configured("nginx.conf", tmp_path, {8001: one, 8002: other, 8080: front}))
        )
        url = f"http://127.0.0.1:{front}"
        check_ready(url)
        event = {"user": 10**9, "item": item, "behavior": "click", "id": "first"}
        assert post(f"http://127.0.0.1:{one}/v1/events", json={"events": [event]}).json()["accepted"] == 1
        end = time.monotonic() + 60
        while post(f"http://127.0.0.1:{other}/v1/rank", json={"user": 10**9, "k": 3}).json()["unseen_user"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        through = [post(url + "/v1/rank", json={"user": 10**9, "k": 3}).json() for _ in range(6)]
        assert all(answer["scores"] == through[0]["scores"] for answer in through)
        for origin, status in ((url, 200), (url + "1", 403), ("http://other.example", 403)):
            assert (
                post(url + "/v1/rank", json={"user": 1, "k": 1}, headers={"Origin": origin}).status_code
                == status
            )
        servers[0].kill()
        servers[0].wait(60)
        assert all(post(url + "/v1/events", json={"events": [event]}).status_code == 200 for _ in range(4))
        assert get(url + "/metrics").status_code == 404


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
