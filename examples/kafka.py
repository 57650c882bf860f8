"""From a topic of Kafka to a service: `pip install confluent-kafka`, and

    MGOE_TOKEN=... python examples/kafka.py http://127.0.0.1:8000 localhost:9092 behaviour

The value of each message is one record of `/v1/events` under its kind, such as `{"events": {"user": 42,
"item": 7, "behavior": "click"}}`; the other kinds are `exposures` and `labels`. A batch is committed once it
is acknowledged, so nothing is lost. What is read again after a crash counts once: an event without an id gets
one of its place in the topic, and a record without a time gets that of its message.
"""

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from confluent_kafka import Consumer, KafkaException, Message

KINDS = ("events", "exposures", "labels")
BUSY = (408, 429, 502, 503, 504)
"""Answers after which the same body is sent again."""


def read(message: Message) -> tuple[str, str, dict[str, Any]] | None:
    """Return place, kind and record of a message; None, and a line in the log, if it holds no record."""
    place = f"{message.topic()}/{message.partition()}/{message.offset()}"
    try:
        [(kind, record)] = json.loads(message.value() or b"").items()
        moment = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC).isoformat()
        extra = {"id": place} if kind == "events" else {}
        return place, KINDS[KINDS.index(kind)], {"time": moment} | extra | record
    except (AttributeError, TypeError, ValueError):
        logging.error("%s holds no record of /v1/events, and is left out", place)
        return None


def send(url: str, body: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Send a body until it is acknowledged, and return what became of each record."""
    headers = {"Authorization": f"Bearer {os.environ.get('MGOE_TOKEN', '')}"}
    request, pause = Request(f"{url}/v1/events", json.dumps(body).encode(), headers), 0.1
    while True:
        try:
            with urlopen(request, timeout=30) as answer:
                return json.load(answer)["outcomes"]
        except OSError as error:
            if isinstance(error, HTTPError) and error.code not in BUSY:
                raise  # such as a wrong token; nothing is committed
            logging.warning("%s; the next attempt is in %.1f s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, 30)


def main(url: str, servers: str, topic: str) -> None:
    """Pass on all messages, from the first that is not committed."""
    group = {"group.id": "mgoe", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": servers} | group)
    consumer.subscribe([topic])
    while True:
        messages = [message for message in consumer.consume(500, timeout=0.5) if message.error() is None]
        found = sorted(filter(None, map(read, messages)), key=lambda one: KINDS.index(one[1]))
        if found:
            body = {kind: [record for _, of, record in found if of == kind] for kind in KINDS}
            for (place, _, _), outcome in zip(found, send(url, body), strict=True):
                if outcome["outcome"] == "refused":
                    logging.error("%s is refused: %s", place, outcome["error"])
        if messages:
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as error:  # another consumer has the partition now, and reads them again
                logging.warning("not committed: %s", error)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    main(*sys.argv[1:])
