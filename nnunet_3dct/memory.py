"""How the C library treats freed memory."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """Let glibc reuse large blocks instead of giving each back to the system.

    Every layer of a network on the CPU allocates its output anew. By default glibc maps such blocks from the system
    and unmaps them right after, and the system fills each with zeros again, which can take as long as the layer. The
    process keeps its peak of memory afterwards. Threads other than the main one gain little: their heaps are small.

    Returns:
        Whether it was done; False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, 2 * LARGEST - 1))
