"""Memory hints: request memory from the processor before it is read, so scattered rows arrive while others
are summed.

A reading passes through its pairs in order, and reads a row of the other side for each. The rows that come
next are known. Requesting them early turns a wait for each row into a question of bandwidth: sums over two
steps take a third to two thirds of the time.
"""

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

AHEAD = 8
"""Pairs between the request and the reading."""
LINE = 64
"""Bytes of a cache line."""
LONGEST = 128
"""Most entries of a sparse row that are requested."""


def _hint(level: int) -> Any:
    """Return a function of kernels that requests a cache line, into the first cache (3) or the second (2)."""

    def request(_typing: Any, array: Any, index: Any) -> Any:
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

    return intrinsic(request)


prefetch = _hint(3)
"""Request the line of `array[index]`, an array of one axis. Any index will do: nothing is read."""
_far = _hint(2)


@numba.njit(cache=True, nogil=True, inline="always")
def prefetch_row(flat, row, width):  # pragma: no cover - compiled
    """Request a row of a matrix of `width` columns, which is given as one axis."""
    for column in range(0, width, LINE // flat.itemsize):
        prefetch(flat, row * width + column)


@numba.njit(cache=True, nogil=True, inline="always")
def prefetch_long_row(flat, row, width):  # pragma: no cover - compiled
    """Request a row of kilobytes into the second cache, which takes more lines at once; a third faster."""
    for column in range(0, width, LINE // flat.itemsize):
        _far(flat, row * width + column)


@numba.njit(cache=True, nogil=True, inline="always")
def ask_entries(indptr, columns, values, nodes, row):  # pragma: no cover - compiled
    """Request what `find` will read for a later row: where its node's entries start, and closer to it the
    entries.
    """
    if row + 2 * AHEAD < len(nodes):
        prefetch(indptr, nodes[row + 2 * AHEAD])
    node = nodes[row + AHEAD] if row + AHEAD < len(nodes) else -1
    if 0 <= node < len(indptr) - 1 and node != nodes[row]:
        start = indptr[node]
        prefetch_row(columns[start:], 0, min(indptr[node + 1] - start, LONGEST))
        prefetch(values, start)
