import sys

import pytest
import torch

from mgoe.errors import TrainingError
from mgoe.training import FitProgress, progress_bar, resolve_device, uses_bfloat16

NOW = FitProgress(epoch=1, epochs=2, step=5, steps=20, samples_per_second=61234.0, loss=0.69, monitor=0.71)


def test_a_terminal_sees_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with progress_bar("mgoe", "all.ranking") as show:
        assert show is not None
        show(NOW)
    seen = capsys.readouterr().err
    assert all(
        part in seen
        for part in ("mgoe", "epoch 1/2", "61.2 k samples/s", "loss 0.6900", "all.ranking 0.7100", ":")
    )


def test_nothing_is_printed_where_there_is_no_terminal(capsys):
    with progress_bar("mgoe") as show:
        assert show is None
    assert capsys.readouterr() == ("", "")


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
