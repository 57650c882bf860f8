import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mgoe.errors import TrainingError
from mgoe.training import load_checkpoint, load_weights, save_checkpoint

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
