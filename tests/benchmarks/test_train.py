"""The benchmark of training runs on a log of a thousand users, prints what it says, and its peers are of our
size and learn.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks import peers, prepared, steps, train
from tests.benchmarks.test_graph_benchmark import lines
from tests.effort import SOAK, slow

USERS, EXAMPLES, BATCH = 1000, 30_000 if SOAK else 12_000, 256
with_peers = pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in peers.PACKAGES),
    reason="the extra `bench` is not installed",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def log(work: Path, children_here: None) -> Iterator[prepared.Made]:
    with prepared.made(work, USERS, EXAMPLES, keep=True) as found:
        yield found


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plan(log: prepared.Made) -> train.Plan:
    return train.Plan(log, rounds=1, batch_size=BATCH, short=True)


def test_every_figure_has_its_line(log: prepared.Made, work: Path, capsys: pytest.CaptureFixture[str]):
    options = [
        "--users",
        f"{USERS}",
        "--examples",
        f"{EXAMPLES}",
        "--batch-size",
        f"{BATCH}",
        "--rounds",
        "1",
        "--short",
        "--no-peers",
    ]
    train.main([*options, "--work", str(work)])
    found = lines(capsys.readouterr().out)
    rates = {
        f"{name}_samples_per_s{place}"
        for name in ("mgoe", "default")
        for place in ("", ".two_cores", ".two_threads")
    }
    shares = {f"share.{model}.{stage}" for model in ("paper", "mgoe") for stage in ("feeding", *steps.STAGES)}
    fed = {f"feed_rows_per_s{end}" for end in ("", ".disk", ".default")}
    others = {
        "step_vs_rowwise_dense_adam",
        "floor_samples_per_s",
        "floor_ratio",
        "step_samples_per_s.paper",
        "step_samples_per_s.mgoe",
        "cpu_us.paper",
        "cpu_us.mgoe",
    }
    assert set(found) == {f"train.{name}" for name in rates | shares | fed | others}
    assert all(figure["value"] > 0 for figure in found.values())
    for model in ("paper", "mgoe"):
        assert sum(
            found[f"train.share.{model}.{stage}"]["value"] for stage in ("feeding", *steps.STAGES)
        ) == pytest.approx(1, abs=1e-3)
    compared = found["train.step_vs_rowwise_dense_adam"]
    assert compared["ratio"] == pytest.approx(compared["value"] / compared["against"], rel=1e-3)


def test_examples_are_of_the_log(log: prepared.Made):
    examples = log.prepared.examples("train")
    positive = examples.labels.sum(1)
    assert len(examples) == len(log.prepared.streamed("train")) == EXAMPLES
    assert positive.sum() == EXAMPLES / 2
    assert set(np.unique(positive)) == {0, 1}
    assert (examples.snapshot == 0).all()
    for graph in log.graphs.values():
        known = [graph.latest.known_items(int(user)) for user in examples.user[positive > 0][:200]]
        assert all(
            item in items for item, items in zip(examples.item[positive > 0][:200], known, strict=True)
        )


@slow
def test_what_was_made_is_removed_unless_it_is_kept(tmp_path: Path):
    with prepared.made(tmp_path, USERS, 1000, keep=False) as found:
        assert len(found.prepared.examples("train")) == 1000
    assert list(tmp_path.iterdir()) == []


def test_the_rowwise_loop_trains_the_same_model(log: prepared.Made):
    """Its first losses are ours, though rows are collated one by one."""
    training = plan(log).training(train.PAPER, "plain", 20)
    inputs = next(training.feed().batches(len(training.examples)))
    model = training.model()
    peer = peers.rowwise_dense_adam(model, inputs, BATCH)
    collated = next(iter(DataLoader(peers.Rows(inputs), len(training.examples))))
    with torch.no_grad():
        ours, theirs = training.model().loss(inputs)[0], model.loss(collated)[0]
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    assert peer.run() > 0
    assert not model.tables()
    with torch.no_grad():
        assert float(model.loss(inputs)[0]) < float(ours)


@with_peers
@pytest.mark.parametrize("peer", train.PEERS)
def test_a_peer_is_of_our_size_and_learns(peer: str, log: prepared.Made, capfd: pytest.CaptureFixture[str]):
    training = plan(log).training(train.MMOE, "plain", 100)
    examples, spec = training.examples, training.spec
    peer = train.PEERS[peer](examples, spec.n_users + 1, spec.n_items + 1, BATCH)
    ours = training.model()
    tables = peers.WIDTH * (spec.n_users + spec.n_items + 2)
    assert sum(table.numel() for table in ours.tables()) == tables
    assert peers.parameters(peer.model) - tables == pytest.approx(peers.parameters(ours) - tables, rel=0.05)
    before = [parameter.detach().clone() for parameter in peer.model.parameters()]
    assert peer.run() > 0
    assert all(not torch.equal(old, new) for old, new in zip(before, peer.model.parameters(), strict=True))
    assert capfd.readouterr() == ("", "")


def test_a_missing_peer_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(peers.PACKAGES, "no_such_module", "no-such-package")
    with pytest.raises(
        SystemExit,
        match=r"need .*no-such-package, found no such package; `pip install -e '.\[bench\]'`.*--no-peers",
    ):
        train.main(["--users", "1000"])


def test_the_floor_holds_products_both_ways(log: prepared.Made):
    training = plan(log).training(train.PAPER, "plain", 20)
    calls = training.floor_calls()
    names = [operator.overloadpacket.__name__ for operator, _ in calls]
    assert names.count("embedding") == 4, "users, items, and both halves of the macro task table"
    assert {"mm", "bmm"} <= set(names)
    assert names[-1] in {"mm", "bmm"}, "the last is of the backward pass"
