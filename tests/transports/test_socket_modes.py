"""Whom a Unix socket that any program opens lets in, and how many may wait."""

from __future__ import annotations

import os
import socket
import stat
import sys
from functools import partial

import pytest
import trio

from tests.hardening.record import Attack
from tests.platforms import open_handles
from trio_ipc import EndpointError

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc.transports import (  # noqa: E402
    PeerCredentials,
    UnixStream,
    open_unix_listeners,
    serve_unix,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it becomes another user")

#: A group and users of no meaning here.
GROUP, MEMBER, STRANGER = 54_001, 54_002, 54_003


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("mask", [0o000, 0o027])
@pytest.mark.parametrize(
    ("mode", "directory_mode"),
    [(0o600, 0o700), (0o700, 0o700), (0o660, 0o750), (0o640, 0o750), (0o666, 0o755), (0o606, 0o755)],
)
async def test_the_socket_has_its_mode_and_missing_directories_let_through_whom_it_lets_in(
    directory: str, mode: int, directory_mode: int, replace: bool, mask: int
) -> None:
    path = f"{directory}/new/deeper/test.sock"
    before = os.umask(mask)
    try:
        [listener] = await open_unix_listeners(path, mode=mode, replace=replace)
    finally:
        os.umask(before)
    async with listener:
        assert mode_of(path) == mode
        assert mode_of(f"{directory}/new/deeper") == mode_of(f"{directory}/new") == directory_mode
        assert os.lstat(path).st_gid == os.getegid()


async def test_directories_that_are_opened_up_leave_no_descriptor(directory: str) -> None:
    async def make(name: str) -> None:
        [listener] = await open_unix_listeners(f"{directory}/{name}/deeper/test.sock", mode=0o666)
        await listener.aclose()

    await make("first")
    before = open_handles()
    for name in "second", "third":
        await make(name)
    assert open_handles() <= before


@pytest.mark.parametrize(
    ("mode", "who"), [(0o660, f"the group {os.getegid()}, which"), (0o666, "other users, who")]
)
async def test_a_directory_that_keeps_out_whom_the_mode_lets_in_is_refused(
    directory: str, path: str, mode: int, who: str
) -> None:
    with pytest.raises(EndpointError, match=f"{who} shall reach the socket, cannot pass the"):
        await open_unix_listeners(path, mode=mode)
    assert os.listdir(directory) == []


async def test_the_socket_is_never_open_to_more_than_it_shall_be_in_the_end(
    path: str, directory: str, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    seen: list[int] = []
    real = os.chmod

    def look_and_change(name: str, mode: int, **where: int) -> None:
        seen.append(stat.S_IMODE(os.stat(name, dir_fd=where["dir_fd"]).st_mode))
        real(name, mode, dir_fd=where["dir_fd"])

    real(directory, 0o755)
    monkeypatch.setattr(os, "chmod", look_and_change)
    before = os.umask(0)
    try:
        [listener] = await open_unix_listeners(path, mode=0o666)
    finally:
        os.umask(before)
    async with listener:
        assert seen == [0o600]
    attack(
        "a look at a socket of mode 0666 before it is opened up, umask 0",
        tried=1,
        outcome="it is its owner's alone until then",
    )


@as_root
@pytest.mark.parametrize("replace", [False, True])
async def test_a_mode_for_the_group_lets_in_the_group_of_the_directory_and_no_stranger(
    directory: str, replace: bool, attack: Attack
) -> None:
    os.chmod(directory, 0o755)
    shared = f"{directory}/shared"
    os.mkdir(shared)
    os.chown(shared, -1, GROUP)
    os.chmod(shared, 0o2750)
    path = f"{shared}/test.sock"
    code = (
        "import os, sys, trio; from trio_ipc.transports import open_unix_stream\n"
        "import trio_ipc; trio_ipc.IpcError\n"
        "os.setgroups([int(group) for group in sys.argv[3:]])\n"
        "os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "async def main():\n"
        "    async with await open_unix_stream(sys.argv[1]) as stream:\n"
        "        print((await stream.receive_some()).decode())\n"
        "try: trio.run(main)\n"
        "except trio_ipc.IpcError as exc: print(type(exc).__name__)"
    )
    seen: list[PeerCredentials] = []

    async def answer(stream: UnixStream) -> None:
        seen.append(stream.peer)
        await stream.send_all(b"welcome")

    async def come(user: int, *groups: int) -> str:
        command = [sys.executable, "-c", code, path, str(user), *map(str, groups)]
        return (await trio.run_process(command, capture_stdout=True)).stdout.decode().strip()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_unix, answer, path, mode=0o660, replace=replace))
        assert (mode_of(path), os.lstat(path).st_gid) == (0o660, GROUP)
        assert await come(MEMBER, GROUP) == "welcome"
        assert await come(STRANGER) == "EndpointPermissionError"
        nursery.cancel_scope.cancel()
    assert [(peer.uid, GROUP in peer.groups) for peer in seen] == [(MEMBER, True)]
    attack(
        "a user who is not in the group of a socket that `serve_unix` has opened to it (0660), and a member",
        tried=2,
        outcome="`EndpointPermissionError`; the member is served, and known as one",
    )


async def test_as_many_clients_wait_as_the_backlog_has_room_for(path: str) -> None:
    [listener] = await open_unix_listeners(path, backlog=2)
    async with listener:
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
        *welcome, refused = waiting
        for client in welcome:  # Linux has room for one more than it is told (listen(2))
            client.connect(path)
        with pytest.raises(BlockingIOError):
            refused.connect(path)
        for client in waiting:
            client.close()


@pytest.mark.parametrize(("given", "used"), [(None, 0xFFFF), (0, 0), (7, 7), (1_000_000, 0xFFFF)])
async def test_without_a_backlog_the_system_gives_the_most(
    path: str, given: int | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = socket.socket.listen

    def listen(sock: socket.socket, backlog: int) -> None:
        seen.append(backlog)
        real(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", listen)
    [listener] = await open_unix_listeners(path, backlog=given)
    async with listener:
        assert seen == [used]
