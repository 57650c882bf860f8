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


def _prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Ask for the line that holds `array[index]`, an array of one axis. Any index is allowed: nothing is read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number]))
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(ask, [place, number(0), number(3), number(1)])  # to read, to keep, of data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


prefetch: Any = intrinsic(_prefetch)


@numba.njit(cache=True, nogil=True, inline="always")
def prefetch_row(flat, row, width):  # pragma: no cover - compiled
    """Ask for a row of a matrix of so many columns, which is given as one axis."""
    for column in range(0, width, LINE // flat.itemsize):
        prefetch(flat, row * width + column)
