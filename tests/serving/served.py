"""A real service on loopback, in a thread of the test's process."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

for _name in ("fastapi", "httpx", "onnxruntime", "onnxscript", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]' httpx")

import httpx  # noqa: E402
import uvicorn  # noqa: E402

from mgoe.config import load_experiments  # noqa: E402
from mgoe.config.experiment import ArmSettings, ExperimentSettings, ShadowSettings  # noqa: E402
from mgoe.serving.events.answer_log import AnswerLog  # noqa: E402
from mgoe.serving.events.log import DAY, ServiceLog  # noqa: E402
from mgoe.serving.events.stores import open_log, with_query  # noqa: E402
from mgoe.serving.http.app import create_app  # noqa: E402
from mgoe.serving.http.experiment import Experiment  # noqa: E402
from mgoe.serving.http.middleware import Middleware  # noqa: E402
from mgoe.serving.http.protocol import LimitedProtocol  # noqa: E402
from mgoe.serving.http.reloader import Reloader  # noqa: E402
from mgoe.serving.http.settings import Limits  # noqa: E402
from mgoe.serving.http.shadow import Shadow  # noqa: E402
from mgoe.serving.http.tokens import ALL, Tokens  # noqa: E402
from mgoe.serving.scoring.runtime import Runtime  # noqa: E402

get, post = partial(httpx.get, timeout=60), partial(httpx.post, timeout=60)
"""One connection per request, and patience with a busy machine."""
EVERY = 0.05
"""Seconds between looks at the bundle."""


@dataclass(frozen=True)
class Served:
    """A service: where it listens, what serves, what is before it, and its experiment."""

    url: str
    reloader: Reloader
    client: httpx.Client
    middleware: Middleware
    experiment: Experiment | None = None

    @property
    def shadow(self) -> Shadow | None:
        return self.experiment and self.experiment.shadow

    def rank(self, **request: Any) -> dict[str, Any]:
        return answered(self.client.post("/v1/rank", json=request))

    def recommend(self, **request: Any) -> dict[str, Any]:
        return answered(self.client.post("/v1/recommend", json=request))

    def score(self, **request: Any) -> dict[str, Any]:
        return answered(self.client.post("/v1/score", json=request))

    def add(self, *events: dict[str, Any]) -> dict[str, Any]:
        return self.take(events=list(events))

    def take(self, **records: list[dict[str, Any]]) -> dict[str, Any]:
        return answered(self.client.post("/v1/events", json=records))

    def explain(self, **query: Any) -> dict[str, Any]:
        return answered(self.client.get("/v1/explain", params=query))


def check_ready(url: str, seconds: float = 180, workers: int = 1) -> None:
    """Wait until all workers of a service in another process are prepared, by asking many times in a row."""
    end, said = time.monotonic() + seconds, 0
    while said < (1 if workers == 1 else 10 * workers):
        try:
            answer = get(url + "/readyz")
            started = answer.status_code == 200 and "starting" not in (answer.json().get("detail") or "")
            said = said + 1 if started else 0
        except httpx.TransportError:
            said = 0
        assert time.monotonic() < end, url
        time.sleep(0 if said else 0.1)


def answered(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return response.json()


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the moment of its request, to compare it with that to another one."""
    return {name: value for name, value in answer.items() if name != "as_of"}


@contextmanager
def served(
    bundle: Path,
    state: Path,
    limits: Limits | None = None,
    tokens: tuple[bytes, ...] = (),
    log: ServiceLog | None = None,
    runtime: Runtime = Runtime(engine="torch"),  # which has nothing to export at the start
    window: int = DAY,
    shadow: Path | None = None,
    share: float = 1.0,
    redis: str | None = None,
    experiment: Path | Sequence[Path] = (),
) -> Iterator[Served]:
    """Serve a bundle while the block runs."""
    logs = with_query(redis, state=state) if redis else state
    reloader = Reloader(bundle, log or open_log(logs, window), state, runtime, every=EVERY)
    read = partial(dict.fromkeys, tokens, ALL)
    alone = [ArmSettings(name="served", share=1)]

    files = [experiment] if isinstance(experiment, Path) else [*experiment]

    def settings() -> list[ExperimentSettings]:
        if shadow is None:
            return load_experiments(files)
        return [ExperimentSettings(id="a", arms=alone, shadow=ShadowSettings(bundle=shadow, share=share))]

    def opens(kind: Callable[..., Any], path: Path) -> Any:
        return kind(reloader, path, open_log(logs), state, runtime, EVERY)

    arms = None
    if files or shadow is not None:
        answers = AnswerLog(state, experiments=[one.id for one in settings()])
        arms = Experiment(settings, files, reloader, opens, answers, every=EVERY)
    ours = {"access_log": False, "experiment": arms}
    app = create_app(reloader, limits or Limits(), Tokens(read), **ours)  # type: ignore[arg-type]
    how = {
        "http": LimitedProtocol,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "lifespan": "on",
    }
    server = uvicorn.Server(uvicorn.Config(app, port=0, **how))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < until, "the service took too long to start"
        time.sleep(0.01)
    for one in (reloader, *reloader.beside):
        one.prepared.result(180)  # a busy machine may compile for longer than an event waits
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    headers = {"Authorization": f"Bearer {tokens[0].decode()}"} if tokens else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield Served(url, reloader, client, app, arms)
    finally:
        server.should_exit = True
        thread.join(120)
    assert not thread.is_alive()
