"""One compiled kernel takes inputs that can be written and that cannot; it is cached by content, within a
bounded size, and a cache that fails is only slower."""

import gc
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core import caching
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

from mgoe._util import kernels
from mgoe._util.kernels import KernelCache, content_key, kernel

SOURCE = """
from mgoe._util.kernels import kernel
from mgoe_other import other

@kernel()
def outer(x):
    return other(x) + {number}
"""
OTHER = """
from mgoe._util.kernels import kernel
SHIFT = {shift}

@kernel()
def other(x):
    return x + SHIFT
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kernels._warn.cache_clear()
    kernels._keep_small.cache_clear()
    return tmp_path / "kernels"


class Columns(NamedTuple):
    """Inputs of a kernel."""

    one: NDArray
    two: NDArray


@kernel(inner=True)
def sum_of(columns, row):
    return columns.one[row] + columns.two[row]


def write_sums(columns, more, out):
    for row in range(len(out)):
        out[row] = sum_of(columns, row) + more[0][row]


def write_input(columns, more, out):
    columns.one[0] = more[0][0] + out[0]


NUMBERS = np.arange(6)
ORDERS = {
    "contiguous": NUMBERS.copy,
    "every other": lambda: np.repeat(NUMBERS, 2)[::2],
    "reversed": lambda: NUMBERS[::-1].copy()[::-1],
    "a column": lambda: np.stack([NUMBERS, NUMBERS], axis=1)[:, 1],
}
"""Arrays of the same numbers in several orders in memory."""


def held(array: NDArray, read_only: bool) -> NDArray:
    array.flags.writeable = not read_only
    return array


@given(calls=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_one_kernel_takes_inputs_that_can_be_written_and_that_cannot(calls: list[list[bool]]):
    compiled = kernel("out")(write_sums)
    for read_only in calls:
        inputs = [held(NUMBERS.copy(), flag) for flag in read_only]
        out = np.zeros(6, np.int64)
        compiled(Columns(*inputs[:2]), (inputs[2],), out)
        assert (out == 3 * NUMBERS).all()
        assert [array.flags.writeable for array in inputs] == [not flag for flag in read_only]
    assert len(compiled.signatures) == 1


def test_threads_that_call_a_kernel_at_once_compile_it_once():
    compiled, outs = kernel("out")(write_sums), [np.zeros(6, np.int64) for _ in range(8)]

    def call(number: int) -> None:
        inputs = [held(NUMBERS.copy(), bool(number >> bit & 1)) for bit in range(3)]
        compiled(Columns(*inputs[:2]), (inputs[2],), outs[number])

    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(call, range(8))] == [None] * 8
    assert all((out == 3 * NUMBERS).all() for out in outs)
    assert len(compiled.signatures) == 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.float32])
def test_inputs_of_other_orders_and_types_are_not_converted_and_give_the_same(order: str, kind: type):
    compiled, inputs = kernel("out")(write_sums), ORDERS[order]().astype(kind, order="K", copy=False)
    out = np.zeros(6, kind)
    compiled(Columns(inputs, inputs), (inputs,), out)
    assert (out == 3 * NUMBERS).all()
    ((columns, more, _),) = compiled.signatures
    found = {(array.dtype, array.layout) for array in (*columns, *more)}
    assert found == {(numba.from_dtype(np.dtype(kind)), "C" if inputs.flags.c_contiguous else "A")}


def test_arrays_of_any_order_are_written():
    for order, make in ORDERS.items():
        out = held(make(), False)
        kernel("out")(write_sums)(Columns(NUMBERS, NUMBERS), (NUMBERS,), out)
        assert (out == 3 * NUMBERS).all(), order


def test_a_kernel_writes_only_what_it_names():
    ready = Columns(NUMBERS.copy(), NUMBERS), (NUMBERS,), NUMBERS
    with pytest.raises(numba.TypingError, match="Cannot modify readonly array"):
        kernel("out")(write_input)(*ready)
    with pytest.raises(numba.TypingError, match="Cannot modify readonly array"):
        kernel("out")(write_sums)(*ready[:2], held(NUMBERS.copy(), True))


@pytest.mark.parametrize("search", [gc.enable, gc.disable])
def test_compiling_leaves_the_search_for_garbage_as_it_was(search: Callable[[], None]):
    search()
    try:
        before = gc.isenabled()
        for compiled in (kernel("out")(write_sums), kernel()(write_sums)):
            with suppress(numba.TypingError):  # of the second one, which may write nothing
                compiled(Columns(NUMBERS, NUMBERS), (NUMBERS,), NUMBERS.copy())
            assert gc.isenabled() == before
    finally:
        gc.enable()


def add_one(x: int) -> int:
    return x + 1


add_one.__module__ = kernels.__name__  # a cached kernel imports the module that it is of


def run(function: FunctionType = add_one) -> Dispatcher:
    """Run a kernel as a new process does."""
    compiled = kernel()(function)
    assert compiled(1) == 2
    return compiled


def hits(compiled: Dispatcher) -> int:
    return sum(compiled.stats.cache_hits.values())


def test_a_kernel_is_compiled_once(place: Path):
    assert [hits(run()) for _ in range(3)] == [0, 1, 1]
    assert {path.suffix for path in place.iterdir()} - {".lock"} == {".nbi", ".nbc"}


def test_a_kernel_that_several_processes_need_at_once_is_compiled_by_one(place: Path):
    """They wait for one another at a gate, so that all find the cache empty, and compiling takes its time."""
    code = (
        "import pathlib, sys, time; from tests._util import test_kernels as t; "
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
    monkeypatch.setattr(kernels, "LIMIT", sum(kept.values()) + 2500)
    kernels._keep_small.cache_clear()
    kernels._keep_small(place)
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
        return content_key(importlib.import_module("mgoe_kernel").outer.py_func)

    keys = [key(1, 1), key(1, 1), key(2, 1), key(1, 22)]
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


def test_every_kernel_of_the_library_is_cached_so():
    import mgoe.serving.scoring.scorer
    import mgoe.simulation.draw  # noqa: F401

    modules = [module for name, module in sys.modules.items() if name.startswith("mgoe.")]
    found = [one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)]
    assert len(found) > 50
    assert all(isinstance(vars(one)["_cache"], KernelCache) for one in found)
