"""The right to start a server at a path: whose directory it is, and which starter's turn.

Both transports ask here, because the rules are the same for both and their starters must meet at one lock.
What stands at the path, and how a socket is made there, is each transport's own work. This module must
never touch the socket itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import Final

import trio

from trio_ipc.errors import EndpointError, EndpointUnsafeError

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_logger = logging.getLogger(__name__)

#: The modes that ADR-0004 fixes.
OWNER_ONLY_SOCKET: Final = 0o600
OWNER_ONLY_DIRECTORY: Final = 0o700
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH

#: How long starters of servers in one directory wait for each other; each holds the lock for microseconds.
_LOCK_PATIENCE: Final = 5.0


@contextlib.asynccontextmanager
async def claimed(endpoint: str) -> AsyncIterator[int]:
    """Judge the directory of a path, and keep every other starter of a server there away for a block.

    Missing directories are created with mode 0700. In the block, which should not wait for anything, the
    path may be looked at, cleared and bound.

    Args:
        endpoint: absolute path of a socket.

    Returns:
        A descriptor of the directory.

    Raises:
        EndpointUnsafeError: the directory is a symbolic link, or others can write or replace it.
        EndpointError: the system refuses, in the block too; or another starter does not let go of the lock.

    Cancellation leaves nothing behind but directories.
    """
    directory, name = os.path.split(endpoint)
    try:
        directory_fd = _open_directory(directory, endpoint)
        try:
            # One starter at a time: between finding a dead socket, removing it and listening, no other
            # may come to the same conclusion.
            lock_name = f".{name}.lock"
            lock_fd = await _lock(directory_fd, lock_name, endpoint)
            try:
                yield directory_fd
            finally:
                os.unlink(lock_name, dir_fd=directory_fd)
                os.close(lock_fd)
        finally:
            os.close(directory_fd)
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename not in {None, endpoint} else ""
        raise EndpointError(
            f"cannot listen as uid {os.geteuid()}: {exc.strerror}{where}",
            endpoint=endpoint,
            hint="check the path and its permissions, or choose another endpoint_path",
        ) from exc


def _open_directory(directory: str, endpoint: str) -> int:
    _create_missing(directory)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        directory_fd = os.open(directory, flags)
    except OSError as exc:
        if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
            what = "a symbolic link" if os.path.islink(directory) else "not a directory"
            raise EndpointUnsafeError(
                f"{directory} is {what}", endpoint=endpoint, hint="use the path of a real directory"
            ) from exc
        raise
    try:
        _refuse_shared(directory, os.fstat(directory_fd), endpoint)
        _refuse_replaceable(directory, endpoint)
        return directory_fd
    except BaseException:
        os.close(directory_fd)
        raise


def _create_missing(directory: str) -> None:
    if os.path.lexists(directory):
        return
    _create_missing(os.path.dirname(directory))
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, OWNER_ONLY_DIRECTORY)


def _refuse_shared(directory: str, found: os.stat_result, endpoint: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in {os.geteuid(), 0}:
        raise EndpointUnsafeError(
            f"the directory {directory} belongs to uid {found.st_uid}, not to uid {os.geteuid()} or root",
            endpoint=endpoint,
            hint="use a directory of your own",
        )
    if mode & _WRITABLE_BY_OTHERS:
        raise EndpointUnsafeError(
            f"others can write the directory {directory} (mode {mode:04o})",
            endpoint=endpoint,
            hint="use a directory of your own in it; a missing one is created"
            if mode & stat.S_ISVTX
            else f"use a directory of your own, or chmod 700 {directory}",
        )
    if mode & ~OWNER_ONLY_DIRECTORY:
        fields = {"endpoint": endpoint}
        _logger.info("%s has mode %04o; the socket in it is 0600 all the same", directory, mode, extra=fields)


def _refuse_replaceable(directory: str, endpoint: str) -> None:
    """Refuse a path in which somebody else could put another directory in this one's place."""
    for above in [*_ancestors(directory), *_ancestors(os.path.realpath(directory))]:
        found = os.lstat(above)
        problem = _replaceable_by(found)
        if problem is not None:
            raise EndpointUnsafeError(
                f"{problem} can replace the directory {directory}, by way of {above}",
                endpoint=endpoint,
                hint="use a directory below those of root or your own that nobody else can write",
            )


def _ancestors(path: str) -> list[str]:
    above = []
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        above.append(path)
    return above


def _replaceable_by(found: os.stat_result) -> str | None:
    """Say who, besides root and this user, can rename what is in a directory, or point a link elsewhere."""
    # Whoever owns "/" is as good as root; in a user namespace the real root has another number.
    if found.st_uid not in {0, os.geteuid(), os.stat("/").st_uid}:
        return f"uid {found.st_uid}"
    if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return None  # in a sticky directory, such as /tmp, everyone can only rename what is their own
    if found.st_mode & stat.S_IWOTH:
        return "anyone"
    # A group of one's own, of the same name as the user, is usual; its umask lets the group write.
    if found.st_mode & stat.S_IWGRP and found.st_gid not in {0, os.getegid()}:
        return f"group {found.st_gid}"
    return None


async def _lock(directory_fd: int, lock_name: str, endpoint: str) -> int:
    """Take the lock of the starters of servers at this endpoint; return its descriptor (flock(2)).

    It is on a file of its own, which only the owner can open: a directory that others may read could be
    locked by them, for ever. Whoever holds it removes the file before letting go.
    """
    with trio.move_on_after(_LOCK_PATIENCE):
        while True:
            await trio.lowlevel.checkpoint()
            lock_fd = _try_to_lock(directory_fd, lock_name)
            if lock_fd is not None:
                return lock_fd
            await trio.sleep(0.01)
    raise EndpointError(
        f"another process has held {lock_name} in the same directory for {_LOCK_PATIENCE} s",
        endpoint=endpoint,
        hint=f"find it with: fuser {os.path.dirname(endpoint)}/{lock_name}",
    )


def _try_to_lock(directory_fd: int, lock_name: str) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock_fd = os.open(lock_name, flags, OWNER_ONLY_SOCKET, dir_fd=directory_fd)
    locked = False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # If its last holder has removed it meanwhile, the next starter will make another.
            locked = os.fstat(lock_fd).st_nlink > 0
    finally:
        if not locked:
            os.close(lock_fd)
    return lock_fd if locked else None
