"""Memory hints: request memory from the processor before it is read, so scattered rows arrive while others
are summed.

A reading passes through its pairs in order, and reads a row of the other side for each. The rows that come
next are known. Requesting them early turns a wait for each row into a question of bandwidth: sums over two
steps take a third to two thirds of the time.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mgoe._util.kernels import kernel

AHEAD = 8
"""Pairs between the request and the reading."""
LINE = 64
"""Bytes of a cache line."""
LONGEST = 128
"""Most entries of a sparse row that are requested."""


def _hint(level: int) -> Any:
    """Return a function of kernels that requests entries of an array, `request(array, first, entries)`, into
    the first cache (3) or the second (2).

    The loop over cache lines is written here: a function of kernels with a loop or a branch counts references
    to the array at every call, which takes longer than what it requests.
    """

    def request(_typing: Any, array: Any, first: Any, entries: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = signature.args[0]
            data = context.make_array(kind)(context, builder, arguments[0]).data
            byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            ask = builder.module.declare_intrinsic(
                "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            )
            step = context.get_constant(types.intp, 8 * LINE // kind.dtype.bitwidth)
            end = builder.add(arguments[1], arguments[2])
            with cgutils.for_range_slice(builder, arguments[1], end, step, inc=True) as (at, _):
                place = builder.bitcast(builder.gep(data, [at]), byte)
                builder.call(ask, [place, number(0), number(level), number(1)])  # to read, of data
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp), generate

    return intrinsic(request)


prefetch = _hint(3)
"""Request the lines of `array[first : first + entries]`, an array of one axis. Any places will do: nothing is
read."""
prefetch_far = _hint(2)
"""The same into the second cache, which takes more lines at once: a third faster for rows of kilobytes."""


@kernel(inline="always")
def ask_entries(indptr, columns, values, nodes, row):  # pragma: no cover - compiled
    """Request what `find` will read for a later row: where its node's entries start, and closer to it the
    entries.

    There is no branch, for the reason that `prefetch` has a loop of its own.
    """
    last, end = len(nodes) - 1, len(indptr) - 1
    prefetch(indptr, nodes[min(row + 2 * AHEAD, last)], 1)
    node = max(nodes[min(row + AHEAD, last)], 0)
    start = indptr[min(node, end)]
    prefetch(columns, start, min(indptr[min(node + 1, end)] - start, LONGEST))
    prefetch(values, start, 1)
