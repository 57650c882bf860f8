"""The example of Kafka against the mock cluster of librdkafka: nothing is lost or counted twice."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import mgoe
from mgoe.serving import Consumer, open_log
from mgoe.serving.events.log import ServiceLog
from tests.effort import SOAK
from tests.lifecycle.test_taken import requests
from tests.serving.served import post, served

kafka = pytest.importorskip("confluent_kafka", reason="not installed: pip install confluent-kafka")
EXAMPLE = Path(__file__).parents[1] / "examples" / "kafka.py"
CRASHES = """
import os, runpy, sys, urllib.request
import confluent_kafka
where = sys.argv.pop(1)
if where == "before it sends":
    urllib.request.urlopen = lambda *_, **__: os._exit(9)
class Consumer(confluent_kafka.Consumer):
    def commit(self, **how):
        super().commit(**how) if where == "before it sends" else os._exit(9)
confluent_kafka.Consumer = Consumer
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
"""The example, which crashes before it sends a batch, or before it commits what was acknowledged."""


@contextmanager
def busy(url: str, times: int) -> Iterator[str]:
    """A gateway that answers 503 at first, and then passes on to a service."""
    left = iter(range(times))

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            passed = None if next(left, None) is not None else post(url + self.path, content=body)
            self.send_response(503 if passed is None else passed.status_code)
            self.end_headers()
            self.wfile.write(b"" if passed is None else passed.content)

        def log_message(self, format: str, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_crash_loses_nothing_and_counts_nothing_twice(shown: Path, tmp_path: Path):
    bundle = mgoe.load(shown / "bundle")
    producer = kafka.Producer({"test.mock.num.brokers": 1})
    [broker] = producer.list_topics(timeout=60).brokers.values()
    asked = requests(bundle, 10)
    records = [{"exposures": one} for request in asked for one in request["exposures"]]
    records += [{"labels": one} for request in asked for one in request["labels"]]
    records += [{"events": {"user": 10**9 + n, "item": 1, "behavior": "click"}} for n in range(20)]
    records.insert(5, {"events": {"user": 1, "item": 1, "behavior": "unheard of"}})
    values = [*map(json.dumps, records), "no JSON", '{"clicks": {}}', '{"events": 5}']
    for value in values:
        producer.produce("behaviour", value)
    assert producer.flush(60) == 0
    with served(shown / "bundle", tmp_path / "state") as service, busy(service.url, times=2) as url:
        failed, words = "", [EXAMPLE, url, f"{broker.host}:{broker.port}", "behaviour"]
        for where in ("before it sends", "before it commits") if SOAK else ():  # Kafka waits 45 s after each
            crash = [sys.executable, "-c", CRASHES, where, *words]
            crashed = subprocess.run(crash, stderr=subprocess.PIPE, timeout=300)
            assert crashed.returncode == 9, crashed.stderr
            failed = crashed.stderr.decode()
        reader = kafka.Consumer({"bootstrap.servers": words[2], "group.id": "mgoe"})
        numbers = producer.list_topics("behaviour").topics["behaviour"].partitions
        parts = [kafka.TopicPartition("behaviour", number) for number in numbers]
        with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE) as again:
            assert again.stderr is not None
            end = time.monotonic() + 300
            while sum(max(0, part.offset) for part in reader.committed(parts)) < len(values):
                assert time.monotonic() < end
                assert again.poll() is None, again.stderr.read()
                time.sleep(0.2)
            again.terminate()
            said = again.stderr.read().decode()
        assert (failed if SOAK else said).count("HTTP Error 503") == 2
        reader.close()
    assert said.count("holds no record") == 3
    assert said.count("is refused: ") == 1
    taken = ServiceLog(tmp_path / "state" / "log.sqlite").counts
    assert (taken["exposures taken"], taken["labels dropped"], taken["labels waiting"]) == (40, 0, 0)
    live = Consumer.of(open_log(tmp_path / "state"), bundle).live
    assert live.stats["events"] == 20
