"""Makes the C library keep freed memory. Import it before TensorFlow, so that TensorFlow's threads share one arena.

By default, glibc returns large blocks to the system, and each training step allocates them again, page by page: of 1.10
CPU seconds for a step of resnet_small (batch 128), 129,000 page faults took 0.43. Without them, a step takes 0.59.
"""

import contextlib
import ctypes

# Constants of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8

# Other C libraries have no mallopt, and on other systems loading it this way fails.
with contextlib.suppress(AttributeError, OSError, TypeError):
    _mallopt = ctypes.CDLL(None).mallopt
    # One arena for all threads: the arenas of single threads are small, and larger blocks would be mapped anyway.
    _mallopt(_ARENA_MAX, 1)
    _mallopt(_MMAP_MAX, 0)
    # Never return memory to the system.
    _mallopt(_TRIM_THRESHOLD, -1)
