"""Sharded tables learn what whole tables learn, and any number of processes can read what any other wrote."""

import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mgoe.config import TrainingSettings
from mgoe.errors import MissingExtra, TrainingError
from mgoe.models import make_model
from mgoe.models.layers import inputs, tables
from mgoe.training import ProcessGroup, RowwiseAdagrad, fit, load_weights, predict, save_checkpoint
from mgoe.training.distributed import sharded
from mgoe.training.distributed.sharded import (
    OpenedTable,
    ShardedTable,
    connect_optimizers,
    free_memory,
    place_tables,
    torchrec,
    unshard,
)
from mgoe.training.resume import Checkpoints
from tests.effort import SOAK, slow
from tests.models.batches import make_spec
from tests.training.distributed.side_by_side import together
from tests.training.distributed.test_process_group import PROGRAM, VALID, found_by
from tests.training.fakes import Model, make_feed
from tests.training.test_loop import TRAIN, training, weights

CPU, TWO = torch.device("cpu"), ProcessGroup(0, 2)


def missing() -> str:
    """Why sharded tables cannot be had here; nothing where they can."""
    try:
        torchrec()
    except MissingExtra as error:
        return str(error)
    return ""


with_torchrec = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    model = Model()
    return model, fit(model, TRAIN, VALID, training(), tmp_path_factory.mktemp("alone"), seed=5)


@pytest.fixture
def group(tmp_path) -> Iterator[ProcessGroup]:
    """This process as a group of its own."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield ProcessGroup(0, 1)
    dist.destroy_process_group()


def assert_learned(model: nn.Module, found) -> None:
    """What is found is what the model learned alone."""
    for name, tensor in weights(model).items():
        torch.testing.assert_close(found[name], tensor, atol=2e-4, rtol=1e-3)


@with_torchrec
def test_two_processes_with_sharded_tables_are_one(tmp_path, alone):
    model, result = alone
    together(2, PROGRAM, str(tmp_path), json.dumps({"tables": "sharded"}))
    first, second = found_by(tmp_path, 0), found_by(tmp_path, 1)
    assert first["predictions"] == second["predictions"]
    for mine, theirs, other in zip(result.curves, first["curves"], second["curves"], strict=True):
        assert theirs["losses"] == other["losses"]
        assert theirs["losses"] == pytest.approx(mine["losses"], abs=1e-4)
    again = Model(seed=7)
    load_weights(again, tmp_path / "model.safetensors")
    assert_learned(model, again.state_dict())
    np.testing.assert_allclose(first["predictions"], predict(again, VALID), atol=1e-6)


@with_torchrec
@pytest.mark.parametrize(
    ("first", "then"),
    [((2, "sharded"), (1, "auto"))]
    + [
        ((1, "auto"), (2, "sharded")),
        ((2, "sharded"), (4, "sharded")),
        ((2, "sharded"), (2, "replicated")),
    ]
    * SOAK,
)
def test_another_number_of_processes_resumes_a_checkpoint(tmp_path, alone, first, then):
    together(first[0], PROGRAM, str(tmp_path), json.dumps({"tables": first[1], "leave": 2}))
    left = Checkpoints(tmp_path / "checkpoints").latest()
    assert left is not None
    assert left[1]["state"]["epochs"] == 1
    together(then[0], PROGRAM, str(tmp_path), json.dumps({"tables": then[1]}))
    for rank in range(then[0]):  # to the second that the first epoch took: it was not trained again
        assert found_by(tmp_path, rank)["curves"][0] == left[1]["state"]["curves"][0]
    again = Model(seed=7)
    load_weights(again, tmp_path / "model.safetensors")
    assert_learned(alone[0], again.state_dict())


@slow
@with_torchrec
def test_an_interrupted_fit_with_sharded_tables_resumes_bit_for_bit(tmp_path):
    for out, cuts in (("whole", [{}]), ("cut", [{"leave": 2}, {}])):
        (tmp_path / out).mkdir()
        for cut in cuts:
            together(2, PROGRAM, str(tmp_path / out), json.dumps({"tables": "sharded", **cut}))
    assert found_by(tmp_path / "cut", 0)["predictions"] == found_by(tmp_path / "whole", 0)["predictions"]


FEW_ROWS = """
import json, sys
import torch
from torch import nn
from mgoe.config import TrainingSettings
from mgoe.training import joined, predict
from mgoe.training.distributed.sharded import place_tables
from tests.training.fakes import Model, make_feed
with joined("cpu") as processes:
    torch.manual_seed(0)
    holder = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Embedding(5, 4, sparse=True))
    whole = holder[0].weight.detach().clone()
    place_tables(holder, TrainingSettings(tables="sharded"), processes, torch.device("cpu"), 0)
    codes = torch.tensor([[2, 0], [9, 2]])[processes.rank % 2 :]
    found = holder[0](codes)
    found.square().sum().backward()
    assert torch.equal(found, whole[codes])
    model, feed = Model(), make_feed(257)
    place_tables(model, TrainingSettings(tables="sharded"), processes, torch.device("cpu"), 0)
    predictions = predict(model, feed, batch_size=64)  # one process has a batch more
    with open(sys.argv[1] + f"/found.{processes.rank}.json", "w") as file:
        json.dump([[len(table.weight) for table in holder], predictions.tolist()], file)
"""


@with_torchrec
def test_few_rows_and_shares_of_other_numbers_of_batches(tmp_path):
    together(4, FEW_ROWS, str(tmp_path))
    expected = predict(Model(), make_feed(257))
    for rank in range(4):
        held, predictions = found_by(tmp_path, rank)
        assert held == [1 if rank == 3 else 3, 5]  # where a process would have no row, all have all of them
        np.testing.assert_allclose(predictions, expected, atol=1e-6)


@with_torchrec
def test_a_sharded_table_is_a_table_with_rowwise_adagrad(group):
    @given(
        seed=st.integers(0, 2**32 - 1),
        rows=st.integers(1, 12),
        width=st.sampled_from([4, 8, 12]),
        steps=st.integers(1, 4),
    )
    def check(seed, rows, width, steps):
        rng = np.random.default_rng(seed)
        plain = nn.Embedding(rows, width, sparse=True)
        table = ShardedTable(plain, group, CPU, (0,))
        optimizers = [RowwiseAdagrad([held.weight], lr=0.1) for held in (plain, table)]
        connect_optimizers(nn.Sequential(table), optimizers)
        for _ in range(steps):
            codes = torch.from_numpy(rng.integers(0, rows, (rng.integers(1, 6), 2)))
            pull = torch.from_numpy(rng.normal(size=(*codes.shape, width)).astype(np.float32))
            rate = float(rng.random())
            for held, optimizer in zip((plain, table), optimizers, strict=True):
                optimizer.param_groups[0]["lr"] = rate
                optimizer.zero_grad()
                (held(codes) * pull).sum().backward()
                optimizer.step()
            with torch.inference_mode():
                torch.testing.assert_close(table(codes), plain(codes), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(table.weight, plain.weight, rtol=1e-4, atol=1e-5, check_stride=False)
        torch.testing.assert_close(
            table.accumulator.rows, optimizers[0].state[plain.weight]["accumulator"], rtol=1e-4, atol=1e-5
        )

    check()


@with_torchrec
def test_what_is_spread_are_the_large_tables_that_are_looked_up(monkeypatch):
    monkeypatch.setattr(sharded, "ShardedTable", lambda table, *rest: OpenedTable(*table.weight.shape))
    model = make_model("mgoe-paper", make_spec(2), 0)
    before = dict(model.named_modules())
    place_tables(model, TrainingSettings(tables="sharded"), TWO, CPU, 0)
    spread = {name for name, module in model.named_modules() if isinstance(module, OpenedTable)}
    multi = {
        f"{name}.codes"
        for name, module in before.items()
        if isinstance(module, inputs.Category) and module.multi
    }
    assert {"nodes.users", "nodes.items"} <= spread
    assert multi
    assert not multi & spread
    other = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Embedding(9, 4, sparse=True, padding_idx=3))
    place_tables(other, TrainingSettings(tables="sharded"), TWO, CPU, 0)
    assert [type(table) for table in other] == [OpenedTable, nn.Embedding]


def test_tables_stay_whole_alone_and_where_they_fit(monkeypatch):
    monkeypatch.setattr(sharded, "torchrec", lambda: pytest.fail("it was asked for"))
    monkeypatch.setattr(ProcessGroup, "any", lambda self, *mine: list(mine))
    for processes, how in ((ProcessGroup(), "sharded"), (TWO, "replicated"), (TWO, "auto")):
        model = Model()
        place_tables(model, TrainingSettings(tables=how), processes, CPU, 0)
        assert type(model.users) is nn.Embedding
    monkeypatch.setattr(
        sharded, "free_memory", lambda device: 2 * sum(table.nbytes for table in Model().tables()) - 1
    )
    with pytest.raises(pytest.fail.Exception, match="it was asked for"):
        place_tables(Model(), TrainingSettings(), TWO, CPU, 0)


def test_late_tables_are_drawn_where_they_stay_whole(monkeypatch):
    monkeypatch.setattr(tables, "LATE_ROWS", 30)
    with tables.late_tables():
        models = [nn.Sequential(tables.table(50, 4), tables.table(40, 4)) for _ in range(2)]
    for model in models:
        place_tables(model, TrainingSettings(), ProcessGroup(), CPU, 3)
    (first, second), (again, _) = models
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight[:39], second.weight[:39])
    assert first.weight.requires_grad


@with_torchrec
def test_a_width_that_torchrec_does_not_hold_is_refused():
    model = nn.Sequential(nn.Embedding(9, 6, sparse=True))
    with pytest.raises(
        TrainingError,
        match=r"training.tables: rows of sharded tables must be a multiple of 4 wide, found 6 in '0'",
    ):
        place_tables(model, TrainingSettings(tables="sharded"), TWO, CPU, 0)


def test_without_torchrec_the_message_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchrec", None)
    torchrec.cache_clear()
    with pytest.raises(
        MissingExtra, match=r"training.tables: .* needs? TorchRec, .* `make distributed`, or use replicated"
    ):
        place_tables(Model(), TrainingSettings(tables="sharded"), TWO, CPU, 0)
    torchrec.cache_clear()


def test_an_opened_table_reads_its_file(tmp_path, alone):
    model = Model(seed=7)
    model.users = OpenedTable(*model.users.weight.shape)
    save_checkpoint(tmp_path / "weights.safetensors", alone[0].state_dict(), {})
    load_weights(model, tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(predict(model, VALID), predict(alone[0], VALID))


def test_unshard_leaves_whole_tables():
    model = Model()
    unshard(model)
    assert type(model.users) is nn.Embedding


def test_processes_on_one_machine_share_its_free_memory(monkeypatch):
    monkeypatch.setattr(sharded, "available_memory", lambda: 900_000)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_memory(CPU) == 900_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU) == 225_000


LARGE = """
import json, re, sys
import torch
from pathlib import Path
from torch import nn
from mgoe.config import TrainingSettings
from mgoe.models import late_tables
from mgoe.models.layers import tables
from mgoe.training import joined, load_weights, save_checkpoint
from mgoe.training.distributed.sharded import place_tables, unshard
from mgoe.training.resume import Checkpoints
from mgoe.training.step import Stepper
tables.LATE_ROWS = 1000
out, rows = Path(sys.argv[1]), int(sys.argv[2])

class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.users = tables.table(rows, 16)

    def loss(self, batch, totals=None):
        loss = (self.users(batch["user"]).sum(1) - batch["labels"][:, 0]).square().sum() / 1024
        return loss, loss.reshape(1)

    def targets(self, batch):
        return batch["labels"]

    def tables(self):
        return [self.users.weight]

    def dense(self):
        return []

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024

with joined("cpu") as processes, late_tables():
    model, settings = Large(), TrainingSettings(tables="sharded")
    if processes.size > 1:
        small = nn.Sequential(tables.table(1000, 4))
        place_tables(small, settings, processes, torch.device("cpu"), 0)  # TorchRec itself takes memory
    before = anonymous()
    place_tables(model, settings, processes, torch.device("cpu"), 3)
    step = Stepper(model, settings, 30, False, processes)
    generator = torch.Generator().manual_seed(1)
    for number in range(30):
        user = torch.randint(0, rows, (1024,), generator=generator)
        batch = {"user": user, "labels": (user % 2).float()[:, None], "weight": torch.ones(1024)}
        share = {name: values[processes.rank :: processes.size] for name, values in batch.items()}
        step(share, number, lambda *_: None)
    save_checkpoint(out / "model.safetensors", model.state_dict(), {}, processes)
    processes.agree(None)
    unshard(model)
    load_weights(model, out / "model.safetensors")
    found = model.users(torch.arange(0, rows, rows // 1000)).tolist()
    with open(out / f"found.{processes.rank}.json", "w") as file:
        json.dump({"rows": len(step.tables[0]), "taken": anonymous() - before, "found": found}, file)
"""
ROWS = 20_000_000 if SOAK else 200_000


@with_torchrec
def test_a_large_table_is_nowhere_whole_and_learns_the_same(tmp_path):
    for size in (1, 2):
        (tmp_path / str(size)).mkdir()
        together(size, LARGE, str(tmp_path / str(size)), str(ROWS))
    for size in (1, 2):
        (tmp_path / str(size) / "model.safetensors").unlink()  # large in the long form
    one, each = found_by(tmp_path / "1", 0), [found_by(tmp_path / "2", rank) for rank in range(2)]
    assert one["rows"] == ROWS
    for half in each:
        assert half["rows"] == ROWS / 2
        np.testing.assert_allclose(half["found"], one["found"], atol=1e-5)
        if SOAK:
            assert half["taken"] < 0.6 * ROWS * 17 * 4
