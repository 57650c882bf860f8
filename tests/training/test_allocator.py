"""What an allocator is asked for; what it brings is measured, not tested."""

from types import SimpleNamespace

import pytest

from mgoe.training.allocator import GROWTH, KEPT, MMAP_THRESHOLD, TOP_PAD, TRIM_THRESHOLD, keep_freed_memory


@pytest.mark.parametrize(("most", "taken"), [(1 << 40, 1 << 26), (1 << 25, 1 << 25)])
def test_the_largest_block_that_glibc_takes_is_kept(monkeypatch, most, taken):
    """Old ones take half as much, mallopt(3), and without it the other settings fix a far smaller one."""
    settings = {}

    def mallopt(setting, value):
        if setting == MMAP_THRESHOLD and value > most:
            return 0
        settings[setting] = value
        return 1

    monkeypatch.setattr("mgoe.training.allocator.sys.platform", "linux")
    monkeypatch.setattr("mgoe.training.allocator.ctypes.CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory.__wrapped__()
    assert settings == {MMAP_THRESHOLD: taken, TRIM_THRESHOLD: KEPT, TOP_PAD: GROWTH}
