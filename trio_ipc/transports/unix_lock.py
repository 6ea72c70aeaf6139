"""The lock of the starters of servers at one path, and of a server that removes its socket there (flock(2)).

It is on a file of its own, ``.NAME.lock`` in the same directory, which only the owner can open: a directory
that others may read could be locked by them, for ever. The holder of the lock removes the file before letting
go. This module must never leave the lock taken, nor fail because the file was removed meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

import trio

from trio_ipc.errors import EndpointError

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

#: How long a starter waits for others. Each holds the lock for microseconds. Seconds.
_WAIT: Final = 5.0

#: How often and how long a server that closes tries, without letting other tasks run. Seconds.
_SHORT_TRIES: Final = 20
_SHORT_PAUSE: Final = 0.0005


@contextlib.asynccontextmanager
async def locked(directory_fd: int, endpoint: str) -> AsyncIterator[None]:
    """Keep every other starter at an endpoint away for a block, which should not wait for anything.

    Args:
        directory_fd: the endpoint's directory.
        endpoint: path of the socket.

    Raises:
        EndpointError: another process does not let go of the lock.
        OSError: the system refuses.

    Cancellation comes before the block or not at all.
    """
    name = name_of(endpoint)
    lock_fd = await _taken(directory_fd, name, endpoint)
    try:
        yield
    finally:
        _let_go(directory_fd, name, lock_fd)


@contextlib.contextmanager
def locked_at_once(directory_fd: int, endpoint: str) -> Iterator[None]:
    """Do like :func:`locked`, for somebody who cannot wait.

    Raises:
        BlockingIOError: another process has the lock.
        OSError: the system refuses.
    """
    name = name_of(endpoint)
    lock_fd = None
    for _ in range(_SHORT_TRIES):
        lock_fd = _try_to_take(directory_fd, name)
        if lock_fd is not None:
            break
        time.sleep(_SHORT_PAUSE)
    if lock_fd is None:
        raise BlockingIOError
    try:
        yield
    finally:
        _let_go(directory_fd, name, lock_fd)


def name_of(endpoint: str) -> str:
    """Return the name of the lock's file, which is in the endpoint's directory."""
    return f".{os.path.basename(endpoint)}.lock"


async def _taken(directory_fd: int, name: str, endpoint: str) -> int:
    with trio.move_on_after(_WAIT):
        while True:
            await trio.lowlevel.checkpoint()
            lock_fd = _try_to_take(directory_fd, name)
            if lock_fd is not None:
                return lock_fd
            await trio.sleep(0.01)
    raise EndpointError(
        f"another process has held {name} in the same directory for {_WAIT} s",
        endpoint=endpoint,
        hint=f"find it with: fuser {os.path.dirname(endpoint)}/{name}",
    )


def _try_to_take(directory_fd: int, name: str) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock_fd = os.open(name, flags, 0o600, dir_fd=directory_fd)
    locked = False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # If its last holder has removed it meanwhile, the next starter will make another.
            locked = _is_at(directory_fd, name, lock_fd)
    finally:
        if not locked:
            os.close(lock_fd)
    return lock_fd if locked else None


def _is_at(directory_fd: int, name: str, lock_fd: int) -> bool:
    """Return whether a name leads to this very file."""
    try:
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(lock_fd))


def _let_go(directory_fd: int, name: str, lock_fd: int) -> None:
    try:
        # Somebody may have removed the file, and the next starter have made another, which is theirs. If it
        # cannot be removed it stays, which keeps nobody out: what counts is the lock on it.
        with contextlib.suppress(OSError):
            if _is_at(directory_fd, name, lock_fd):
                os.unlink(name, dir_fd=directory_fd)
        # Said too, and not only closed: a child that was forked in this moment has a copy.
        fcntl.flock(lock_fd, fcntl.LOCK_UN)
    finally:
        os.close(lock_fd)
