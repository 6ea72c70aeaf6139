"""What may be wrong with an endpoint, as far as files tell: plain functions on a path.

Each gives findings, and never raises for what it finds. Nothing is made or changed. The judgement of
directories is the server's own (:mod:`.unix_paths`), not a copy of it.
"""

from __future__ import annotations

import datetime as dt
import errno
import functools
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, ParamSpec

import attrs

from trio_ipc.errors import EndpointError, IpcError
from trio_ipc.transports import accounts
from trio_ipc.transports.credentials import PeerCredentials
from trio_ipc.transports.monitor import is_mounted_alone
from trio_ipc.transports.policy import PeerPolicy
from trio_ipc.transports.user_namespace import hidden_gid, hidden_uid, hidden_words

#: Whether an endpoint is a file. Pipes have none.
HAS_FILE: Final = sys.platform != "win32"

_P = ParamSpec("_P")

_KINDS: Final = (
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISREG, "regular file"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)

GOOD: Final = "good"
WARNING: Final = "warning"
BROKEN: Final = "broken"


@attrs.frozen
class Finding:
    """What one look has found.

    Attributes:
        about: what was looked at, in a word.
        verdict: :data:`GOOD`, :data:`WARNING` or :data:`BROKEN`.
        seen: what is so.
        advice: what to do about it; empty where it is good.
    """

    about: str
    verdict: str
    seen: str
    advice: str = ""

    @classmethod
    def of_error(cls, about: str, error: IpcError, who: str = "") -> Finding:
        """Return the finding that an error of ours is."""
        return cls(about, BROKEN, f"{who}{error.message}", error.hint)

    def as_dict(self) -> dict[str, Any]:
        """Return it as what :mod:`json` can write."""
        return attrs.asdict(self)


def file_at(path: str) -> dict[str, Any] | None:
    """Return what stands at the path of a socket, None where nothing can be seen. Pipes have no file."""
    if not HAS_FILE:
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return {
        "kind": kind_of(found.st_mode),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "user": accounts.user_name(found.st_uid),
        "gid": found.st_gid,
        "group": accounts.group_name(found.st_gid),
        "made": moment(found.st_mtime, "seconds"),
    }


def moment(seconds: float, precision: str) -> str | None:
    """Return a time of a file by ISO 8601, None beyond the years that it has: a file's owner sets any."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec=precision)
    except (ValueError, OverflowError, OSError):
        return None


def kind_of(mode: int) -> str:
    """Return the name of a kind of file."""
    return next((name for is_it, name in _KINDS if is_it(mode)), "something else")


if sys.platform == "win32":

    def of_files(path: str, socket_group: str | int | None, policy: PeerPolicy) -> Iterator[Finding]:
        """Pipes have no files."""
        del path, socket_group, policy
        yield from ()

else:
    import fcntl

    from trio_ipc.transports import unix_lock, unix_paths

    _OTHERS: Final = stat.S_IWOTH
    _GROUP: Final = stat.S_IWGRP

    def _never_raising(
        about: str,
    ) -> Callable[[Callable[_P, Iterator[Finding]]], Callable[_P, Iterator[Finding]]]:
        """Make a finding of each OSError: what is looked at may go or change between two looks."""

        def of(look: Callable[_P, Iterator[Finding]]) -> Callable[_P, Iterator[Finding]]:
            @functools.wraps(look)
            def looking(*args: _P.args, **kwargs: _P.kwargs) -> Iterator[Finding]:
                try:
                    yield from look(*args, **kwargs)
                except OSError as exc:
                    seen = f"it cannot be looked at: {exc.strerror}"
                    yield Finding(about, BROKEN, seen, "check the path")

            return looking

        return of

    def of_files(path: str, socket_group: str | int | None, policy: PeerPolicy) -> Iterator[Finding]:
        """Judge the way to a socket, its directory, its lock and its file.

        The directory is judged as that of a server which a client of this policy trusts.
        """
        group = None
        if socket_group is not None:
            try:
                group = accounts.gid_of(socket_group)
            except IpcError as exc:
                yield Finding.of_error("group", exc, "the socket_group: ")
        yield from of_namespace()
        way = list(of_way(path))
        yield from way
        if all(one.verdict != BROKEN for one in way):
            yield from of_directory(path, group, policy)
            yield from of_lock(path)
            yield from of_file(path, group)

    def of_namespace() -> Iterator[Finding]:
        """Say which users cannot be told apart here (user_namespaces(7))."""
        for kind, hidden in (("uid", hidden_uid()), ("gid", hidden_gid())):
            if hidden is not None:
                seen = f"this is a user namespace that does not map everybody: {hidden_words(kind, hidden)}"
                yield Finding("namespace", GOOD, seen)
                if hidden == (os.geteuid() if kind == "uid" else os.getegid()):
                    advice = "run both sides as users that the namespace maps (/proc/self/uid_map)"
                    yield Finding("namespace", BROKEN, f"this process itself has {kind} {hidden}", advice)

    @_never_raising("way")
    def of_way(path: str) -> Iterator[Finding]:
        """Go the way to the directory step by step, and say where it ends."""
        reached = "/"
        for part in os.path.dirname(path).split("/"):
            reached = os.path.join(reached, part)
            try:
                found = os.stat(reached)
            except OSError as exc:
                yield _of_step(reached, exc)
                return
            if not stat.S_ISDIR(found.st_mode):
                advice = "check the path; only its last part is a file"
                yield Finding("way", BROKEN, f"{reached} is a {kind_of(found.st_mode)}, no directory", advice)
                return
            if not os.access(reached, os.X_OK, effective_ids=_CAN_ASK_EFFECTIVE):
                yield _of_step(reached, OSError(errno.EACCES, os.strerror(errno.EACCES)), found)
                return
        yield Finding("way", GOOD, f"every directory on the way to {os.path.dirname(path)} can be passed")

    def _of_step(step: str, error: OSError, found: os.stat_result | None = None) -> Finding:
        if error.errno == errno.ENOENT:
            if os.path.islink(step):
                seen = f"{step} is a symbolic link to {os.readlink(step)}, which does not exist"
                return Finding("way", BROKEN, seen, "make what it leads to, or use another path")
            seen = f"the directory {step} does not exist"
            advice = (
                "start the server, which makes it, or check the path; a container sees only what is mounted"
            )
            return Finding("way", BROKEN, seen, advice)
        if error.errno == errno.EACCES:
            owner = ""
            if found is not None:
                mode = stat.S_IMODE(found.st_mode)
                owner = f" (mode {mode:04o}, of {_user(found.st_uid)}, gid {found.st_gid})"
            seen = f"uid {os.geteuid()} cannot pass the directory {step if found else os.path.dirname(step)}"
            return Finding(
                "way", BROKEN, f"{seen}{owner}", "run as its owner, or have its owner let you pass"
            )
        return Finding("way", BROKEN, f"{step}: {error.strerror}", "check the path")

    @_never_raising("directory")
    def of_directory(path: str, group: int | None, policy: PeerPolicy) -> Iterator[Finding]:
        """Say what a server would say of the directory, and whether one of this user can make a socket.

        The server is that of the directory's owner, if the policy trusts them, or else this user's.
        """
        directory = os.path.dirname(path)
        try:
            owner = os.stat(directory).st_uid
            trusted = policy.allows(PeerCredentials(uid=owner))
            unix_paths.judge(path, group, uid=owner if trusted else None)
        except EndpointError as exc:
            yield Finding.of_error("directory", exc, "a server would refuse it: ")
        else:
            found = os.stat(directory)
            mode = stat.S_IMODE(found.st_mode)
            yield Finding(
                "directory", GOOD, f"{directory} is safe (mode {mode:04o}, of {_user(found.st_uid)})"
            )
        if os.access(directory, os.W_OK, effective_ids=_CAN_ASK_EFFECTIVE):
            yield from _of_room(directory)
            return
        seen = f"a server of uid {os.geteuid()} cannot make its socket: {directory} is not writable to it"
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            seen = f"no server can make its socket: {directory} is on a read-only file system"
        # Where the server is another user's, that is as it should be.
        yield Finding("directory", WARNING, seen, "run the server as the directory's owner")

    def _of_room(directory: str) -> Iterator[Finding]:
        room = os.statvfs(directory)
        if room.f_files and not room.f_favail:
            seen = f"the file system of {directory} has no room for another file"
            yield Finding("directory", BROKEN, seen, "remove files: a socket is one")

    @_never_raising("lock")
    def of_lock(path: str) -> Iterator[Finding]:
        """See whether a starter of a server there could take its turn."""
        lock = os.path.join(os.path.dirname(path), unix_lock.name_of(path))
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as exc:
            kind = kind_of(os.lstat(lock).st_mode) if os.path.lexists(lock) else "file"
            seen = f"no server of uid {os.geteuid()} could start: {lock}, a {kind}: {exc.strerror}"
            owned = exc.errno in {errno.EACCES, errno.EPERM}
            yield Finding("lock", WARNING if owned else BROKEN, seen, "remove it, if no server is starting")
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            seen = f"another process holds {lock}, so that no server can start"
            yield Finding("lock", BROKEN, seen, f"find it with: fuser {lock}")
        finally:
            os.close(descriptor)

    @_never_raising("file")
    def of_file(path: str, group: int | None) -> Iterator[Finding]:
        """Say what stands at the path, and whom it lets in."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            advice = "start the server, or check the path on both sides"
            yield Finding("file", BROKEN, "there is no socket at the path", advice)
            return
        if stat.S_ISLNK(found.st_mode):
            where = os.readlink(path)
            leads = "" if os.path.exists(path) else ", which does not exist"
            seen = f"it is a symbolic link to {where}{leads}: no server listens at a link"
            yield Finding("file", BROKEN, seen, f"use {where} on both sides")
            return
        if not stat.S_ISSOCK(found.st_mode):
            seen = f"it is a {kind_of(found.st_mode)} and no socket, which a server leaves alone"
            yield Finding("file", BROKEN, seen, "use another path, or remove it")
            return
        yield from _of_socket(path, found, group)

    def _of_socket(path: str, found: os.stat_result, group: int | None) -> Iterator[Finding]:
        mode = stat.S_IMODE(found.st_mode)
        about = f"mode {mode:04o}, of {_user(found.st_uid)}, gid {found.st_gid}"
        faults = []
        if mode & _OTHERS:
            advice = f"chmod 600 {path}, and see who has changed it: a server makes it with 0600"
            faults.append(Finding("file", BROKEN, f"any user may connect ({about})", advice))
        elif mode & _GROUP and group is None:
            seen = f"the members of gid {found.st_gid} may connect ({about}), and no socket_group is set"
            faults.append(Finding("file", WARNING, seen, "set the same socket_group on both sides"))
        if group is not None and (found.st_gid != group or not mode & _GROUP):
            seen = f"the socket_group, gid {group}, is kept out ({about})"
            faults.append(Finding("file", BROKEN, seen, "start the server with the same socket_group"))
        if not os.access(path, os.W_OK, effective_ids=_CAN_ASK_EFFECTIVE):
            seen = f"uid {os.geteuid()} may not connect ({about})"
            advice = "run as its owner, or as a member of its socket_group where it has one"
            faults.append(Finding("file", BROKEN, seen, advice))
        if is_mounted_alone(path):
            seen = "it is mounted by itself, and goes on showing a dead server's socket after a restart"
            faults.append(Finding("file", WARNING, seen, "mount its directory instead"))
        yield from faults or [Finding("file", GOOD, f"it is a socket ({about})")]

    def _user(uid: int) -> str:
        name = accounts.user_name(uid)
        return f"uid {uid}" if name is None else f"{name} (uid {uid})"

    #: Whether the system can be asked for what the effective user may, and not only for the real one.
    _CAN_ASK_EFFECTIVE: Final = os.access in os.supports_effective_ids
