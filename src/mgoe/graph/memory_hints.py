"""Asks the processor for memory before it is read: rows that lie anywhere then arrive while others are summed.

A reading goes through its pairs in order, and reads a row of the other side for each. Which rows come next is known, so what was a wait
for every one of them becomes a question of bandwidth: sums over two steps take a third to two thirds of the time.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

AHEAD = 8
"""Pairs between the question and the reading."""
LINE = 64
"""Bytes that come together."""
LONGEST = 128
"""Entries of a sparse row that are asked for at most."""


def _asking(array: Any, level: int) -> Any:
    """How to ask for a line, down to the first cache (3) or the second (2)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        ask = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(ask, [place, number(0), number(level), number(1)])  # to read, of data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Ask for the line that holds `array[index]`, an array of one axis. Any index is allowed: nothing is read."""
    return _asking(array, 3)


def _prefetch_far(_typing: Any, array: Any, index: Any) -> Any:
    return _asking(array, 2)


prefetch: Any = intrinsic(_prefetch)
_far: Any = intrinsic(_prefetch_far)


@numba.njit(cache=True, nogil=True, inline="always")
def prefetch_row(flat, row, width):  # pragma: no cover - compiled
    """Ask for a row of a matrix of so many columns, which is given as one axis."""
    for column in range(0, width, LINE // flat.itemsize):
        prefetch(flat, row * width + column)


@numba.njit(cache=True, nogil=True, inline="always")
def prefetch_long_row(flat, row, width):  # pragma: no cover - compiled
    """As `prefetch_row`, for rows of kilobytes: into the second cache, on whose way more lines have room; a third faster."""
    for column in range(0, width, LINE // flat.itemsize):
        _far(flat, row * width + column)


@numba.njit(cache=True, nogil=True, inline="always")
def ask_entries(indptr, columns, values, nodes, row):  # pragma: no cover - compiled
    """Ask for what a search in the sparse row of a coming row's node reads: where its entries start, later the entries."""
    if row + 2 * AHEAD < len(nodes):
        prefetch(indptr, nodes[row + 2 * AHEAD])
    node = nodes[row + AHEAD] if row + AHEAD < len(nodes) else -1
    if 0 <= node < len(indptr) - 1 and node != nodes[row]:
        start = indptr[node]
        prefetch_row(columns[start:], 0, min(indptr[node + 1] - start, LONGEST))
        prefetch(values, start)
