"""How the C library treats freed memory, and how a device says that it has none left."""

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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch or of a library that it calls (cuBLAS, cuDNN, Metal) means that memory ran out.

    Only torch's own allocator raises ``torch.OutOfMemoryError``.
    """
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in text or "alloc_failed" in text
