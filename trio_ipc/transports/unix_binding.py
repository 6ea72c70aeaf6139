"""Unix sockets at their paths: how one is made, found, reached and removed.

Both transports come here, so that what is security exists once: only those whom it is for reach the socket,
from the instant it exists. A live server's endpoint is taken over only where that is asked for, without a
moment in which nobody listens; a dead one's is reclaimed without a race, and what is no socket is never
touched (docs/security.md). Which directory may be used, and whose turn it is, :mod:`.unix_paths` says. This
module must never read or write a byte of what a connection carries.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from trio_ipc.errors import EndpointError
from trio_ipc.logs import Log
from trio_ipc.transports import accounts, forks, os_errors, unix_lock, unix_paths, unix_placing
from trio_ipc.transports.credentials import peer_credentials
from trio_ipc.transports.detach import Detached
from trio_ipc.transports.monitor import EndpointState, is_mounted_alone

if TYPE_CHECKING:
    from trio_ipc.transports.policy import PeerPolicy

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_log = Log(__name__)

_MadeT = TypeVar("_MadeT")

#: More than any system allows, so that each makes of it the most that it does (listen(2): somaxconn; some
#: systems keep 16 bits of it). Trio's own listeners ask for the same.
LARGEST_BACKLOG: Final = 0xFFFF

#: Kinds of Unix sockets that carry no streams (unix(7); only Linux and some BSDs have the first).
_OTHER_KINDS: Final = (
    (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM) if sys.platform == "linux" else (socket.SOCK_DGRAM,)
)

#: What accept(2) says of the one client it would have given, rather than of the listener.
ERRORS_OF_ONE_CLIENT: Final = frozenset({errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.ETIMEDOUT})


# --- Making one ---------------------------------------------------------------------------------------------


async def listening(endpoint: str, group: int | str | None = None) -> Detached:
    """Create the socket for its owner alone, or for a group as well; see :func:`listening_for`.

    Args:
        endpoint: absolute path of the socket.
        group: id or name of the group that shall reach it too; its mode is 0660 then, and that of directories
            that are missing 0750.

    Raises:
        ConfigError: there is no such group.
        EndpointError: also if the group is not this user's to give.
    """
    if group is None:
        return await listening_for(unix_placing.Access(), endpoint)
    gid = accounts.gid_of(group)
    _refuse_foreign_group(gid, endpoint)
    return await listening_for(unix_placing.Access(mode=unix_paths.GROUP_SOCKET, group=gid), endpoint)


async def listening_for(
    access: unix_placing.Access, endpoint: str, *, backlog: int = LARGEST_BACKLOG, replace: bool = False
) -> Detached:
    """Create the socket, for its owner alone from its first instant, let in who is meant, and listen.

    Missing directories are created, with mode 0700 unless others have to pass them. Whatever stands at the
    path is judged first: a live server is left alone unless it shall be replaced, a dead one's socket is
    removed, anything else is refused.

    Args:
        access: who reaches it.
        endpoint: absolute path of the socket.
        backlog: how many clients may wait to be accepted; the system has a limit of its own.
        replace: whether to take the place of a server that listens there. The path leads to a socket that
            listens at every instant.

    Returns:
        The listening socket, which the caller owns, and its file, which goes by :func:`remove`.

    Raises:
        EndpointInUseError: a server listens there.
        EndpointUnsafeError: the path is no socket or a symbolic link, or the directory is one or can be
            written by others.
        EndpointError: the system refuses, who is let in cannot pass the directory, or another starter does
            not let go of it.

    Cancellation leaves nothing behind but directories.
    """
    async with unix_paths.claimed(endpoint, access.group, others=access.others) as directory_fd:
        judge = _refuse_what_is_no_server if replace else _make_way
        judge(directory_fd, endpoint)
        with contextlib.ExitStack() as undo:
            bound = _bound_beside if replace else _bound
            detached = bound(directory_fd, endpoint, access, backlog, undo)
            undo.pop_all()
        return detached


def warn_of_unreachable(endpoint: str, peers: PeerPolicy, group: int | str | None) -> None:
    """Say in the log that a policy means to let a group in which the socket's mode keeps out."""
    if peers.groups and group is None:
        _log.warning(
            "%s is its owner's alone: the PeerPolicy allows %s, who need a socket_group to reach it",
            endpoint,
            peers,
            extra={"endpoint": endpoint},
        )


def _refuse_foreign_group(gid: int, endpoint: str) -> None:
    # Said before anything is made. A user without root's rights can only give what is theirs to their groups.
    if os.geteuid() != 0 and gid not in {os.getegid(), *os.getgroups()}:
        raise EndpointError(
            f"uid {os.geteuid()} is no member of group {gid}, and may not give it the socket",
            endpoint=endpoint,
            hint="add the server's user to the group, or choose another socket_group",
        )


def _make_way(directory_fd: int, endpoint: str) -> None:
    """Remove a dead server's socket; refuse anything else that stands at the path."""
    if not _is_socket(directory_fd, endpoint):
        return
    with _new_socket() as probe:
        try:
            probe.connect(endpoint)
        except ConnectionRefusedError:
            _remove_dead(directory_fd, os.path.basename(endpoint), endpoint)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            raise os_errors.in_use(endpoint, None) from None  # alive, with a full backlog
        except OSError as exc:
            raise os_errors.another_kind(endpoint, exc.strerror) from exc
        _refuse_live(probe, endpoint)


def _refuse_what_is_no_server(directory_fd: int, endpoint: str) -> None:
    """Refuse what stands at the path if it is no socket of streams.

    A server of streams notices nothing: the system refuses a socket of another kind before it looks at the
    server's backlog (unix_find_other() in net/unix/af_unix.c, unp_connect() in BSD's uipc_usrreq.c).
    """
    if not _is_socket(directory_fd, endpoint):
        return
    for kind in _OTHER_KINDS:
        with _new_socket(kind) as probe:
            try:
                probe.connect(endpoint)
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except OSError as exc:
                if exc.errno == errno.EPROTOTYPE:
                    continue
                raise os_errors.another_kind(endpoint, exc.strerror) from exc
        raise os_errors.another_kind(endpoint, os.strerror(errno.EPROTOTYPE))


def _is_socket(directory_fd: int, endpoint: str) -> bool:
    """Return whether a socket stands at the path, or nothing. Refuse all else."""
    try:
        found = os.stat(os.path.basename(endpoint), dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.st_mode):
        raise os_errors.no_socket(endpoint, found.st_mode)
    return True


def _new_socket(kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    forks.keep_from_children(sock)
    sock.setblocking(False)
    return sock


def _remove_dead(directory_fd: int, name: str, endpoint: str) -> None:
    with _no_mount(endpoint):
        os.unlink(name, dir_fd=directory_fd)
    _log.info("%s was left by a dead server; reclaimed", endpoint, extra={"endpoint": endpoint})


@contextlib.contextmanager
def _no_mount(endpoint: str) -> Iterator[None]:
    """Say so where the system refuses to remove or replace a socket because it is a mount."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.EBUSY and is_mounted_alone(endpoint):
            raise os_errors.mounted_alone(endpoint) from exc
        raise


def _refuse_live(probe: socket.socket, endpoint: str) -> None:
    try:
        peer = peer_credentials(probe)
    except OSError:
        raise os_errors.in_use(endpoint, None) from None
    if peer.pid is not None and (peer.still_runs() is False or _has_no_process(peer.pid)):
        raise os_errors.left_to_others(endpoint, peer.pid)
    raise os_errors.in_use(endpoint, peer.pid)


def _has_no_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # somebody else's, and alive
    return False


def _bound(
    directory_fd: int, endpoint: str, access: unix_placing.Access, backlog: int, undo: contextlib.ExitStack
) -> Detached:
    name = os.path.basename(endpoint)
    sock = undo.enter_context(_new_socket())
    try:
        unix_placing.bind(sock, directory_fd, endpoint)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            # Another implementation: ours would have waited for the lock.
            raise os_errors.in_use(endpoint, None) from exc
        raise
    # Raises where the path no longer leads into the directory that was judged.
    found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    detached = Detached(endpoint=endpoint, socket=sock, inode=(found.st_dev, found.st_ino))
    undo.callback(_remove_quietly, directory_fd, detached)
    access.let_in(name, directory_fd)
    sock.listen(backlog)
    return detached


def _bound_beside(
    directory_fd: int, endpoint: str, access: unix_placing.Access, backlog: int, undo: contextlib.ExitStack
) -> Detached:
    """Have the socket listen where nobody looks, then put it in the place of what is there, in one step."""
    name = os.path.basename(endpoint)
    sock = undo.enter_context(_new_socket())
    with unix_placing.private_place(endpoint) as aside:
        sock.bind(aside)
        access.let_in(aside)
        sock.listen(backlog)
        found = os.stat(aside)
        detached = Detached(endpoint=endpoint, socket=sock, inode=(found.st_dev, found.st_ino))
        undo.callback(_remove_quietly, directory_fd, detached)
        with _no_mount(endpoint):
            os.rename(aside, name, dst_dir_fd=directory_fd)
    return detached


# --- While it is served, and after --------------------------------------------------------------------------


def look(detached: Detached) -> EndpointState:
    """Return what has become of the socket file. Does not wait for anything but the file system."""
    if detached.inode is None:
        return EndpointState(file="out of sight")
    return EndpointState.of(detached.endpoint, detached.inode, detached.root)


def remove(detached: Detached) -> None:
    """Remove the socket file, if it is still the one that was made, and by this process.

    Whatever hinders it is said in the log. Call it while the socket listens: as long as it does, no starter
    mistakes the path for a dead server's.
    """
    if os.getpid() != detached.pid or not detached.ours:
        return  # a child that the host program has forked is not the server
    state = look(detached)
    if state.file == "there":
        try:
            _remove_under_lock(detached)
        except BlockingIOError:
            _warn(detached, "was left for the next server to remove: another process holds its lock")
        except OSError as exc:
            _warn(detached, f"could not be removed: {exc.strerror}")
    elif state.file == "replaced":
        _warn(detached, "was replaced while it was served; left alone")
    elif state.file == "removed":
        _warn(detached, "was removed while it was served")
    elif state.file == "out of sight":
        _warn(detached, "could not be removed: this process has another root directory by now")
    else:
        _warn(detached, "could not be removed: it cannot be reached any more")


def _remove_under_lock(detached: Detached) -> None:
    with contextlib.ExitStack() as held:
        directory_fd = None
        # Without a free descriptor, or room for the lock's file, it has to go without.
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            directory_fd = os.open(os.path.dirname(detached.endpoint), flags)
            held.callback(os.close, directory_fd)
            held.enter_context(unix_lock.locked_at_once(directory_fd, detached.endpoint))
        except BlockingIOError:
            raise
        except OSError as exc:
            _log.debug("%s is removed without the lock: %s", detached.endpoint, exc.strerror)
        _remove_if_ours(directory_fd, detached)


def _remove_quietly(directory_fd: int, detached: Detached) -> None:
    with contextlib.suppress(OSError):  # what went wrong before it is what counts
        _remove_if_ours(directory_fd, detached)


def _remove_if_ours(directory_fd: int | None, detached: Detached) -> None:
    name = detached.endpoint if directory_fd is None else os.path.basename(detached.endpoint)
    found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if (found.st_dev, found.st_ino) == detached.inode:
        os.unlink(name, dir_fd=directory_fd)


def _warn(detached: Detached, what: str) -> None:
    _log.warning("%s %s", detached.endpoint, what, extra={"endpoint": detached.endpoint})


# --- Reaching one -------------------------------------------------------------------------------------------


def connected_nowait(endpoint: str, make: Callable[[socket.socket], _MadeT]) -> _MadeT | None:
    """Connect to a server's socket, if that takes no wait.

    Args:
        endpoint: absolute path of the socket.
        make: makes something of the connected socket, which does not block, and owns it. If it raises, the
            socket is closed.

    Returns:
        What was made, or None where the server's backlog is full.

    Raises:
        ServerNotFoundError: there is no such file.
        ServerRefusedError: nobody listens.
        EndpointPermissionError: the modes of the socket or its directories forbid it.
        OutOfResourcesError: this process or system lacks descriptors or memory for it.
        ConnectError: any other refusal by the system.
    """
    try:
        sock = _new_socket()
    except OSError as exc:
        raise os_errors.connect_error(exc, endpoint) from exc
    try:
        sock.connect(endpoint)
        return make(sock)
    except BlockingIOError:
        sock.close()
        return None
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError):
            raise os_errors.connect_error(exc, endpoint) from exc
        raise
