"""Set-ups of endpoints that do not work, each made by a function, for the tests of ``doctor``.

They are made as an ordinary user would make them: where the tests run as root, by a user without rights.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from trio_ipc import Call
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import SystemEndpoint, open_server

#: Users whom no system has.
USER: Final = 54_321
STRANGER: Final = 54_322


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Be another user for a block, where this process may; else stay who it is."""
    before = os.geteuid(), os.getegid()
    if os.getuid() != 0:
        yield
        return
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


@attrs.define
class Place:
    """A private directory of the user, in which a set-up is made.

    Attributes:
        directory: the path.
        settings: fields of IpcConfig that the examination has.
        name: what is examined; by default the socket.
    """

    directory: Path
    settings: dict[str, Any] = attrs.field(factory=dict)
    name: str = ""

    @property
    def path(self) -> Path:
        return self.directory / "s.sock"

    @contextlib.contextmanager
    def listening(self, backlog: int = 5, kind: int = 1) -> Iterator[socket.socket]:
        """A bare socket that listens, and does nothing else."""
        with socket.socket(socket.AF_UNIX, kind) as sock:
            before = os.umask(0o177)
            sock.bind(str(self.path))
            os.umask(before)
            if kind == socket.SOCK_STREAM:
                sock.listen(backlog)
            yield sock


#: Makes a set-up, for the length of a block.
SetUp = Callable[[Place], AbstractAsyncContextManager[None]]
#: Name, set-up, what the doctor says of it.
SETUPS: list[tuple[str, SetUp, str]] = []
#: Those that only root can make.
OF_ROOT: set[str] = set()


def says(
    pattern: str, *, of_root: bool = False
) -> Callable[[Callable[[Place], Any]], Callable[[Place], Any]]:
    """Note a function that makes a set-up, with what has to be said of it.

    Args:
        pattern: a regular expression for a finding that is no good one.
        of_root: whether only root can make it.
    """

    def note(function: Callable[[Place], Any]) -> Callable[[Place], Any]:
        @asynccontextmanager
        async def made(place: Place) -> AsyncIterator[None]:
            returned = function(place)
            if returned is None:
                yield
            elif hasattr(returned, "__aenter__"):
                async with returned:
                    yield
            else:
                with returned:
                    yield

        name = function.__name__
        SETUPS.append((name, made, pattern))
        if of_root:
            OF_ROOT.add(name)
        return function

    return note


# --- The name and the settings ------------------------------------------------------------------------------


@says(r"name: '@procmond' is no endpoint: .* abstract socket has neither owner nor mode")
def an_abstract_name(place: Place) -> None:
    place.name = "@procmond"


@says(r"name: 'unix:/run/x\.sock' is no endpoint: .*\(not a URL\): write /run/x\.sock")
def a_url(place: Place) -> None:
    place.name = "unix:/run/x.sock"


@says(r"name: '~/x\.sock' is no endpoint: .*only a shell knows what ~ is")
def a_tilde(place: Place) -> None:
    place.name = "~/x.sock"


@says(r"name: .* is no endpoint: .*at most \d+ bytes long")
def a_long_name(place: Place) -> None:
    place.name = "/run/" + "x" * 200


@says(r"name: '' is no endpoint: .*not empty")
def no_name(place: Place) -> None:
    place.settings["name"] = ""


@says(r"settings: read_timeout_ms is .*must be")
def a_wrong_setting(place: Place) -> None:
    place.settings["read_timeout_ms"] = -1


@says(r"group: the socket_group: 'no-such-group' is no group")
def an_unknown_group(place: Place) -> None:
    place.settings["socket_group"] = "no-such-group"


# --- The way and the directory ------------------------------------------------------------------------------


@says(r"way: the directory .*/missing does not exist")
def a_missing_directory(place: Place) -> None:
    place.name = str(place.directory / "missing" / "s.sock")


@says(r"way: .*/file is a regular file, no directory")
def a_file_on_the_way(place: Place) -> None:
    (place.directory / "file").touch()
    place.name = str(place.directory / "file" / "s.sock")


@says(r"way: .*/loop.*(symbolic links|Symbolic link loop)")
def a_loop_of_links(place: Place) -> None:
    (place.directory / "loop").symlink_to("loop")
    place.name = str(place.directory / "loop" / "s.sock")


@says(r"way: .*/link is a symbolic link to gone, which does not exist")
def a_dangling_link_on_the_way(place: Place) -> None:
    (place.directory / "link").symlink_to("gone")
    place.name = str(place.directory / "link" / "s.sock")


@says(r"directory: a server would refuse it: .*/link is a symbolic link")
def a_link_for_a_directory(place: Place) -> None:
    (place.directory / "real").mkdir(0o700)
    (place.directory / "link").symlink_to("real")
    place.name = str(place.directory / "link" / "s.sock")


@says(r"way: uid \d+ cannot pass the directory .*/closed \(mode 0600")
def a_directory_that_cannot_be_passed(place: Place) -> None:
    (place.directory / "closed").mkdir(0o600)
    place.name = str(place.directory / "closed" / "s.sock")


@says(r"directory: a server would refuse it: others can write the directory .*\(mode 0777\)")
def a_directory_that_all_can_write(place: Place) -> None:
    place.directory.chmod(0o777)


@says(r"directory: a server would refuse it: others can write the directory .*\(mode 0770\)")
def a_directory_that_a_group_can_write(place: Place) -> None:
    place.directory.chmod(0o770)


@says(r"directory: a server would refuse it: anyone can replace the directory")
def a_directory_that_all_can_replace(place: Place) -> None:
    (place.directory / "above").mkdir()
    (place.directory / "above").chmod(0o777)
    (place.directory / "above" / "run").mkdir(0o755)
    place.name = str(place.directory / "above" / "run" / "s.sock")


@says(r"directory: a server of uid \d+ cannot make its socket: .* is not writable to it")
def a_directory_that_cannot_be_written(place: Place) -> None:
    place.directory.chmod(0o500)


@says(r"directory: a server would refuse it: the group \d+, .*cannot pass the directory")
def a_directory_that_shuts_out_the_group(place: Place) -> None:
    place.settings["socket_group"] = str(os.getegid())


@says(r"directory: a server would refuse it: the directory .* belongs to uid 54322", of_root=True)
def a_strangers_directory(place: Place) -> None:
    theirs = place.directory / "theirs"
    theirs.mkdir(0o755)
    with acting_as_root():
        os.chown(theirs, STRANGER, STRANGER)
    place.name = str(theirs / "s.sock")


@says(r"directory: a server would refuse it: uid 54322 can replace the directory", of_root=True)
def a_directory_of_a_strangers(place: Place) -> None:
    theirs = place.directory / "theirs"
    (theirs / "run").mkdir(0o700, parents=True)
    with acting_as_root():
        theirs.chmod(0o755)
        os.chown(theirs, STRANGER, STRANGER)
    place.name = str(theirs / "run" / "s.sock")


@contextlib.contextmanager
def acting_as_root() -> Iterator[None]:
    """Be root within :func:`acting_as`."""
    before = os.geteuid()
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(before)


# --- The lock and the file ----------------------------------------------------------------------------------


@says(r"lock: another process holds .*/\.s\.sock\.lock, so that no server can start")
@contextlib.contextmanager
def a_lock_that_is_held(place: Place) -> Iterator[None]:
    with open(place.directory / ".s.sock.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@says(r"lock: no server of uid \d+ could start: .*a symbolic link: ")
def a_link_for_a_lock(place: Place) -> None:
    (place.directory / ".s.sock.lock").symlink_to("elsewhere")


@says(r"file: there is no socket at the path; start the server")
def no_server(place: Place) -> None:
    del place


@says(r"file: it is a regular file and no socket")
def a_regular_file(place: Place) -> None:
    place.path.touch()


@says(r"file: it is a directory and no socket")
def a_directory(place: Place) -> None:
    place.path.mkdir()


@says(r"file: it is a FIFO and no socket")
def a_fifo(place: Place) -> None:
    os.mkfifo(place.path)


@says(r"file: it is a symbolic link to gone\.sock, which does not exist")
def a_dangling_link(place: Place) -> None:
    place.path.symlink_to("gone.sock")


@says(r"file: it is a symbolic link to real\.sock: no server listens at a link; use real\.sock")
def a_link_to_a_socket(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place.directory / "real.sock"))
    place.path.symlink_to("real.sock")


def served(place: Place, handler: Any = None, **settings: Any) -> AbstractAsyncContextManager[Any]:
    """A server at the place."""
    return open_server(handler or well, DETECTION, SystemEndpoint(str(place.path)), **settings)


async def well(task: DetectionTask, _: Call) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True)


@asynccontextmanager
async def served_with_mode(place: Place, mode: int) -> AsyncIterator[None]:
    async with served(place):
        place.path.chmod(mode)
        yield


@says(r"file: any user may connect \(mode 0666")
def a_socket_for_all(place: Place) -> Any:
    return served_with_mode(place, 0o666)


@says(r"file: the members of gid \d+ may connect \(mode 0660.*, and no socket_group is set")
def a_socket_for_a_group_that_is_not_meant(place: Place) -> Any:
    return served_with_mode(place, 0o660)


@says(r"file: the socket_group, gid \d+, is kept out \(mode 0600")
def a_socket_that_keeps_the_group_out(place: Place) -> Any:
    place.directory.chmod(0o750)
    place.settings["socket_group"] = str(os.getegid())
    return served_with_mode(place, 0o600)


@says(r"file: uid \d+ may not connect \(mode 0400")
def a_socket_that_cannot_be_written(place: Place) -> Any:
    return served_with_mode(place, 0o400)
