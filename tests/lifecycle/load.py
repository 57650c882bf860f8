"""Clients that never let a service rest: one asks for rankings, one sends events, and nothing stops them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import httpx
import numpy as np

from mgoe.bundle import Bundle
from mgoe.serving import Event, EventReader

ASK, SEND = 0.05, 1.0
"""Seconds between two requests of each client."""
BATCH = 5
"""Events per request. Every third request is sent twice, as by a client that has missed the answer."""


def endless(bundle: Bundle) -> Iterator[Event]:
    """Events after the end of a bundle's log, a minute apart, of known and new users and items."""
    rng, last = np.random.default_rng(0), bundle.graph.manifest.last
    users, items = (bundle.ids(side, np.arange(bundle.size(side))) for side in ("user", "item"))
    users, items, number = [*users, 10_000, 10_001], [*items, 20_000, 20_001], 0
    names = list(EventReader.of(bundle).behaviors)
    while number := number + 1:
        user, item, name = (one[rng.integers(len(one))] for one in (users, items, names))
        yield Event(user, item, name, last + number * 60_000_000, str(number))


@dataclass
class Load:
    """What the clients of a service have seen.

    Attributes:
        events: What is sent, in this order.
        answers: Status of every answer, and the bundle that a ranking named.
        acknowledged: The events that the service has accepted.
    """

    events: Iterator[Any]
    answers: list[tuple[int, str]] = field(default_factory=list)
    acknowledged: list[Any] = field(default_factory=list)

    def ask(self, client: httpx.Client) -> None:
        """Ask for one ranking."""
        answer = client.post("/v1/rank", json={"user": 1, "k": 3})
        self.answers.append((answer.status_code, answer.json().get("bundle", "")))

    def send(self, client: httpx.Client) -> None:
        """Send some events, and now and then the same ones again."""
        batch = [event for _, event in zip(range(BATCH), self.events, strict=False)]
        again = len(self.acknowledged) // BATCH % 3 == 0
        for _ in range(1 + again):
            answer = client.post("/v1/events", json={"events": [asdict(event) for event in batch]})
            self.answers.append((answer.status_code, ""))
            assert answer.json()["accepted"] == BATCH, answer.text
        self.acknowledged += batch


L = TypeVar("L", bound=Load)


@contextmanager
def under_load(url: str, events: Iterator[Any], kind: type[L] = Load) -> Iterator[L]:
    """Keep a service busy while the block runs. A request that fails fails the test."""
    load, stop, broken = kind(events), threading.Event(), list[BaseException]()

    def repeat(request: Callable[[httpx.Client], None], pause: float) -> None:
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                while not stop.wait(pause):
                    request(client)
        except BaseException as error:
            broken.append(error)

    clients = ((load.ask, ASK), (load.send, SEND))
    threads = [threading.Thread(target=repeat, args=client) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not broken, broken
    assert {status for status, _ in load.answers} == {200}
