"""Users whom a user namespace does not map: the kernel shows all of them by one number, which is nobody's."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.hardening.record import Attack
from tests.transports.namespaces import (
    CONTAINER,
    WHOLE,
    needs_maps,
    needs_user_namespaces,
    run_in_namespace,
)
from trio_ipc import ConfigError, EndpointUnsafeError, PeerCredentials, PeerPolicy, TransportType
from trio_ipc.transports import user_namespace

if sys.platform != "linux":
    pytest.skip("user namespaces are Linux's", allow_module_level=True)
assert sys.platform == "linux"

from trio_ipc.transports import credentials, policy, unix_binding, unix_paths  # noqa: E402

NOBODY = 65_534


@contextmanager
def taken(directory: str) -> Iterator[str]:
    """A path at which a server listens that nobody asked for, in a place that every user can pass."""
    os.chmod(directory, 0o755)
    path = f"{directory}/test.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        os.chmod(path, 0o666)
        server.listen()
        yield path


# --- Which number says nothing ------------------------------------------------------------------------------


def files(monkeypatch: pytest.MonkeyPatch, contents: dict[str, str | Exception]) -> None:
    def read(path: str) -> bytes:
        content = contents.get(path, FileNotFoundError(2, "No such file or directory"))
        if isinstance(content, Exception):
            raise content
        return content.encode()

    monkeypatch.setattr(user_namespace, "_read", read)


MAP, OVERFLOW = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"


@pytest.mark.parametrize(
    ("contents", "hidden"),
    [
        ({MAP: "         0          0 4294967295\n", OVERFLOW: "65534\n"}, None),
        ({MAP: "         0     100000      65536\n", OVERFLOW: "65534\n"}, 65534),
        ({MAP: "", OVERFLOW: "65534\n"}, 65534),
        ({MAP: "0 1000 1\n", OVERFLOW: "99\n"}, 99),
        ({MAP: "0 0 1\n1 1 4294967294\n", OVERFLOW: "65534\n"}, 65534),
        ({MAP: "0 1000 1\n"}, 65534),
        ({MAP: "0 1000 1\n", OVERFLOW: "much\n"}, 65534),
        ({MAP: PermissionError(13, "denied"), OVERFLOW: "65534\n"}, 65534),
        ({OVERFLOW: "65534\n"}, None),  # a kernel without user namespaces has no map
    ],
)
def test_the_overflow_uid_is_hidden_unless_the_map_is_the_whole_identity(
    monkeypatch: pytest.MonkeyPatch, contents: dict[str, str | Exception], hidden: int | None
) -> None:
    files(monkeypatch, contents)
    assert user_namespace.hidden_uid() == hidden


def test_without_proc_nothing_can_be_told_and_the_number_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files(monkeypatch, {})
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    assert user_namespace.hidden_gid() == 65534


def hide(monkeypatch: pytest.MonkeyPatch, uid: int | None, gid: int | None = None) -> None:
    for module in (credentials, policy, unix_paths):
        monkeypatch.setattr(module, "hidden_uid", lambda: uid)
        monkeypatch.setattr(module, "hidden_gid", lambda: gid)


class Shown(socket.socket):
    """A connected socket whose peer the system shows with these numbers; 0 is nobody's but root's."""

    UID, GID = 4711, 4712

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED):
            return struct.pack("iII", os.getpid(), self.UID, self.GID)
        return super().getsockopt(level, option, length)


def test_a_peer_of_a_hidden_number_is_nobody_and_no_policy_but_anyones_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uid, gid = Shown.UID, Shown.GID
    left, right = socket.socketpair()
    with Shown(fileno=left.detach()) as shown, right:
        assert credentials.peer_credentials(shown).uid == uid
        hide(monkeypatch, uid, gid)
        peer = credentials.peer_credentials(shown)
    assert (peer.uid, peer.gid, peer.shown_uid, peer.user) == (None, None, uid, None)
    assert gid not in peer.groups
    assert f"uid {uid}, which here stands for all whom this user namespace does not map" in str(peer)
    for refuses in (
        PeerPolicy.own_user_and_root(),
        PeerPolicy(frozenset({uid, 0, NOBODY})),
        PeerPolicy(frozenset({0}), frozenset({gid})),
    ):
        assert not refuses.allows(peer)
    assert PeerPolicy.anyone().allows(peer)


def test_a_policy_that_names_a_hidden_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="allows uid 65534, which here stands for all whom this user name"):
        PeerPolicy.users([0, NOBODY])
    with pytest.raises(ConfigError, match="allows gid 65534, which here stands for all whom this user name"):
        PeerPolicy.group(NOBODY)
    hide(monkeypatch, None)
    assert PeerPolicy.users([NOBODY]).allows(PeerCredentials(uid=NOBODY))


async def test_a_directory_whose_group_is_hidden_and_may_write_is_replaceable(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(f"{directory}/own", 0o700)
    os.chmod(directory, 0o770)
    hide(monkeypatch, None, os.getegid())
    with pytest.raises(EndpointUnsafeError, match=f"gid {os.getegid()}, which here.*by way of {directory}"):
        await unix_binding.listening(f"{directory}/own/test.sock")


# --- In real namespaces -------------------------------------------------------------------------------------

CLIENT = """
import trio
from tests.support import task
from trio_ipc import IpcConfig, IpcError, open_client
from trio_ipc.daemoneye import DETECTION

async def main():
    config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
    try:
        async with open_client(DETECTION, config) as client:
            print("trusted")
    except IpcError as exc:
        print(type(exc).__name__, exc)

trio.run(main)
"""

SERVER = """
import trio
from tests.support import succeed
from trio_ipc import IpcConfig, IpcError, serve
from trio_ipc.daemoneye import DETECTION

async def main():
    config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, succeed, DETECTION, config)
            print("serves")
            nursery.cancel_scope.cancel()
    except* IpcError as group:
        print(type(group.exceptions[0]).__name__, group.exceptions[0])

trio.run(main)
"""


@needs_maps
def test_a_client_that_is_its_namespaces_nobody_does_not_trust_a_strangers_server(
    directory: str, transport: TransportType, attack: Attack
) -> None:
    with taken(directory) as path:
        said = run_in_namespace(CLIENT, path, str(transport), maps=CONTAINER, user=NOBODY)
    assert said.startswith("PeerNotAllowedError"), said
    assert "uid 65534, which here stands for all whom this user namespace does not map" in said
    assert "run both sides in one user namespace, or map the server's user into this one" in said
    attack(
        "a path taken by a user whom the client's user namespace does not map",
        tried=1,
        outcome="`PeerNotAllowedError` that names the namespace, though the client itself is uid 65534 there",
    )


@needs_user_namespaces
def test_a_client_in_a_namespace_without_any_map_trusts_nobody(
    directory: str, transport: TransportType, attack: Attack
) -> None:
    with taken(directory) as path:
        said = run_in_namespace(CLIENT, path, str(transport))
    assert said.startswith("PeerNotAllowedError"), said
    attack(
        "a server, to a client in a user namespace without a map (`unshare -U`)",
        tried=1,
        outcome="`PeerNotAllowedError`; who is not known is not trusted",
    )


@needs_user_namespaces
def test_a_server_in_a_namespace_without_any_map_finds_no_directory_that_it_could_trust(
    directory: str, transport: TransportType, attack: Attack
) -> None:
    said = run_in_namespace(SERVER, f"{directory}/test.sock", str(transport))
    assert said.startswith("EndpointUnsafeError"), said
    assert "uid 65534, which here stands for all whom this user namespace does not map" in said
    assert "/proc/self/uid_map" in said
    assert os.listdir(directory) == []
    attack(
        "directories whose owners a server's user namespace does not map, `/` among them",
        tried=1,
        outcome="`EndpointUnsafeError` that names the namespace; nothing made",
    )


@needs_maps
@pytest.mark.parametrize("user", [0, NOBODY])
def test_directories_of_unmapped_owners_are_nobodys_in_a_container(
    directory: str, transport: TransportType, attack: Attack, user: int
) -> None:
    os.chown(directory, 4711, 4711)
    os.chmod(directory, 0o777)
    said = run_in_namespace(SERVER, f"{directory}/d/test.sock", str(transport), maps=CONTAINER, user=user)
    assert said.startswith("EndpointUnsafeError"), said
    assert "namespace" in said
    assert os.listdir(directory) == []
    attack(
        "directories whose owners a server's user namespace does not map, `/` among them",
        tried=1,
        outcome="`EndpointUnsafeError` that names the namespace; nothing made",
    )


@needs_maps
def test_where_the_map_is_the_whole_identity_nobody_is_a_user_like_any_other(
    directory: str, transport: TransportType
) -> None:
    os.chown(directory, NOBODY, NOBODY)
    said = run_in_namespace(SERVER, f"{directory}/test.sock", str(transport), maps=WHOLE, user=NOBODY)
    assert said == "serves\n"


@needs_maps
def test_users_that_are_mapped_are_served_as_anywhere(directory: str, transport: TransportType) -> None:
    """What a container looks like that has root's own files mapped, and a user for its service."""
    os.chown(directory, 3, 3)
    said = run_in_namespace(SERVER, f"{directory}/test.sock", str(transport), maps="0 0 1000", user=3)
    assert said == "serves\n"


BOTH_IN_A_CONTAINER = """
import trio
from tests.support import serving, succeed, success, task
from trio_ipc import IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION

os.chroot(sys.argv[1])
os.chdir("/")
os.setgid(5)
os.setuid(5)

async def main():
    config = IpcConfig(endpoint_path="/run/x/test.sock", transport=sys.argv[2])
    async with serving(succeed, config), open_client(DETECTION, config) as client:
        assert await client.call(task()) == success()
        print("answered", oct(os.stat("/run/x").st_mode), os.stat("/").st_uid)

trio.run(main)
"""


@needs_maps
def test_a_container_whose_root_directory_is_its_own_works(directory: str, transport: TransportType) -> None:
    """As rootless containers have it: its root owns ``/``, a user of its own has a directory below."""
    os.mkdir(f"{directory}/run", 0o755)
    os.chown(directory, 100_000, 100_000)
    os.chmod(directory, 0o755)
    os.chown(f"{directory}/run", 100_005, 100_005)
    said = run_in_namespace(BOTH_IN_A_CONTAINER, directory, str(transport), maps=CONTAINER, user=0)
    assert said == "answered 0o40700 0\n"
