import json
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mgoe.errors import TrainingError
from mgoe.training import checkpoint, load_checkpoint, load_weights, save_checkpoint
from mgoe.training.checkpoint import DTYPES, Shard
from tests.training.distributed.side_by_side import together
from tests.training.distributed.test_process_group import found_by

TENSORS = {
    "head.weight": torch.randn(3, 4),
    "codes": torch.arange(5),
    "half": torch.randn(7).bfloat16(),
    "empty": torch.zeros(0, 2),
}
META = {"epoch": 3, "value": 0.7, "who": "é"}


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    save_checkpoint(tmp_path / "w.safetensors", TENSORS, META)
    tensors, meta = load_checkpoint(tmp_path / "w.safetensors")
    assert meta == META
    assert tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[name], TENSORS[name]) and tensors[name].dtype == TENSORS[name].dtype
        for name in TENSORS
    )
    assert os.listdir(tmp_path) == ["w.safetensors"]
    (tmp_path / "beside").touch()
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1, "others may read it too"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(tmp_path, where, bit):
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, TENSORS, META)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        load_checkpoint(path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, TENSORS, META)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(TrainingError, match="damaged"):
        load_checkpoint(path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, TENSORS, META)

    def interrupted(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mgoe.training.checkpoint.os.replace", interrupted)
    with pytest.raises(TrainingError, match="No space left"):
        save_checkpoint(path, {"other": torch.zeros(1)}, {})
    assert load_checkpoint(path)[1] == META
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, nn.Linear(3, 2).state_dict(), {})
    with pytest.raises(TrainingError, match=r"another model.*'weight' is \(2, 3\) there and \(2, 4\) here"):
        load_weights(nn.Linear(4, 2), path)
    with pytest.raises(TrainingError, match="no such checkpoint"):
        load_weights(nn.Linear(4, 2), tmp_path / "none.safetensors")


@given(st.data())
def test_what_is_written_by_shards_is_what_is_written_whole(tmp_path_factory, data):
    tensors = {}
    for number in range(data.draw(st.integers(1, 5))):
        dtype = data.draw(st.sampled_from(sorted(DTYPES, key=str)))
        shape = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
        tensors[f"t.{number}"] = (torch.rand(shape) * 100).to(dtype)
    tensors["scalar"] = torch.tensor(3.5)
    folder = tmp_path_factory.mktemp("shards")
    spread = {
        name: Shard(tensor, 0, len(tensor)) if name[-1] in "024" else tensor
        for name, tensor in tensors.items()
    }
    save_checkpoint(folder / "spread", spread, {"a": [1, "ü?" * 40]})
    save_checkpoint(folder / "whole", tensors, {"a": [1, "ü?" * 40]})
    found, expected = load_checkpoint(folder / "spread"), load_checkpoint(folder / "whole")
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for name, tensor in expected[0].items():
        assert found[0][name].dtype == tensor.dtype
        assert found[0][name].shape == tensor.shape
        assert torch.equal(found[0][name], tensor)
    assert sorted(file.name for file in folder.iterdir()) == ["spread", "whole"]


def test_a_shard_is_described_as_the_whole_and_takes_its_rows_of_it():
    shard = Shard(torch.zeros(2, 3, dtype=torch.float64), first=1, total=5)
    assert (shard.shape, shard.dtype, shard.nbytes) == ((5, 3), torch.float64, 120)
    whole = torch.arange(15.0).reshape(5, 3)
    assert torch.equal(shard.take(whole).rows, whole[1:3].double())


PROGRAM = """
import json, sys
import torch
from pathlib import Path
from mgoe.errors import TrainingError
from mgoe.training import joined, save_checkpoint
from mgoe.training import checkpoint
out, full = Path(sys.argv[1]), json.loads(sys.argv[2])
with joined("cpu") as processes:
    whole = torch.arange(300.0).reshape(100, 3)
    mine = processes.share(100)
    def no_space(file, rows):
        raise OSError(28, "No space left on device")
    if processes.rank in full:
        checkpoint._write_rows = no_space
    said = ""
    try:
        own = torch.full((3,), float(processes.rank))
        tensors = {"t": checkpoint.Shard(whole[mine], mine.start, 100), "own": own}
        save_checkpoint(out / "file.safetensors", tensors, {"rank": processes.rank}, processes)
    except TrainingError as error:
        said = error.message
    with open(out / f"found.{processes.rank}.json", "w") as file:
        json.dump(said, file)
"""


def test_processes_write_one_file(tmp_path):
    together(3, PROGRAM, str(tmp_path), "[]")
    tensors, meta = load_checkpoint(tmp_path / "file.safetensors")
    assert meta == {"rank": 0}
    assert torch.equal(tensors["t"], torch.arange(300.0).reshape(100, 3))
    assert tensors["own"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("full", [0, 1])
def test_where_one_cannot_write_all_of_them_say_so_and_nothing_is_left(tmp_path, full):
    (tmp_path / "file.safetensors").write_text("the one before")
    together(2, PROGRAM, str(tmp_path), json.dumps([full]))
    assert "No space left on device" in found_by(tmp_path, full)
    assert "another process could not write its rows" in found_by(tmp_path, 1 - full)
    assert (tmp_path / "file.safetensors").read_text() == "the one before"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "file.safetensors",
        "found.0.json",
        "found.1.json",
    ]


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(TrainingError, match=r"the checkpoint cannot be written: .*No such file"):
        save_checkpoint(tmp_path / "none" / "file", {"t": Shard(torch.zeros(2), 0, 2)}, {})


def test_large_tensors_are_copied_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHUNK", 8)
    save_checkpoint(tmp_path / "file", {"t": Shard(torch.arange(7.0), 0, 7)}, {})
    assert load_checkpoint(tmp_path / "file")[0]["t"].tolist() == list(range(7))
