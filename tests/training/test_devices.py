"""Devices and precision by name, the compiled dense part, and what an allocator is asked for."""

from functools import partialmethod
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mgoe.errors import TrainingError
from mgoe.models import make_model
from mgoe.training import resolve_device, uses_bfloat16
from mgoe.training.devices import (
    GROWTH,
    KEPT,
    MMAP_THRESHOLD,
    TOP_PAD,
    TRIM_THRESHOLD,
    compile_dense,
    keep_freed_memory,
)
from tests.effort import SOAK
from tests.models.batches import make_spec, random_batch


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_auto_is_bfloat16_only_where_the_processor_multiplies_it(monkeypatch, avx512, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    cpu = torch.device("cpu")
    assert uses_bfloat16("auto", cpu) == (avx512 or amx)
    assert uses_bfloat16("bfloat16", cpu)
    assert not uses_bfloat16("float32", cpu)


def test_devices_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(TrainingError, match="'cuda' needs a GPU that is not there"):
        resolve_device("cuda")
    for other in ("gpuu", "mps", "meta"):
        with pytest.raises(TrainingError, match=f"must be auto, cpu, cuda or cuda:N, found '{other}'"):
            resolve_device(other)


def test_a_gpu_is_named_with_its_number(monkeypatch):
    """The one that the process has chosen, which its threads do not know of."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:2")
    assert resolve_device("cuda:3") == torch.device("cuda:3")


CPU = torch.device("cpu")


@pytest.mark.parametrize("backend", ["aot_eager", *["inductor"] * SOAK])
def test_losses_gradients_and_names_are_the_same_for_every_size_of_batch(monkeypatch, backend: str):
    """With the graphs that are compiled; in the long form also with the C++ that they become in a minute."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    spec = make_spec(2)
    plain, compiled = make_model("mgoe", spec, 0), make_model("mgoe", spec, 0)
    compile_dense(compiled, CPU)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert any(module._compiled_call_impl is not None for module in compiled.modules())
    for rows in (64, 17):
        batch = random_batch(spec, rows)
        found = []
        for model in (plain, compiled):
            model.zero_grad()
            loss, _ = model.loss(batch)
            loss.backward()
            found.append((loss.detach(), [p.grad for p in model.dense()]))
        torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
        for one, other in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_tables_stay_as_they_are():
    spec = make_spec(2)
    model = make_model("mgoe-paper", spec, 0)
    compile_dense(model, CPU)
    tables = {id(table) for table in model.tables()}
    for module in model.modules():
        if any(id(p) in tables for p in module.parameters()):
            assert module._compiled_call_impl is None


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(TrainingError, match=r"training.compile: needs a C\+\+ compiler, found none"):
        compile_dense(make_model("mgoe", make_spec(2), 0), CPU)


@pytest.mark.parametrize(("most", "taken"), [(1 << 40, 1 << 26), (1 << 25, 1 << 25)])
def test_the_largest_block_that_glibc_takes_is_kept(monkeypatch, most, taken):
    """Old ones take half as much, mallopt(3), and without it the other settings fix a far smaller one."""
    settings = {}

    def mallopt(setting, value):
        if setting == MMAP_THRESHOLD and value > most:
            return 0
        settings[setting] = value
        return 1

    monkeypatch.setattr("mgoe.training.devices.sys.platform", "linux")
    monkeypatch.setattr("mgoe.training.devices.ctypes.CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory.__wrapped__()
    assert settings == {MMAP_THRESHOLD: taken, TRIM_THRESHOLD: KEPT, TOP_PAD: GROWTH}
