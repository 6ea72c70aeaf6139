"""Which file a process runs, and whether that is still the file on disk.

Blocking code for worker threads. The bytes must never come from the process itself: psutil falls back to
`argv[0]` for an executable that it may not read, and a process writes there what it likes. So /proc is
asked where there is one; elsewhere psutil's answer is taken and no mismatch is ever claimed.
"""

from __future__ import annotations

import os
from typing import Final

import attrs
import psutil

from ..host import HAS_PROC

# proc(5): readlink of /proc/PID/exe says so when the name is gone, or names another file by now.
_DELETED: Final = " (deleted)"


@attrs.frozen
class Image:
    """The executable of a running process.

    Attributes:
        path: its name as the system gives it, without "(deleted)".
        source: where the bytes that run can be read, even after the name is gone.
        on_disk: whether a file of that name exists.
        mismatch: whether that name no longer leads to the file that runs: replaced or deleted.
    """

    path: str
    source: str
    on_disk: bool
    mismatch: bool


def image_of(process: psutil.Process) -> Image | None:
    """Return what a process runs; None for kernel threads and zombies, which run no file.

    Raises:
        psutil.Error, OSError: as the system refuses.
    """
    if not HAS_PROC:
        path = process.exe()
        return Image(path, path, on_disk=os.path.exists(path), mismatch=False) if path else None
    link = f"/proc/{process.pid}/exe"
    try:
        path = os.readlink(link)
        running = os.stat(link)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        found = _files_called(path, process.pid)
        if path.endswith(_DELETED) and not _holds(found, running):
            path = path.removesuffix(_DELETED)
            found = _files_called(path, process.pid)
    except PermissionError:
        # A directory on the way may not be searched: nothing is known, so nothing is claimed.
        return Image(path, link, on_disk=False, mismatch=False)
    return Image(path, link, on_disk=bool(found), mismatch=not _holds(found, running))


def may_be_executed(path: str) -> bool:
    """Whether somebody may execute a file, not just this collector's user."""
    return bool(os.stat(path).st_mode & 0o111)


def _files_called(path: str, pid: int) -> list[os.stat_result]:
    """Look a name up as this process sees it and as that one does: it may live in a container."""
    found = []
    for view in (path, f"/proc/{pid}/root{path}"):
        try:
            found.append(os.stat(view))
        except PermissionError:
            raise
        except OSError:
            continue
    return found


def _holds(found: list[os.stat_result], running: os.stat_result) -> bool:
    return any(os.path.samestat(status, running) for status in found)
