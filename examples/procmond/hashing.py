"""Digests of files, remembered for as long as the file stays the same.

Blocking code for worker threads. It must never open anything but a regular file (opening a FIFO would wait
for a writer, opening a device can do anything), and never give a digest of a file that changed meanwhile:
that would be the digest of no file that ever existed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from typing import Any, Final

from ..host import KNOWS_CHANGES
from .bounded import BoundedCache

DEFAULT_ALGORITHM: Final = "sha256"

#: Not in hashlib: a package of its own, which belongs to the examples' extra.
BLAKE3: Final = "blake3"

#: What agents call an algorithm, and hashlib by another name.
_HASHLIB_NAMES: Final = {f"sha3-{bits}": f"sha3_{bits}" for bits in (224, 256, 384, 512)}

_BLOCK_BYTES: Final = 1024 * 1024

#: Nanoseconds. Times of files go in steps: of up to 10 ms in a kernel before Linux 6.13, of 2 s on FAT. A
#: file that was changed less than a step ago may be changed again and keep its times.
_STEP_NS: Final = 2_000_000_000

# Some of these are missing on some platforms, where what they prevent cannot happen either.
_OPEN_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)

#: Called between blocks of work; raises to end work that nobody waits for any longer.
Checkpoint = Callable[[], None]


def _new(algorithm: str) -> Any:
    """Return a hasher; raises what hashlib.new does."""
    if algorithm == BLAKE3:
        from blake3 import blake3  # noqa: PLC0415 - only for who asks for it

        return blake3()
    return hashlib.new(_HASHLIB_NAMES.get(algorithm, algorithm), usedforsecurity=False)


class HashError(Exception):
    """A file could not be hashed. The message names the file and the reason."""


def canonical_algorithm(name: str) -> str:
    """Return an algorithm's name in lower case; an empty one means sha256.

    Raises:
        HashError: there is no such algorithm, or its digests have no fixed length.
    """
    canonical = name.strip().lower() or DEFAULT_ALGORITHM
    try:
        digest_size = _new(canonical).digest_size
    except (ValueError, TypeError):  # a name with a NUL byte is no string to hashlib
        fixed = hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}
        known = ", ".join(sorted({*fixed, BLAKE3, *_HASHLIB_NAMES}))
        raise HashError(f"unknown hash algorithm {name[:40]!r}; known are {known}") from None
    except ImportError as exc:
        raise HashError(
            f"hash algorithm {canonical!r} is not to be had here: {exc}; install blake3, or use sha256"
        ) from exc
    if digest_size == 0:
        raise HashError(f"hash algorithm {canonical!r} has no digest length of its own; use sha256, for one")
    return canonical


def canonical_digest(text: str, algorithm: str) -> str:
    """Return an expected digest as hashlib would write it.

    Raises:
        HashError: no digest of this algorithm looks like that, so that no file could ever match it.
    """
    digest = text.strip().lower()
    length = 2 * int(_new(algorithm).digest_size)
    if len(digest) != length or set(digest) - set("0123456789abcdef"):
        raise HashError(f"expected_hash {text[:160]!r} is no {algorithm} digest: {length} hexadecimal digits")
    return digest


class FileHasher:
    """Hashes regular files and remembers the digests.

    A digest is remembered by path, device, inode, size and times of change. The inode's change time is
    among them because modification times can be set back by the program that replaced the contents. Where
    the system does not tell it, as on Windows, nothing is remembered; nor is a file that was changed in the
    last two seconds.

    Args:
        max_entries: how many digests are remembered.
        clock: the time in nanoseconds, by the clock that files have their times from.
    """

    def __init__(self, max_entries: int = 4096, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.files_read = 0
        self._clock = clock
        self._digests: BoundedCache[tuple[str, str, tuple[int, ...]], str] = BoundedCache(max_entries)

    def digest(
        self, path: str, algorithm: str, *, source: str | None = None, checkpoint: Checkpoint = lambda: None
    ) -> str:
        """Return the hexadecimal digest of a file.

        Args:
            path: the file's name, for the cache and for messages.
            algorithm: as `canonical_algorithm` gave it.
            source: where to open it, if not at `path`: a running image is read from /proc/PID/exe.
            checkpoint: called for each block.

        Raises:
            HashError: the file is missing, unreadable, not regular, or changed while it was being read.
        """
        opened = path if source is None else source
        try:
            _require_regular(path, os.stat(opened))
            descriptor = os.open(opened, _OPEN_FLAGS)
            with open(descriptor, "rb", buffering=0) as file:
                return self._digest_of_open_file(path, algorithm, file.fileno(), checkpoint)
        except OSError as exc:
            raise HashError(f"{path}: {exc.strerror or exc}") from exc
        except ValueError as exc:  # a NUL byte in the path
            raise HashError(f"{path!r}: {exc}") from exc

    def _digest_of_open_file(self, path: str, algorithm: str, descriptor: int, checkpoint: Checkpoint) -> str:
        settled_before = self._clock() - _STEP_NS
        before = os.fstat(descriptor)
        _require_regular(path, before)  # again: it may have been replaced between stat() and open()
        key = path, algorithm, _version(before)
        if KNOWS_CHANGES and (known := self._digests.get(key)) is not None:
            return known
        digest = _read_and_hash(descriptor, algorithm, before.st_size, checkpoint)
        if digest is None or _version(os.fstat(descriptor)) != _version(before):
            raise HashError(f"{path}: it changed while it was being hashed; ask again")
        self.files_read += 1
        if KNOWS_CHANGES and before.st_ctime_ns < settled_before:
            self._digests.put(key, digest)
        return digest


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _require_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise HashError(f"{path}: not a regular file")


def _read_and_hash(descriptor: int, algorithm: str, size: int, checkpoint: Checkpoint) -> str | None:
    """Hash exactly `size` bytes; None if the file has fewer or more by now (so a growing file ends too)."""
    hasher = _new(algorithm)
    remaining = size
    while block := os.read(descriptor, _BLOCK_BYTES):
        checkpoint()
        remaining -= len(block)
        if remaining < 0:
            return None
        hasher.update(block)
    return str(hasher.hexdigest()) if remaining == 0 else None
