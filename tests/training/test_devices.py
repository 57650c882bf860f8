"""Devices and precision by name, and what an allocator is asked for."""

from types import SimpleNamespace

import pytest
import torch

from mgoe.config import TrainingSettings, check_settings
from mgoe.errors import ConfigError, TrainingError
from mgoe.training import resolve_device, uses_bfloat16
from mgoe.training.devices import (
    GROWTH,
    KEPT,
    MMAP_THRESHOLD,
    TOP_PAD,
    TRIM_THRESHOLD,
    keep_freed_memory,
)


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
        with pytest.raises(ConfigError, match=rf"device: .*\^\(auto\|cpu\|cuda\|cuda:.*, found '{other}'"):
            check_settings(TrainingSettings, {"device": other})


def test_a_gpu_is_named_with_its_number(monkeypatch):
    """The one that the process has chosen, which its threads do not know of."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:2")
    assert resolve_device("cuda:3") == torch.device("cuda:3")


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
