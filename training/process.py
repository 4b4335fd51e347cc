"""How a training process waits, and what it keeps: imported before torch, whose OpenMP reads the environment once.

Threads. By default one that waits for the others spins, on a core that other processes could use. How many there are matters more:
see threads.py.

Memory. By default glibc gives blocks of a few MiB back to the system as soon as they are free, and a batch of views, made of dozens
of them, then spends a third of its time on pages that it has only just returned.

What the user has set in the environment stays.
"""

import ctypes
import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # GNU's OpenMP, which torch brings on Linux
os.environ.setdefault("KMP_BLOCKTIME", "0")  # LLVM's and Intel's

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
    _allocator = ctypes.CDLL(None)
    if hasattr(_allocator, "mallopt"):  # glibc's
        _allocator.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes
        _allocator.mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)
