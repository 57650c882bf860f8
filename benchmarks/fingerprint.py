"""Hashes of everything that a change at constant behaviour must leave as it is.

    python benchmarks/fingerprint.py OUT.jsonl                       # the quick part, about a minute
    python benchmarks/fingerprint.py OUT.jsonl --part demo exposure  # 10,000 pairs, every model
    python benchmarks/fingerprint.py OUT.jsonl --part tmall --tmall PATH/tmall.parquet
    python benchmarks/fingerprint.py --compare OLD.jsonl NEW.jsonl

Set PYTHONPATH to the `src` folder of the tree to be measured. Processors round differently, so compare only
files that were written on one machine.

Each line is `{"name", "sha256"}`, with a number to look at (`value`) where there is one. Hashes are of the
exact bytes of arrays, with their type and shape. Answers over HTTP also keep their text (`answer`): two
answers are the same if every number agrees to 1e-6.

What is recorded of each log:

- `LOG.log`: the log itself, so that a difference in the simulator is not taken for one in the library;
- `LOG.groups.K.ARRAY`: every input group of many (user, item) pairs as of snapshot K, unknown ids among
them;
- `LOG.batch.SPLIT.ARRAY`: what training feeds a model that reads everything;
- `LOG.weights.MODEL`, `LOG.metrics.MODEL.SPLIT`, `LOG.bundle.MODEL`: trained parameters, metrics,
  predictions of the model's bundle;
- `LOG.metrics.all`, `LOG.leads`: rows of the whole run, reference rows included, and the intervals;
- `LOG.serve.MODEL.ENGINE.*`: answers of a service before and after a stream of live events;
- `LOG.live.*`: input groups, predictions and recommendations with those events;
- `LOG.refreshed`: predictions of the refreshed bundle.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

for _library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"
os.environ["COLUMNS"] = "200"
os.environ["PYTHONHASHSEED"] = "0"

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import safetensors  # noqa: E402
import yaml  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

import mgoe  # noqa: E402
from mgoe.cli import main as mgoe_command  # noqa: E402

# --- The only section that imports the library's inside: adapt it where a tree has other names


GROUPS = ("counts", "pair", "sketch", "edges", "aggregates", "recents")
"""Input groups that come from the graph."""
EVERYTHING = frozenset((*GROUPS, "ids", "side", "context"))
"""All input groups."""


def graph_arrays(folder: Path, snapshot: int | None, users: NDArray, items: NDArray) -> dict[str, NDArray]:
    """Read every group of pairs of indices from snapshot number `snapshot`, or from the latest one."""
    from mgoe.features import View, read
    from mgoe.graph import MacroGraph

    graph = MacroGraph.open(folder)
    at = graph.latest if snapshot is None else graph.snapshots[snapshot]
    return read(View.of(at), users, items, GROUPS)


def snapshots(folder: Path) -> int:
    """Count the snapshots that examples read."""
    from mgoe.graph import MacroGraph

    return len(MacroGraph.open(folder).snapshots)


def fed_batch(run: Path, settings: Path, split: str, rows: int) -> dict[str, NDArray]:
    """Return what training feeds a model that reads everything: some rows of a split."""
    from mgoe.config import load_settings
    from mgoe.pipeline.inputs import Inputs
    from mgoe.training import Feed

    inputs = Inputs.open(run, load_settings(settings))
    examples = inputs.prepared.examples(split)
    feed = Feed(inputs.prepared, inputs.graph, examples, EVERYTHING, inputs.spec)
    block = feed.block(np.linspace(0, len(examples) - 1, min(rows, len(examples))).astype(np.int64))
    return {name: tensor.numpy() for name, tensor in block.items()}


def live_arrays(bundle: Path, state: Path, users: Sequence[Any], items: Sequence[Any]) -> dict[str, NDArray]:
    """Read every group of pairs of ids from a bundle's graph with the live events of a state folder."""
    from mgoe.features import View, read
    from mgoe.serving import Consumer, open_log
    from mgoe.serving.online.overlay import LiveView

    live = Consumer.of(open_log(state, make=False), mgoe.load(bundle)).live
    with LiveView(View.of(live.snapshot), live).reading() as view:
        return read(view, *looked_up(live, users, items), GROUPS)


def looked_up(nodes: Any, users: Sequence[Any], items: Sequence[Any]) -> tuple[NDArray, NDArray]:
    """Look up the indices of ids, -1 where unknown, in a bundle or in live nodes."""
    return nodes.indices("user", users), nodes.indices("item", items)


# --- Lines


class Lines:
    """The file of lines, each written as soon as it is known."""

    def __init__(self, out: Path):
        out.parent.mkdir(parents=True, exist_ok=True)
        self._file = out.open("w", encoding="utf-8")
        self._started = time.perf_counter()

    def add(self, name: str, sha256: str, **more: Any) -> None:
        """Write one line."""
        self._file.write(json.dumps({"name": name, "sha256": sha256, **more}) + "\n")
        self._file.flush()

    def array(self, name: str, array: Any, value: float | None = None) -> None:
        """Write the hash of an array, and its mean to look at."""
        array = np.asarray(array)
        if value is None and array.dtype.kind in "fiub" and array.size:
            value = float(np.nanmean(array.astype(np.float64)))
        self.add(name, array_hash(array), **({} if value is None else {"value": float(f"{value:.6g}")}))

    def arrays(self, name: str, arrays: Mapping[str, NDArray]) -> None:
        """Write a line per array."""
        for key, array in sorted(arrays.items()):
            self.array(f"{name}.{key}", array)

    def answer(self, name: str, answer: Any) -> None:
        """Write an answer of a service with its text, which is compared to 1e-6."""
        kept = without_bundle(answer)
        text = json.dumps(kept, sort_keys=True)
        self.add(name, hashlib.sha256(text.encode()).hexdigest(), answer=kept)

    def say(self, what: str) -> None:
        """Print where the script is."""
        print(f"{time.perf_counter() - self._started:6.1f} s  {what}", file=sys.stderr, flush=True)


def array_hash(array: NDArray) -> str:
    """Hash an array's type, shape and bytes."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


def without_bundle(answer: Any) -> Any:
    """Return an answer without the bundle's name, which depends on versions."""
    if isinstance(answer, dict):
        return {key: without_bundle(value) for key, value in answer.items() if key != "bundle"}
    return [without_bundle(value) for value in answer] if isinstance(answer, list) else answer


# --- The library from outside: its command, its bundles, its service


def command(*arguments: Any) -> str:
    """Run an `mgoe` command in this process and return what it printed.

    Raises:
        RuntimeError: The command failed.
    """
    out, errors, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["mgoe", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            mgoe_command()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(
                f"`{' '.join(sys.argv)}` ended with {end.code}: {errors.getvalue()[-2000:]}"
            ) from None
    finally:
        sys.argv = before
    return out.getvalue()


class Service:
    """A real `mgoe serve` on loopback."""

    def __init__(self, bundle: Path, state: Path, engine: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        options = [
            "--port",
            self.url.rpartition(":")[2],
            "--state",
            state,
            "--engine",
            engine,
            "--no-access-log",
        ]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the service
        arguments = [sys.executable, "-m", "mgoe", "serve", *map(str, [bundle, *options])]
        self._process = subprocess.Popen(arguments, stdout=self._log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Service:
        end = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError):
                if self.get("/readyz")["status"] == "ready":
                    return self
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                self._log.seek(0)
                raise RuntimeError(f"the service did not start: {self._log.read()[-2000:]}")
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the answer to a GET request."""
        return self._answer(
            urllib.request.Request(
                f"{self.url}{path}?{urllib.parse.urlencode(query)}" if query else self.url + path
            )
        )

    def post(self, path: str, body: Any) -> Any:
        """Return the answer to a POST request."""
        head = {"Content-Type": "application/json"}
        return self._answer(urllib.request.Request(self.url + path, json.dumps(body).encode(), head))

    def _answer(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as refused:
            return {"status": refused.code}  # its sentence may be worded anew


# --- What is recorded of a log


@dataclass(frozen=True)
class Log:
    """A log, the run on it, and what to record.

    Attributes:
        name: First part of the lines' names.
        table: Rows of the log, from which ids are drawn.
        config: Settings of the run.
        behaviors: What a live event may be.
        context: Values of each context feature, drawn for every pair; empty for event logs.
        pairs: How many (user, item) pairs.
        events: How many live events.
        served: Model and engine of each service that is asked. The first one's events are read again after.
    """

    name: str
    table: pa.Table
    config: dict[str, Any]
    behaviors: Sequence[str]
    context: Mapping[str, Sequence[Any]]
    pairs: int
    events: int
    served: Sequence[tuple[str, str]]

    @property
    def user(self) -> str:
        return self.config["data"].get("user", "user_id")

    @property
    def item(self) -> str:
        return self.config["data"].get("item", "item_id")

    @property
    def models(self) -> list[str]:
        """Names of the run's models."""
        return [model if isinstance(model, str) else model["name"] for model in self.config["models"]]

    @cached_property
    def ids(self) -> dict[str, NDArray[np.int64]]:
        """Known ids of each side, rising."""
        return {
            side: np.unique(self.table[column].to_numpy()).astype(np.int64)
            for side, column in self._columns.items()
        }

    @property
    def _columns(self) -> dict[str, str]:
        return {"user": self.user, "item": self.item}

    def drawn_pairs(self, count: int, seed: int) -> tuple[list[int], list[int]]:
        """Draw pairs of ids: half of them from the log's rows, half at random, some of them unknown."""
        rng = np.random.default_rng(seed)
        rows = self.table.take(rng.integers(0, len(self.table), count // 2))
        found = []
        for side, column in self._columns.items():
            others = rng.choice(self.ids[side], count - count // 2)
            strange = rng.random(len(others)) < 0.04
            others = np.where(strange, self.unknown(side, rng.integers(0, 50, len(others))), others)
            found.append(np.concatenate([rows[column].to_numpy(), others]).tolist())
        return found[0], found[1]

    def unknown(self, side: str, number: Any) -> Any:
        """Return an id that the log does not hold."""
        return self.ids[side][-1] + 1 + number

    def drawn_context(self, count: int, seed: int) -> dict[str, list[Any]]:
        """Draw a value of each context feature for every pair."""
        rng = np.random.default_rng(seed)
        return {
            name: [values[n] for n in rng.integers(0, len(values), count)]
            for name, values in self.context.items()
        }

    def stream(self) -> list[dict[str, Any]]:
        """Draw live events: known and new nodes, retries of an event, events without an id, late events."""
        rng = np.random.default_rng(7)
        times = (
            self.table[self.config["data"].get("time", "timestamp")].cast(pa.timestamp("us")).cast(pa.int64())
        )
        first = int(times.to_numpy().max()) // 1_000_000
        events: list[dict[str, Any]] = []
        for number in range(self.events):
            if events and rng.random() < 0.05:
                events.append(dict(events[rng.integers(0, len(events))]))
                continue
            pair = {
                side: int(
                    self.unknown(side, rng.integers(0, 20))
                    if rng.random() < 0.15
                    else rng.choice(self.ids[side][:300])
                )
                for side in ("user", "item")
            }
            late = int(rng.random() < 0.1) * 40 * 86_400
            event = {**pair, "behavior": str(rng.choice(self.behaviors)), "time": first + 60 * number - late}
            events.append(event | ({"id": f"e{number}"} if rng.random() < 0.8 else {}))
        return events


def record(log: Log, lines: Lines, work: Path) -> None:
    """Run everything on a log and write its lines."""
    work.mkdir(parents=True)
    lines.array(f"{log.name}.log", np.array([column_hash(column) for column in log.table.columns]))
    config, run = work / "run.yaml", work / "run"
    config.write_text(yaml.safe_dump(log.config, sort_keys=False))
    users, items = log.drawn_pairs(log.pairs, seed=1)
    context = log.drawn_context(log.pairs, seed=2)
    bundles: dict[str, Path] = {}
    for model in log.models:
        if model.startswith("lightgbm"):
            continue  # trees have no bundle; `mgoe run` below fits and measures them
        command("train", config, "--out", run, "--model", model)
        lines.array(f"{log.name}.bundle.{model}", predictions(run / "bundle", users, items, context))
        weights(log, model, run, lines)
        if model in dict(log.served):
            bundles[model] = Path(shutil.copytree(run / "bundle", work / f"bundle-{model}"))
        lines.say(f"{log.name}: {model}")
    command("run", config, "--out", run)
    metrics(log, run, lines)
    nodes = looked_up(mgoe.load(run / "bundle"), users, items)
    for snapshot in [*range(snapshots(run / "graph")), None]:
        arrays = graph_arrays(
            run / "graph", snapshot, *nodes
        )  # an index beyond a snapshot is a node without history there
        lines.arrays(f"{log.name}.groups.{'latest' if snapshot is None else snapshot}", arrays)
    for split in ("train", "valid", "test"):
        lines.arrays(f"{log.name}.batch.{split}", fed_batch(run, run / "settings.yaml", split, log.pairs))
    lines.say(f"{log.name}: metrics, input groups and batches")
    for number, (model, engine) in enumerate(log.served):
        state = work / f"state-{number}"
        serve(log, f"{log.name}.serve.{model}.{engine}", bundles[model], state, engine, lines)
        if number == 0:
            after(log, bundles[model], state, users, items, context, work, lines)
        lines.say(f"{log.name}: {model} served by {engine}")


def column_hash(column: pa.ChunkedArray) -> str:
    """Hash the values of a log's column."""
    values = column if pa.types.is_list(column.type) else column.cast(pa.string())
    return hashlib.sha256(json.dumps(values.to_pylist()).encode()).hexdigest()


def predictions(
    bundle: Path, users: Sequence[Any], items: Sequence[Any], context: Mapping[str, Any]
) -> NDArray:
    """Return what a bundle predicts of pairs. Shape (B, T)."""
    found = mgoe.load(bundle).predict(users, items, context or None)
    return found[[name for name in found.columns if name not in ("user", "item")]].to_numpy()


def weights(log: Log, model: str, run: Path, lines: Lines) -> None:
    """Write one hash of a model's parameters, whatever their names and their order."""
    with safetensors.safe_open(run / "bundle" / "model.safetensors", "pt") as tensors:
        hashes = sorted(array_hash(tensors.get_tensor(name).float().numpy()) for name in tensors.keys())  # noqa: SIM118
    lines.add(
        f"{log.name}.weights.{model}", hashlib.sha256("".join(hashes).encode()).hexdigest(), value=len(hashes)
    )


def metrics(log: Log, run: Path, lines: Lines) -> None:
    """Write the hashes of all metrics, exact to the bit, and the intervals of leads."""
    found = pd.DataFrame(json.loads((run / "metrics.json").read_text()))
    keys = ["model", "seed", "split", "slice", "task", "metric"]
    found = found.sort_values(keys, kind="stable")
    for (model, split), rows in found.groupby(["model", "split"], sort=True):
        values = rows["value"].astype(float).to_numpy()
        auc = rows[(rows["slice"] == "all") & (rows["metric"] == "auc")]["value"].astype(float).mean()
        names = "\n".join(" ".join(map(str, row)) for row in rows[keys].itertuples(index=False))
        both = hashlib.sha256(names.encode() + values.tobytes()).hexdigest()
        lines.add(
            f"{log.name}.metrics.{model}.{split}",
            both,
            **({} if math.isnan(auc) else {"value": float(f"{auc:.6g}")}),
        )
    lines.array(f"{log.name}.metrics.all", found["value"].astype(float).to_numpy())
    lines.answer(f"{log.name}.leads", json.loads(command("evaluate", run, "--json"))["leads"])


def serve(log: Log, name: str, bundle: Path, state: Path, engine: str, lines: Lines) -> None:
    """Ask a service before and after the stream of events, and record every answer."""
    with Service(bundle, state, engine) as service:
        ask(log, f"{name}.before", service, lines)
        events, outcomes = log.stream(), []
        for first in range(0, len(events), 50):
            outcomes.append(service.post("/v1/events", {"events": events[first : first + 50]}))
        for outcome in outcomes:
            outcome["outcomes"] = [
                one["outcome"] for one in outcome["outcomes"]
            ]  # a refusal may be worded anew
        lines.answer(f"{name}.events", outcomes)
        ask(log, f"{name}.after", service, lines)


def ask(log: Log, name: str, service: Service, lines: Lines) -> None:
    """Record answers of `/v1/rank`, `/v1/score`, `/v1/explain`, `/v1/about` and `/v1/macro`."""
    rng = np.random.default_rng(3)
    moved = {side: list(dict.fromkeys(event[side] for event in log.stream())) for side in ("user", "item")}
    known = [int(user) for user in rng.choice(log.ids["user"], 2, replace=False)]
    users = [*known, *moved["user"][:4], int(log.unknown("user", 3)), int(log.unknown("user", 99))]
    for number, user in enumerate(users):
        drawn = rng.choice(log.ids["item"], min(480, len(log.ids["item"])), replace=False)
        candidates = [*moved["item"][:19], *map(int, drawn), int(log.unknown("item", 99))]
        given = {key: values[0] for key, values in log.drawn_context(1, seed=number).items()}
        own = {"context": given} if given else {}
        asked = {"user": user, "candidates": candidates, "k": 600, **own}
        lines.answer(f"{name}.rank.{number}", service.post("/v1/rank", asked))
        lines.answer(f"{name}.catalogue.{number}", service.post("/v1/rank", {"user": user, "k": 50, **own}))
        items = candidates[:20] + candidates[-1:]
        lines.answer(
            f"{name}.score.{number}", service.post("/v1/score", {"users": [user], "items": items, **own})
        )
        query = {"context": json.dumps(given)} if given else {}
        for place, item in (("user", None), ("item", items[0]), ("stranger", items[-1])):
            explained = service.get(
                "/v1/explain", user=user, **({} if item is None else {"item": item}), **query
            )
            lines.answer(f"{name}.explain.{number}.{place}", explained)
    objective = {"user": users[0], "k": 50, "objective": f"{log.behaviors[0]} * {log.behaviors[-1]} ^ 0.5"}
    lines.answer(f"{name}.objective", service.post("/v1/rank", objective))
    filters = {
        "user": users[0],
        "k": 50,
        "exclude_known": True,
        "at_least": {log.behaviors[0]: 0.02},
    }
    lines.answer(f"{name}.filters", service.post("/v1/rank", filters))
    for path in ("about", "macro"):
        lines.answer(f"{name}.{path}", service.get(f"/v1/{path}"))


def after(
    log: Log,
    bundle: Path,
    state: Path,
    users: Sequence[Any],
    items: Sequence[Any],
    context: Mapping[str, Any],
    work: Path,
    lines: Lines,
) -> None:
    """Record what else reads the live events: the arrays, `predict`, `recommend`, the refreshed bundle."""
    new = (
        [int(log.unknown("user", n % 20)) for n in range(200)],
        [int(log.unknown("item", n % 17)) for n in range(200)],
    )
    touched = [event["user"] for event in log.stream()], [event["item"] for event in log.stream()][::-1]
    live = [*users, *new[0], *touched[0]], [*items, *new[1], *touched[1]]
    lines.arrays(f"{log.name}.live", live_arrays(bundle, state, *live))
    pq.write_table(pa.table({log.user: live[0], log.item: live[1]}), work / "pairs.parquet")
    command("predict", bundle, work / "pairs.parquet", "--out", work / "live.parquet", "--state", state)
    lines.array(
        f"{log.name}.live.predict", pq.read_table(work / "live.parquet").to_pandas().iloc[:, 2:].to_numpy()
    )
    for number, user in enumerate((int(log.ids["user"][0]), int(log.unknown("user", 3)))):
        best = command("recommend", bundle, user, "--exclude-known", "--state", state, "--json")
        lines.answer(f"{log.name}.live.recommend.{number}", json.loads(best))
    command("update", bundle, "--state", state, "--groups", "keep", "--out", work / "refreshed")
    kept = {
        name: [*values, *([values[0]] * (len(live[0]) - len(values)))] for name, values in context.items()
    }
    lines.array(f"{log.name}.refreshed", predictions(work / "refreshed", *live, kept))


# --- The logs

TINY = ["--users", "200", "--items", "100", "--exposures", "12000", "--set", "days=30"]
TINY += ["--set", "user_communities=4", "--set", "item_communities=5"]
SMALL = {
    "split": {"cuts": [0.4, 0.6, 0.8]},
    "training": {"epochs": 1, "batch_size": 1024},
    "evaluation": {"ranking_queries": 10},
    "graph": {"recents": 5, "rank": 8},
}
"""Settings of runs on the tiny logs."""
ALL_INPUTS = ["ids", "side", "context", "recents", "counts", "pair", "sketch", "edges", "aggregates"]
EVERY_PART = {
    "name": "mgoe-everything",
    "base": "mgoe",
    "ids": "on",
    "inputs": ALL_INPUTS,
    "options": {
        "products": 8,
        "table": True,
        "one_gate": False,
        "gate_query": "inputs",
        "shared_macro": True,
    },
}
"""`mgoe` with what its default leaves out."""
PLAIN = ["single-task", "shared-bottom", "omoe", "mmoe", "ple", "esmm", "aitm", "metaheac", "stem", "home"]
EVERY_MODEL = [
    *["mgoe", "mgoe-paper", *PLAIN, "macgnn", "lightgbm", EVERY_PART],
    *["mgoe-paper+mgoe", "macgnn+mgoe", "lightgbm+mgoe", "mmoe+counts", "mmoe+edges", "mmoe+graph"],
    *[f"{name}+mgoe" for name in PLAIN],
    {"name": "shared-bottom-knots", "base": "shared-bottom+mgoe", "options": {"knots": [-1, 0, 1]}},
]


def quick(lines: Lines, work: Path, _: argparse.Namespace) -> None:
    """Record a tiny event log and a tiny exposure log with every kind of feature."""
    command("simulate", "--out", work / "world", *TINY)
    events = pq.read_table(work / "world" / "events")
    config = {
        "data": {"log": str(work / "world" / "events"), "truth": str(work / "world" / "truth")},
        "tasks": ["click", "buy"],
        **SMALL,
        "models": ["mgoe", "mgoe-paper", "mmoe", "lightgbm", "home+mgoe", EVERY_PART],
    }
    served = [("mgoe", "onnx"), ("mgoe-paper", "torch")]
    record(Log("events", events, config, ["click", "buy"], {}, 2_000, 200, served), lines, work / "events")
    shown = write_exposures(work / "world", work / "exposures-log")
    config = (
        exposure_config(work / "exposures-log")
        | SMALL
        | {"models": ["mgoe", "mgoe-paper", "shared-bottom+counts"]}
    )
    log = Log("exposures", shown, config, ["click", "buy"], CONTEXT, 2_000, 200, [("mgoe", "torch")])
    record(log, lines, work / "exposures")


def demo(lines: Lines, work: Path, _: argparse.Namespace) -> None:
    """Record the demo's log with every model, one epoch each."""
    command("simulate", "--out", work / "world")
    tasks = ["click", "favour", "cart", "buy"]
    config = {
        "data": {"log": str(work / "world" / "events"), "truth": str(work / "world" / "truth")},
        "tasks": tasks,
        "models": EVERY_MODEL,
        "training": {"epochs": 1},
        "evaluation": {"ranking_queries": 20},
    }
    served = [("mgoe", "onnx"), ("mgoe-paper", "onnx"), ("mgoe", "torch"), ("mgoe-everything", "torch")]
    events = pq.read_table(work / "world" / "events")
    record(Log("demo", events, config, tasks, {}, 10_000, 1_000, served), lines, work / "demo")


def exposure(lines: Lines, work: Path, _: argparse.Namespace) -> None:
    """Record an exposure log with every kind of feature."""
    command(
        "simulate",
        "--out",
        work / "world",
        "--users",
        "3000",
        "--items",
        "1500",
        "--exposures",
        "200000",
        "--form",
        "exposures",
    )
    shown = write_exposures(work / "world", work / "exposure-log")
    models = [
        "mgoe",
        "mgoe-paper",
        EVERY_PART,
        "shared-bottom",
        "mmoe+mgoe",
        "esmm+mgoe",
        "home",
        "stem+mgoe",
        "lightgbm",
        "macgnn",
    ]
    more = {"models": models, "training": {"epochs": 1}, "evaluation": {"ranking_queries": 20}}
    config = exposure_config(work / "exposure-log") | more
    served = [("mgoe", "onnx"), ("mgoe-paper", "onnx"), ("mgoe-everything", "torch")]
    record(
        Log("exposure", shown, config, ["click", "buy"], CONTEXT, 10_000, 1_000, served),
        lines,
        work / "exposure",
    )


def tmall(lines: Lines, work: Path, given: argparse.Namespace) -> None:
    """Record `mgoe` on the Tmall log with the settings of `examples/tmall.yaml`, one seed."""
    if given.tmall is None:
        raise SystemExit("--part tmall needs --tmall PATH/tmall.parquet")
    config = yaml.safe_load((Path(__file__).resolve().parents[1] / "examples" / "tmall.yaml").read_text())
    config["data"]["log"] = str(given.tmall.resolve())
    config |= {"models": ["mgoe"], "seeds": [0], "jobs": 1}
    table = pq.read_table(given.tmall)
    served = [("mgoe", "onnx")]
    record(
        Log("tmall", table, config, ["click", "fav", "buy"], {}, 10_000, 1_000, served), lines, work / "tmall"
    )


CONTEXT = {
    "device": ["phone", "desktop", "tablet", "never seen", None],
    "hour": [0.0, 7.5, 23.0, None],
    "places": [["home"], ["home", "work"], [], ["nowhere"]],
}
"""Context of the exposure logs: a categorical, a numeric and a several-valued feature."""


def exposure_config(folder: Path) -> dict[str, Any]:
    """Settings of a run on an exposure log with every kind of feature and label."""
    features = [
        {"name": "kind", "min_count": 2},
        {"name": "age", "kind": "numeric"},
        {"name": "tags", "kind": "multi"},
    ]
    return {
        "data": {
            "log": str(folder / "log.parquet"),
            "context": [
                {"name": "device"},
                {"name": "hour", "kind": "numeric"},
                {"name": "places", "kind": "multi"},
            ],
            "position": "position",
            "weight": "weight",
            "users": {"path": str(folder / "users.parquet"), "id": "user_id", "features": features},
            "items": {"path": str(folder / "items.parquet"), "id": "item_id", "features": features},
        },
        "tasks": [
            {"name": "click", "label": "click"},
            {"name": "favour", "label": "favour", "rank": 2.5, "weight": 0.5},
            {"name": "buy", "label": "buy", "given": "click", "delay": "2d"},
            {"name": "stay", "label": "stay", "kind": "regression", "known_at": "stay_known"},
        ],
    }


def write_exposures(world: Path, folder: Path) -> pa.Table:
    """Write a simulated exposure log with drawn context, weights, missing labels and two side tables."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    shown = pq.read_table(world / "exposures")
    n = len(shown)
    places = pa.array(
        [["home", "work", "bus"][:size] for size in rng.integers(0, 4, n)], pa.list_(pa.string())
    )
    favour = pa.array(shown["favour"].to_numpy(), mask=rng.random(n) < 0.3)
    later = rng.integers(0, 3 * 86_400, n) * 1000
    known = pa.array(
        shown["timestamp"].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy() + later, pa.timestamp("ms")
    )
    columns = {
        **{
            name: shown[name]
            for name in ("user_id", "item_id", "timestamp", "position", "click", "buy", "stay")
        },
        "favour": favour,
        "device": shown["device"].cast(pa.string()),
        "hour": pa.array(rng.random(n) * 24, mask=rng.random(n) < 0.1),
        "places": places,
        "weight": rng.choice([0.5, 1.0, 2.0], n),
        "stay_known": known,
    }
    table = pa.table(columns)
    pq.write_table(table, folder / "log.parquet")
    for side in ("user", "item"):
        ids = np.unique(table[f"{side}_id"].to_numpy())
        ids = ids[: len(ids) * 9 // 10]
        tags = [
            "|".join(sorted(rng.choice(["a", "b", "c", "d", "e"], size, replace=False)))
            for size in rng.integers(0, 4, len(ids))
        ]
        features = {
            f"{side}_id": ids,
            "kind": rng.choice(["x", "y", "z"], len(ids)),
            "age": pa.array(rng.normal(40, 12, len(ids)), mask=rng.random(len(ids)) < 0.1),
            "tags": tags,
        }
        pq.write_table(pa.table(features), folder / f"{side}s.parquet")
    return table


PARTS: dict[str, Callable[[Lines, Path, argparse.Namespace], None]] = {
    "quick": quick,
    "demo": demo,
    "exposure": exposure,
    "tmall": tmall,
}

# --- Comparing


def compare(old: Path, new: Path) -> int:
    """Print how two files differ.

    Returns:
        The number of lines that differ or stand in one file alone.
    """
    lines = [
        {line["name"]: line for line in map(json.loads, file.read_text().splitlines())} for file in (old, new)
    ]
    differences = rounded = 0
    missing: list[dict[str, int]] = [{}, {}]
    for name in sorted({*lines[0], *lines[1]}, key=_by_number):
        one, other = (held.get(name) for held in lines)
        if one is None or other is None:
            group = ".".join(name.split(".")[:2])
            counts = missing[one is None]
            counts[group] = counts.get(group, 0) + 1
        elif one["sha256"] == other["sha256"]:
            continue
        elif "answer" in one and (apart := first_difference(one["answer"], other.get("answer"))) is None:
            rounded += 1
            continue
        else:
            found = f" at {apart}" if "answer" in one else f": {one.get('value')} -> {other.get('value')}"
            print(f"differs: {name}{found}")
        differences += 1
    for file, counts in zip((old, new), missing, strict=True):
        for group, count in counts.items():
            print(f"only in {file}: {count} lines {group}.*")
    both = len(lines[0].keys() & lines[1].keys())
    print(
        f"{both} lines in both; {differences} differ or stand in one file alone, "
        f"{rounded} answers agree to {CLOSE:g} but not exactly"
    )
    return differences


CLOSE = 1e-6
"""How near numbers of answers over HTTP must be, absolutely or relative to their size."""


def first_difference(one: Any, other: Any, place: str = "answer") -> str | None:
    """Find where two answers first differ by more than rounding; None where they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = sorted(one.keys() & other.keys())
        if (apart := first_of((one[key], other[key], f"{place}.{key}") for key in both)) is not None:
            return apart
        alone = sorted(one.keys() ^ other.keys())
        return f"{place}: only one of them has {alone}, all else agrees" if alone else None
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{place}: {len(one)} -> {len(other)} entries"
        return first_of((a, b, f"{place}.{n}") for n, (a, b) in enumerate(zip(one, other, strict=True)))
    same = close(one, other) if isinstance(one, float) or isinstance(other, float) else one == other
    return None if same else f"{place}: {one!r} -> {other!r}"


def first_of(pairs: Iterator[tuple[Any, Any, str]]) -> str | None:
    """Find the first difference among the parts of two answers."""
    return next(
        (found for a, b, where in pairs if (found := first_difference(a, b, where)) is not None), None
    )


def close(one: Any, other: Any) -> bool:
    """See whether two numbers, or a number and nothing, are the same but for rounding."""
    if one is None or other is None:
        return one is other
    return (one != one and other != other) or math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)


def _by_number(name: str) -> list[Any]:
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"\.", name)]


def main() -> None:
    """Record, or compare two records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", help="file of the lines")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["quick"], help="quick by default")
    parser.add_argument("--tmall", type=Path, help="the Tmall log, for its part")
    parser.add_argument("--work", type=Path, help="keep logs, runs and bundles in this new folder")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="two files of lines")
    given = parser.parse_args()
    if given.compare:
        raise SystemExit(compare(*given.compare) > 0)
    if given.out is None:
        parser.error("name the file of the lines, or --compare two of them")
    lines = Lines(given.out)
    with tempfile.TemporaryDirectory() as scratch:
        for part in given.part:
            folder = (given.work or Path(scratch)) / part
            folder.mkdir(parents=True)
            PARTS[part](lines, folder, given)
    lines.say(f"written: {given.out}")


if __name__ == "__main__":
    main()
