"""Processes that train together do what one does alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import TrainingError
from mgoe.training import ProcessGroup, fit, load_weights, measure, predict, save_checkpoint
from mgoe.training.distributed.process_group import joined
from mgoe.training.resume import Checkpoints
from tests.effort import SOAK, slow
from tests.training.distributed.side_by_side import together
from tests.training.fakes import TASKS, Model, make_feed, make_streamed_feed, write_shards
from tests.training.test_loop import TRAIN, training, weights

VALID = make_feed(6000, seed=2, snapshots=1)
"""So many rows that two of them that change places do not show."""

PROGRAM = """
import json, os, sys
from pathlib import Path
from mgoe.training import fit, joined, predict
from tests.training.fakes import Model
from tests.training.test_loop import TRAIN, training
from tests.training.distributed.test_process_group import VALID
from tests.training.fakes import make_streamed_feed
out, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
shards, stop = changes.pop("shards", None), changes.pop("stop", None)
train = make_streamed_feed(Path(shards)) if shards else TRAIN
with joined("cpu") as processes:
    model = Model()
    settings = training(device="cpu", **{k: v for k, v in changes.items() if k != "leave"})
    # As on a machine that is lost, nothing is cleaned up.
    leave = lambda now: os._exit(0) if now.epoch == changes.get("leave") or now.step == stop else None
    result = fit(model, train, VALID, settings, out, leave, seed=5, resume=True)
    found = predict(model, VALID)
    with open(out / f"found.{processes.rank}.json", "w") as file:
        json.dump({"curves": result.curves, "predictions": found.tolist(), "size": processes.size}, file)
"""


def found_by(out: Path, rank: int) -> dict:
    return json.loads((out / f"found.{rank}.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    model = Model()
    result = fit(model, TRAIN, VALID, training(), tmp_path_factory.mktemp("alone"), seed=5)
    return model, result


def test_two_processes_are_one(tmp_path, alone):
    model, result = alone
    together(2, PROGRAM, str(tmp_path), "{}")
    first, second = found_by(tmp_path, 0), found_by(tmp_path, 1)
    assert first["size"] == 2
    assert first["predictions"] == second["predictions"]
    for mine, theirs, other in zip(result.curves, first["curves"], second["curves"], strict=True):
        assert theirs["losses"] == other["losses"]
        assert theirs["validation"] == other["validation"]
        for task, loss in mine["losses"].items():
            assert theirs["losses"][task] == pytest.approx(loss, abs=1e-4)
        for task, values in mine["validation"].items():
            assert theirs["validation"][task] == pytest.approx(
                values, abs=3e-3
            )  # of weights that differ by rounding
    again = Model(seed=7)
    load_weights(again, tmp_path / "model.safetensors")
    for name, tensor in weights(model).items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(first["predictions"], predict(again, VALID), atol=1e-6)


def test_metrics_of_the_same_weights_are_exact_over_processes(tmp_path, alone):
    """GAUC by user over all rows, not an average of the processes' own."""
    model, _ = alone
    save_checkpoint(tmp_path / "weights.safetensors", model.state_dict(), {})
    program = """
import json, sys
from pathlib import Path
from mgoe.training import joined, load_weights, measure, predict
from tests.training.fakes import TASKS, Model
from tests.training.distributed.test_process_group import VALID
with joined("cpu") as processes:
    model = Model()
    load_weights(model, Path(sys.argv[1]) / "weights.safetensors")
    scores = measure(TASKS, VALID.examples.labels, predict(model, VALID), VALID.examples.user)
    json.dump(scores, open(sys.argv[1] + f"/found.{processes.rank}.json", "w"))
"""
    together(3, program, str(tmp_path))
    expected = measure(TASKS, VALID.examples.labels, predict(model, VALID), VALID.examples.user)
    for rank in range(3):
        for task, values in found_by(tmp_path, rank).items():
            assert values == pytest.approx(expected[task], abs=1e-6)


@pytest.mark.parametrize(("first", "then"), [(2, 1), *[(1, 2), (2, 4)] * SOAK])
def test_another_number_of_processes_resumes_a_checkpoint(tmp_path, alone, first, then):
    model, _ = alone
    together(first, PROGRAM, str(tmp_path), json.dumps({"leave": 2}))
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert found is not None
    assert found[1]["state"]["epochs"] == 1
    together(then, PROGRAM, str(tmp_path), "{}")
    again = Model(seed=7)
    load_weights(again, tmp_path / "model.safetensors")
    for name, tensor in weights(model).items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=2e-4, rtol=1e-3)


def test_another_number_of_processes_resumes_in_the_middle_of_an_epoch_of_shards(tmp_path):
    """Together they learn what one process learns that is not interrupted."""
    path, model = write_shards(tmp_path, 3000, 1), Model()
    changes = {"batch_size": 100, "epochs": 2, "checkpoint": "0s"}
    fit(model, make_streamed_feed(path), VALID, training(**changes), tmp_path / "alone", seed=5)
    changes |= {"shards": str(path), "stop": 20}  # of 30 steps in an epoch
    together(2, PROGRAM, str(tmp_path), json.dumps(changes))
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert found is not None
    assert found[1]["state"]["steps"] == 19
    together(1, PROGRAM, str(tmp_path), json.dumps(changes | {"stop": None}))
    again = Model(seed=7)
    load_weights(again, tmp_path / "model.safetensors")
    for name, tensor in weights(model).items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=2e-4, rtol=1e-3)


@slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="names of threads are read from /proc")
def test_nothing_of_a_group_runs_on_once_it_is_left():
    """A thread of it that outlives the interpreter ends the process with a signal, whatever it was about to
    say."""
    program = """
import sys
from pathlib import Path
import torch
from mgoe.training import joined
names = lambda: [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
with joined("cpu") as processes:
    torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
    processes.sum_([torch.ones(3)])
    assert any("gloo_runloop" in name for name in names()), names()
assert not any("gloo" in name for name in names()), names()
"""
    together(2, program, anew=1)  # what a library binds while the group is there is part of it


def test_a_number_of_processes_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ProcessGroup, "current", classmethod(lambda cls: cls(0, 3)))
    with pytest.raises(
        TrainingError, match=r"training.batch_size: must be a multiple of the 3 processes, found 256"
    ):
        fit(Model(), TRAIN, VALID, training(), tmp_path)


def test_processes_that_cannot_meet_say_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(
            TrainingError,
            match=r"torchrun: the processes cannot meet .*start them with `torchrun -m mgoe",
        ),
        joined("cpu"),
    ):
        pass


def test_shares_of_rows_are_all_rows():
    for rows in range(20):
        for size in range(1, 6):
            parts = [np.arange(rows)[ProcessGroup(rank, size).share(rows)] for rank in range(size)]
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(rows))


def test_a_feed_alone_is_what_processes_share():
    feed = make_feed(100)
    mine = [
        batch["weight"] for rank in range(2) for batch in feed.batches(10, processes=ProcessGroup(rank, 2))
    ]
    assert sorted(torch.cat(mine).tolist()) == list(range(1, 101))


FAILING = """
import json, os, sys
from mgoe.errors import MgoeError, TrainingError
from mgoe.training import joined
found = {}
try:
    with joined("cpu") as processes:
        found["agreed"] = processes.agree({"rank": processes.rank, "text": "é"})
        if processes.rank == 1 and sys.argv[2] == "goes":
            os._exit(0)
        if processes.rank == 1:
            raise TrainingError("disk", "is full")
        processes.any(False)
except MgoeError as error:
    found |= {"kind": type(error).__name__, "message": str(error)}
json.dump(found, open(f"{sys.argv[1]}/found.{processes.rank}.json", "w"))
"""


def test_of_processes_that_fail_the_first_one_speaks(tmp_path):
    together(2, FAILING, str(tmp_path), "fails")
    agreed = {"rank": 0, "text": "é"}
    assert found_by(tmp_path, 1) == {"agreed": agreed, "kind": "TrainingError", "message": "disk: is full"}
    assert found_by(tmp_path, 0)["agreed"] == agreed
    assert found_by(tmp_path, 0)["kind"] == "ReportedByPeer"


def test_a_process_that_is_gone_is_noticed_by_the_others(tmp_path):
    together(2, FAILING, str(tmp_path), "goes")
    assert found_by(tmp_path, 0)["kind"] == "TrainingError"
    assert re.match(
        r"torchrun: every process must stay to the end, one is gone \(.*\); find out why",
        found_by(tmp_path, 0)["message"],
    )


@given(rows=st.integers(1, 100), size=st.integers(1, 9))
def test_a_batch_fits_where_every_process_has_an_equal_part(rows, size):
    parts = {len(range(rows)[ProcessGroup(rank, size).share(rows)]) for rank in range(size)}
    if len(parts) == 1:
        ProcessGroup(0, size).check_batch(rows)
    else:
        with pytest.raises(
            TrainingError,
            match=rf"training.batch_size: must be a multiple of the {size} processes, found {rows}",
        ):
            ProcessGroup(0, size).check_batch(rows)
