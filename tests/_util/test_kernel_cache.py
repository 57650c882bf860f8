"""Compiled kernels are cached by content, within a bounded size, and a cache that fails is only slower."""

import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from types import FunctionType

import numba
import pytest
from numba.core import caching
from numba.core.dispatcher import Dispatcher

from mgoe._util import kernel_cache
from mgoe._util.kernel_cache import KernelCache, content_key

SOURCE = """
import numba
from mgoe_other import other

@numba.njit(cache=True)
def kernel(x):
    return other(x) + {number}
"""
OTHER = """
import numba
SHIFT = {shift}

@numba.njit(cache=True)
def other(x):
    return x + SHIFT
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kernel_cache._warn.cache_clear()
    kernel_cache._keep_small.cache_clear()
    return tmp_path / "kernels"


def add_one(x: int) -> int:
    return x + 1


add_one.__module__ = kernel_cache.__name__  # a cached kernel imports the module that it is of


def run(function: FunctionType = add_one) -> Dispatcher:
    """Run a kernel as a new process does."""
    kernel = numba.njit(cache=True)(function)
    assert kernel(1) == 2
    return kernel


def hits(kernel: Dispatcher) -> int:
    return sum(kernel.stats.cache_hits.values())


def test_a_kernel_is_compiled_once(place: Path):
    assert [hits(run()) for _ in range(3)] == [0, 1, 1]
    assert {path.suffix for path in place.iterdir()} - {".lock"} == {".nbi", ".nbc"}


def test_a_kernel_that_several_processes_need_at_once_is_compiled_by_one(place: Path):
    """They wait for one another at a gate, so that all find the cache empty, and compiling takes its time."""
    code = (
        "import pathlib, sys, time; from tests._util import test_kernel_cache as t; "
        "cache, save = t.KernelCache, t.KernelCache.save_overload; "
        "cache.save_overload = lambda self, *what: (time.sleep(0.5), save(self, *what)); "
        "gate = pathlib.Path(sys.argv[1]); gate.joinpath(sys.argv[2]).touch()\n"
        "while len(list(gate.iterdir())) < 3: time.sleep(.01)\n"
        "print(t.hits(t.run()))"
    )
    gate = place.parent / "gate"
    gate.mkdir()
    started = [
        subprocess.Popen([sys.executable, "-c", code, gate, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    assert sorted(process.communicate(timeout=120)[0].strip() for process in started) == ["0", "1", "1"]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"\x80damaged"), Path.unlink])
def test_what_is_damaged_or_missing_is_compiled_again(place: Path, suffix: str, spoil: Callable):
    run()
    spoil(next(path for path in place.iterdir() if path.suffix == suffix))
    assert [hits(run()) for _ in range(2)] == [0, 1]


def test_kernels_of_another_version_are_compiled_again(place: Path, monkeypatch: pytest.MonkeyPatch):
    run()
    with monkeypatch.context() as other:
        other.setattr(numba, "__version__", "0.0")
        assert hits(run()) == 0
    assert [hits(run()) for _ in range(2)] == [0, 1]


def test_a_folder_that_cannot_be_used_costs_a_warning(tmp_path: Path, place: Path):
    place.write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="compiled kernels cannot be cached in .*set NUMBA_CACHE_DIR"):
        assert hits(run()) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()  # says it once


def test_a_full_disk_costs_a_warning(place: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        assert hits(run()) == 0


def test_kernels_unused_for_longest_go_first(place: Path, monkeypatch: pytest.MonkeyPatch):
    run()
    kept = {path.name: path.stat().st_size for path in place.iterdir()}
    for name in ("old.py311.nbi", "old.py311.1.nbc", "newer.py311.nbi", "newer.py311.1.nbc"):
        (place / name).write_bytes(b"0" * 1000)
    for name, when in (("old.py311.nbi", 1), ("old.py311.1.nbc", 3), ("newer.py311.nbi", 2)):
        os.utime(place / name, (when, when))
    monkeypatch.setattr(kernel_cache, "LIMIT", sum(kept.values()) + 2500)
    kernel_cache._keep_small.cache_clear()
    kernel_cache._keep_small(place)
    assert {path.name for path in place.iterdir()} == {*kept, "newer.py311.nbi", "newer.py311.1.nbc"}


def test_a_key_follows_what_a_kernel_is_compiled_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its own file, and those of the kernels it calls, but not other files, nor when they were written."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which would not tell files of one second apart

    def key(number: int, shift: int) -> str:
        (tmp_path / "mgoe_kernel.py").write_text(SOURCE.format(number=number))
        (tmp_path / "mgoe_other.py").write_text(OTHER.format(shift=shift))
        for name in ("mgoe_kernel", "mgoe_other"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return content_key(importlib.import_module("mgoe_kernel").kernel.py_func)

    keys = [key(1, 1), key(1, 1), key(2, 1), key(1, 22)]
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


def test_every_kernel_of_the_library_is_cached_so():
    import mgoe.serving.scoring.scorer
    import mgoe.simulation.draw  # noqa: F401

    modules = [module for name, module in sys.modules.items() if name.startswith("mgoe.")]
    kernels = [one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)]
    assert len(kernels) > 50
    assert all(isinstance(vars(kernel)["_cache"], KernelCache) for kernel in kernels)
