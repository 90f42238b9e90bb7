"""Runs every binary that writes on a full and on a read-only disk, and checks the messages and the remaining files.

The disk is a small tmpfs in a separate mount namespace. Creating one needs root or user namespaces.
"""

import ctypes
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from reliability import forked, kills

# The share of a run's files that fits on the disk, for each attempt.
ROOMS = (0.0, 0.3, 0.6, 0.9)
_SECONDS = 900.0
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_PRIVATE = 0x4000 | 0x40000
_READ_ONLY, _REMOUNT = 0x1, 0x20
_PAGE = 4096


class NotAllowed(RuntimeError):
    """The system does not allow this process to mount a file system."""


def disks(
    folder: pathlib.Path,
    model: pathlib.Path,
    binaries: Sequence[str] = kills.BINARIES,
    rooms: Sequence[float] = ROOMS,
) -> list[dict[str, Any]]:
    """Runs binaries on a full disk, once for each room, then on the same disk read-only, then to the end.

    Args:
      folder: Folder for all files.
      model: Path of a classifier of the digits.
      binaries: Some of `kills.BINARIES`.
      rooms: The share of a run's files that fits on the disk, for each attempt.

    Returns:
      A row for each binary. If nothing can be mounted, the row contains the reason under "not allowed".
    """
    rows = []
    for case in kills.cases(model):
        if case.binary not in binaries:
            continue
        at = folder / case.binary
        at.mkdir(parents=True)
        kills.finish(case, at / "whole", at / "whole.txt", [])
        answer = at / "answer.json"

        def work(case: kills.Case = case, at: pathlib.Path = at, answer: pathlib.Path = answer) -> None:
            # The mount ends with this process, so the outcome is checked here too.
            answer.write_text(json.dumps(_on_a_small_disk(case, at, rooms)))

        ended = forked.Process(work, at / "output.txt").wait(_SECONDS)
        if "NotAllowed" in ended.output:
            rows.append({"binary": case.binary, "not allowed": ended.output.strip().splitlines()[-1]})
            continue
        if not answer.exists():
            raise RuntimeError(f"{case.binary} ended with {ended.code}: {ended.output[-2000:]}")
        row = json.loads(answer.read_text())
        for line in row.pop("undocumented"):
            print(f"{case.binary}: {line}", flush=True)
        rows.append({"binary": case.binary, **row})
    return rows


def _on_a_small_disk(case: kills.Case, at: pathlib.Path, rooms: Sequence[float]) -> dict[str, Any]:
    wanted = case.result(at / "whole")
    needed = _size(at / "whole")
    disk, log = at / "disk", at / "log.txt"
    disk.mkdir()
    _mount(disk, 8 * needed + 2**20)
    run, ballast = disk / "run", disk / "ballast"
    bad: list[str] = []
    full = half_written = 0
    for room in rooms:
        _fill(ballast, int(room * needed) - _size(run))
        full += (what := _try(case, run, case.again, log, "No space left on device")) == "reported"
        if what != "reported":
            bad.append(f"with room for {room:.0%}: {what}")
        half_written += len(broken := kills.unreadable(run))
        bad += broken
        ballast.unlink()
    # On the read-only disk: the existing run, and a new one.
    before = _digests(disk)
    _remount(disk, read_only=True)
    read_only = 0
    for folder in (run, disk / "other"):
        read_only += (what := _try(case, folder, case.again, log, "Read-only file system")) == "reported"
        if what != "reported":
            bad.append(f"read-only, {folder.name}: {what}")
    untouched = _digests(disk) == before
    _remount(disk, read_only=False)
    kills.finish(case, run, log, case.again)
    return {
        "attempts on a full disk": len(rooms),
        "reported in one line, exit 1": full,
        "half-written files": half_written,
        "read-only, reported": f"{read_only} of 2",
        "read-only, files as before": "yes" if untouched else "NO",
        "ends as an uninterrupted run": "yes" if kills.compare(wanted, case.result(run)) <= 1e-6 else "NO",
        "undocumented": bad,
    }


def _try(case: kills.Case, run: pathlib.Path, again: list[str], log: pathlib.Path, why: str) -> str:
    """Returns "reported" if the binary exited with 1 and one line that contains `why`, else its exit and output."""
    log.unlink(missing_ok=True)
    ended = forked.Process(kills.work(case, run, again), log).wait(_SECONDS)
    lines = [line for line in ended.output.splitlines() if line.startswith(f"{case.binary}.py: ")]
    if ended.code == 1 and len(lines) == 1 and why in lines[0] and "Traceback" not in ended.output:
        return "reported"
    return f"exit {ended.code}: {ended.output.strip()[-600:]}"


def _size(folder: pathlib.Path) -> int:
    """Returns the size in bytes of a folder's files on disk."""
    return sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in kills.visible(folder))


def _fill(path: pathlib.Path, left: int) -> None:
    """Creates a file that leaves `left` bytes free on its disk."""
    found = os.statvfs(path.parent)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - max(0, left)))


def _digests(folder: pathlib.Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _mount(folder: pathlib.Path, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user = os.getuid()
    if libc.unshare(_NEW_MOUNTS) != 0:
        if libc.unshare(_NEW_MOUNTS | _NEW_USER) != 0:
            raise NotAllowed(os.strerror(ctypes.get_errno()))
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    # Otherwise other processes would see this mount.
    if libc.mount(b"none", b"/", None, _PRIVATE, None) != 0:
        raise NotAllowed(os.strerror(ctypes.get_errno()))
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()) != 0:
        raise NotAllowed(os.strerror(ctypes.get_errno()))


def _remount(folder: pathlib.Path, *, read_only: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), None, _REMOUNT | (_READ_ONLY if read_only else 0), None) != 0:
        raise NotAllowed(os.strerror(ctypes.get_errno()))
