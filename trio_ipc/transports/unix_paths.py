"""The right to start a server at a path: whose directory it is, and which starter's turn.

Both transports come here by way of :mod:`.unix_binding`, so that the rules are the same for both and their
starters meet at one lock. This module must never touch the socket itself, and never make a directory before
all that exists of the way to it was judged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import Final

from trio_ipc.errors import EndpointError, EndpointUnsafeError
from trio_ipc.logs import Log
from trio_ipc.transports import accounts, unix_lock
from trio_ipc.transports.user_namespace import hidden_gid, hidden_uid, hidden_words

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_log = Log(__name__)

#: The modes that ADR-0004 fixes, and those for a group or for others that were let in on purpose.
OWNER_ONLY_SOCKET: Final = 0o600
OWNER_ONLY_DIRECTORY: Final = 0o700
GROUP_SOCKET: Final = 0o660
GROUP_DIRECTORY: Final = 0o750
OTHERS_DIRECTORY: Final = 0o755

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH

#: Symbolic links on one way, as many as Linux follows (path_resolution(7)).
_MOST_LINKS: Final = 40

_ADVICE: Final = "use a directory below those of root or your own that nobody else can write"
_NAMESPACE_ADVICE: Final = (
    "use a directory whose owner, and the owners of all above it, the namespace maps (/proc/self/uid_map)"
)

#: Opens a directory that this user may pass and not list (open(2)). Where there is none, as on macOS, such a
#: one cannot be judged.
_LOOK_ONLY: Final[int] = getattr(os, "O_PATH", os.O_RDONLY)


@contextlib.asynccontextmanager
async def claimed(endpoint: str, group: int | None = None, *, others: bool = False) -> AsyncIterator[int]:
    """Judge the directory of a path, and keep every other starter of a server there away for a block.

    Missing directories are created with mode 0700, for a group with mode 0750, for others with mode 0755. In
    the block, which should not wait for anything, the path may be looked at, cleared and bound.

    Args:
        endpoint: absolute path of a socket.
        group: id of the group that shall reach the socket; None for none.
        others: whether all other users shall reach it, too.

    Returns:
        A descriptor of the directory.

    Raises:
        EndpointUnsafeError: the directory is a symbolic link, or others can write or replace it.
        EndpointError: the system refuses, in the block too; the group or the others cannot pass the
            directory; or another starter does not let go of the lock.

    Cancellation leaves nothing behind but directories.
    """
    try:
        directory_fd = _Way(endpoint, group, others).opened()
        try:
            # One starter at a time: between finding a dead socket, removing it and listening, no other
            # may come to the same conclusion.
            async with unix_lock.locked(directory_fd, endpoint):
                yield directory_fd
        finally:
            os.close(directory_fd)
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename not in {None, endpoint} else ""
        raise EndpointError(
            f"cannot listen as uid {os.geteuid()}: {exc.strerror}{where}",
            endpoint=endpoint,
            hint="check the path and its permissions, or choose another endpoint_path",
        ) from exc


def judge(endpoint: str, group: int | None = None, *, others: bool = False, uid: int | None = None) -> None:
    """Judge the directory of a socket that is there, as :func:`claimed` does. Makes nothing.

    Args:
        endpoint: absolute path of a socket.
        group: id of the group that shall reach the socket; None for none.
        others: whether all other users shall reach it, too.
        uid: the user whose server it is; None for this process's.

    Raises:
        EndpointUnsafeError: the directory is a symbolic link, or others can write or replace it.
        EndpointError: the group or the others cannot pass the directory.
        OSError: the system does not let this process look.
    """
    os.close(_Way(endpoint, group, others, makes=False, uid=uid).opened())


class _Way:
    """The way to the directory of an endpoint, judged step by step from the root on.

    A step is only taken once nobody but root and this user can change what was passed before, so that what
    was judged stays as it was.
    """

    def __init__(
        self, endpoint: str, group: int | None, others: bool, *, makes: bool = True, uid: int | None = None
    ) -> None:
        self._endpoint = endpoint
        self._makes = makes
        self._directory = os.path.dirname(endpoint)
        self._group = group
        self._others = others
        self._me = os.geteuid() if uid is None else uid
        self._hidden_uid = hidden_uid()
        self._hidden_gid = hidden_gid()
        # The owner of "/" is equal to root: in a user namespace the real root has another number.
        self._trusted_as_root = {0, self._me, os.stat("/").st_uid}
        # A group of one's own, of the same name as the user, is usual; its umask lets the group write. It is
        # not one's own if others shall reach the socket by it.
        own = os.getegid() if self._me == os.geteuid() else accounts.first_gid_of(self._me)
        self._own_groups = {0, own} - {group}
        # The directory above the last one, and who can rename in it, where these are others.
        self._shared: tuple[str, str] | None = None

    def opened(self) -> int:
        """Judge the way, make what is missing, and return a descriptor of the directory."""
        self._walk()
        flags = (os.O_RDONLY if self._makes else _LOOK_ONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            directory_fd = os.open(self._directory, flags)
        except OSError as exc:
            if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise self._no_directory() from exc
            raise
        try:
            found = os.fstat(directory_fd)
            self._refuse_shared(found)
            if self._shared is not None:
                self._refuse_exposed(found, *self._shared)
            return directory_fd
        except BaseException:
            os.close(directory_fd)
            raise

    def _walk(self) -> None:
        reached, links = "/", 0
        parts = _parts(self._directory)
        while parts:
            part = parts.pop()
            self._refuse_replaceable(reached, os.lstat(reached), last=not parts and part != "..")
            if part == "..":
                reached = os.path.dirname(reached)  # no link is left in it
                continue
            there = os.path.join(reached, part)
            found = self._found_or_made(there)
            if not stat.S_ISLNK(found.st_mode):
                reached = there
                continue
            if not parts:
                raise self._no_directory()
            self._refuse_replaceable(there, found)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), there)
            target = os.readlink(there)
            reached = "/" if target.startswith("/") else reached
            parts += _parts(target)

    def _found_or_made(self, path: str) -> os.stat_result:
        try:
            return os.lstat(path)
        except FileNotFoundError:
            if not self._makes:
                raise
        # All above it was judged by now. If somebody is quicker, theirs is judged like any other.
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, OWNER_ONLY_DIRECTORY)
            if self._others:
                _open_up(path, self._group, OTHERS_DIRECTORY)
            elif self._group is not None:
                _open_up(path, self._group, GROUP_DIRECTORY)
        return os.lstat(path)

    def _no_directory(self) -> EndpointUnsafeError:
        what = "a symbolic link" if os.path.islink(self._directory) else "not a directory"
        return EndpointUnsafeError(
            f"{self._directory} is {what}", endpoint=self._endpoint, hint="use the path of a real directory"
        )

    def _refuse_shared(self, found: os.stat_result) -> None:
        """Judge the directory itself, in which nobody else may do anything."""
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid == self._hidden_uid:
            raise EndpointUnsafeError(
                f"the directory {self._directory} belongs to {hidden_words('uid', found.st_uid)}",
                endpoint=self._endpoint,
                hint=_NAMESPACE_ADVICE,
            )
        if found.st_uid not in {self._me, 0}:
            raise EndpointUnsafeError(
                f"the directory {self._directory} belongs to uid {found.st_uid}, "
                f"not to uid {self._me} or root",
                endpoint=self._endpoint,
                hint="use a directory of your own",
            )
        if mode & _WRITABLE_BY_OTHERS:
            raise EndpointUnsafeError(
                f"others can write the directory {self._directory} (mode {mode:04o})",
                endpoint=self._endpoint,
                hint=self._narrower(found),
            )
        if self._others:
            self._refuse_closed_to_others(mode)
        elif self._group is not None:
            self._refuse_closed_to_group(found)
        elif mode & ~OWNER_ONLY_DIRECTORY:
            fields = {"endpoint": self._endpoint}
            _log.info(
                "%s has mode %04o; the socket in it still lets only its owner and root connect",
                self._directory,
                mode,
                extra=fields,
            )

    def _narrower(self, found: os.stat_result) -> str:
        """Advise where others can write the directory. Only its owner can change that."""
        below = f"{self._directory}/private/{os.path.basename(self._endpoint)}"
        advice = []
        # A sticky one is meant for everybody, as /tmp is: to close it would harm others.
        if self._me in {0, found.st_uid} and not found.st_mode & stat.S_ISVTX:
            advice.append(f"chmod {700 if self._group is None else 750} {self._directory}")
        if self._group is None or found.st_mode & stat.S_ISVTX:
            advice.append(f"use a directory of your own in it, such as {below}; a missing one is created")
        return ", or ".join(advice) or f"have its owner chmod +t {self._directory}, and then use {below}"

    def _refuse_exposed(self, found: os.stat_result, path: str, who: str) -> None:
        """Judge a directory that others can rename. They can't pass it, if it is this user's alone."""
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != self._me or mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise EndpointUnsafeError(
                f"{who} can replace the directory {self._directory}, by way of {path}, and it is not "
                f"private to uid {self._me} (mode {mode:04o}, uid {found.st_uid})",
                endpoint=self._endpoint,
                hint=f"chmod 700 {self._directory}"
                if found.st_uid == self._me
                else "use one that does not exist yet",
            )
        _log.warning(
            "%s can rename %s in %s, and so take the endpoint away; nobody else can reach or replace the "
            "server. chmod +t %s prevents that",
            who,
            self._directory,
            path,
            path,
            extra={"endpoint": self._endpoint},
        )

    def _refuse_closed_to_group(self, found: os.stat_result) -> None:
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_IXOTH or (found.st_gid == self._group and mode & stat.S_IXGRP):
            return
        raise EndpointError(
            f"the group {self._group}, which shall reach the socket, cannot pass the directory "
            f"{self._directory} (mode {mode:04o}, gid {found.st_gid})",
            endpoint=self._endpoint,
            hint=f"chgrp {self._group} {self._directory} && chmod 750 {self._directory}, or use a directory "
            "that does not exist yet",
        )

    def _refuse_closed_to_others(self, mode: int) -> None:
        if mode & stat.S_IXOTH:
            return
        raise EndpointError(
            f"other users, who shall reach the socket, cannot pass the directory {self._directory} "
            f"(mode {mode:04o})",
            endpoint=self._endpoint,
            hint=f"chmod 755 {self._directory}, or use a directory that does not exist yet",
        )

    def _refuse_replaceable(self, path: str, found: os.stat_result, *, last: bool = False) -> None:
        """Judge a directory or a link on the way, by which another directory could take this one's place.

        Args:
            path: of it.
            found: what it is.
            last: whether the endpoint's directory is the next step. Its own mode can keep others out then,
                since it is opened once and judged by its descriptor. Of a step further, what others put in
                its place would be followed.
        """
        problem = self._replaceable_by(found)
        if problem is not None:
            who, advice = problem
            if advice is None and last and self._group is None:
                self._shared = (path, who)
                return
            raise EndpointUnsafeError(
                f"{who} can replace the directory {self._directory}, by way of {path}",
                endpoint=self._endpoint,
                hint=advice or self._sticky(path),
            )

    def _sticky(self, path: str) -> str:
        advice = f"have its owner chmod +t {path}"
        if self._group is not None:
            return advice
        below = os.path.join(path, "private", os.path.basename(self._endpoint))
        return f"{advice}, or use a directory of your own right in it, such as {below}"

    def _replaceable_by(self, found: os.stat_result) -> tuple[str, str | None] | None:
        """Say who besides root and this user can rename what is in it or point it elsewhere, and advise.

        No advice is where they can because of its mode alone.
        """
        if found.st_uid == self._hidden_uid:
            return hidden_words("uid", found.st_uid), _NAMESPACE_ADVICE
        if found.st_uid not in self._trusted_as_root:
            return f"uid {found.st_uid}", _ADVICE
        if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
            return None  # in a sticky directory, such as /tmp, everyone can only rename what is their own
        if found.st_mode & stat.S_IWOTH:
            return "anyone", None
        if found.st_mode & stat.S_IWGRP and found.st_gid == self._hidden_gid:
            return hidden_words("gid", found.st_gid), _NAMESPACE_ADVICE
        if found.st_mode & stat.S_IWGRP and found.st_gid not in self._own_groups:
            return f"group {found.st_gid}", None
        return None


def _parts(path: str) -> list[str]:
    """Return the steps of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]


def _open_up(directory: str, group: int | None, mode: int) -> None:
    # By a descriptor, and the group before the mode: nobody can pass it meanwhile.
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if group is not None:
            os.fchown(directory_fd, -1, group)
        os.fchmod(directory_fd, mode)
    finally:
        os.close(directory_fd)
