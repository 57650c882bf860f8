"""Freed memory stays with the process: a step asks again and again for blocks of some megabytes.

By default glibc gives each of them back to the system and takes it anew, page by page, which the kernel clears every time: a third of a
step on a CPU. Other allocators keep blocks by themselves.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Numbers of glibc's settings, see mallopt(3)."""
LARGEST = (1 << 26, 1 << 25)
"""Bytes of a block that is kept; larger ones come from the system and go back to it. The second where glibc is so old that it takes no
larger one."""
KEPT = 1 << 29
"""Bytes that stay once they are free, at most."""
GROWTH = 1 << 26
"""Bytes that are taken at a time."""


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees; said once a process.

    Environment variables such as `MALLOC_TRIM_THRESHOLD_` have the same effect for a process as a whole.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None and any(mallopt(MMAP_THRESHOLD, largest) for largest in LARGEST):
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(TOP_PAD, GROWTH)
