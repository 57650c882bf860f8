"""Keep freed memory with the process, since every step allocates blocks of some megabytes again.

By default glibc returns each block to the system and requests it again, page by page, and the kernel clears
every page: a third of a step on a CPU. Other allocators keep blocks by themselves.
"""

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Numbers of glibc's settings, see mallopt(3)."""
LARGEST = (1 << 26, 1 << 25)
"""Bytes of the largest block that is kept; larger ones are returned to the system. The second is for old
versions of glibc."""
KEPT = 1 << 29
"""Largest number of free bytes that are kept."""
GROWTH = 1 << 26
"""Bytes that are requested at a time."""


@cache
def keep_freed_memory() -> None:
    """Make this process keep the memory that it frees; acts once per process.

    Environment variables such as `MALLOC_TRIM_THRESHOLD_` have the same effect for a process as a whole.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None and any(mallopt(MMAP_THRESHOLD, largest) for largest in LARGEST):
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(TOP_PAD, GROWTH)
