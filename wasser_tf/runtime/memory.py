"""The memory that is available to this process."""

import pathlib

from wasser_tf.runtime.arguments import physical_memory

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Returns the memory in bytes that can be allocated without swapping, or None if the system does not report it.

    It is the least of what the system reports as available (on Linux), what the limit of the process' control group
    leaves, and the memory of the machine.
    """
    known = [physical_memory(), _of_linux(), _of_cgroup()]
    return min((value for value in known if value is not None), default=None)


def check_available(needed: float, what: str, remedy: str = "choose a smaller image_size or fewer images") -> None:
    """Raises an error before something is read that does not fit into the available memory.

    Args:
      needed: A lower estimate of its bytes.
      what: Its name, in the plural.
      remedy: How to fix it.

    Raises:
      ValueError: It needs more than the memory that is available.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise ValueError(
            f"{what} need about {needed / 2**30:.3g} GiB and {available / 2**30:.3g} GiB of memory are available: "
            f"{remedy}."
        )


def _of_linux() -> int | None:
    try:
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _of_cgroup() -> int | None:
    """Returns what the limit of the control group (version 2) leaves; files that it cached do not count as used."""
    try:
        most = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        parts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(parts.get("inactive_file", 0)))
    except (OSError, ValueError):  # No such group, or "max": no limit.
        return None
