"""A group of users that is let in on purpose: real processes of members and of others."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator

import pytest
import trio

from tests.hardening.record import ROOT, Attack
from tests.platforms import open_handles, unix_only
from tests.support import serving, succeed
from trio_ipc import ConfigError, EndpointError, EndpointUnsafeError, IpcConfig, PeerPolicy, serve
from trio_ipc.daemoneye import DETECTION
from trio_ipc.opening import open_channel_listener

pytestmark = [
    unix_only,
    pytest.mark.skipif(
        sys.platform != "win32" and os.geteuid() != 0, reason="takes root: children become members and others"
    ),
]

#: Nobody has these numbers, and no name.
GROUP, MEMBER, STRANGER, COLLECTOR = 12_500, 12_401, 12_402, 12_403

OWN = PeerPolicy.own_user_and_root()

#: As the user and with the groups that it is told: does what it is told, so often, and says what it met.
PROGRAM = """
import os, sys, trio
from tests.support import succeed, task
from trio_ipc import IpcConfig, IpcError, PeerPolicy, open_client, serve
from trio_ipc.daemoneye import DETECTION

what, path, transport, user, groups = sys.argv[1:]
config = IpcConfig(endpoint_path=path, transport=transport, socket_group="12500")
import grp, trio_ipc.channel.interprocess, trio_ipc.transports.unix_listener
os.setgroups([int(group) for group in groups.split()])
os.setgid(int(user))
os.setuid(int(user))

async def call():
    async with open_client(DETECTION, config) as client:
        await client.call(task())
        print("answered")

async def start():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, succeed, DETECTION, config)
        print("serves")
        nursery.cancel_scope.cancel()

async def replace():
    directory = os.path.dirname(path)
    for attempt in (
        lambda: os.unlink(path),
        lambda: os.rename(path, path + "2"),
        lambda: os.symlink("/", directory + "/x"),
        lambda: os.chmod(path, 0o666),
        lambda: os.chmod(directory, 0o777),
        lambda: os.open(directory + "/." + os.path.basename(path) + ".lock", os.O_RDWR | os.O_CREAT),
    ):
        try:
            attempt()
        except PermissionError:
            print("denied")
        else:
            print("done")

for _ in range(1 if what == "replace" else 5):
    try:
        trio.run({"call": call, "start": start, "replace": replace}[what])
    except* IpcError as group:
        print(type(group.exceptions[0]).__name__, group.exceptions[0])
"""


async def run_as(user: int, groups: list[int], what: str, config: IpcConfig) -> list[str]:
    """Let a process of a user do something; return the lines that it printed."""
    command = [sys.executable, "-c", PROGRAM, what, config.endpoint_path, str(config.transport)]
    command += [str(user), " ".join(map(str, groups))]
    done = await trio.run_process(command, capture_stdout=True, cwd=ROOT)
    return done.stdout.decode().splitlines()


@pytest.fixture
def open_directory(directory: str) -> str:
    """A directory that everybody can pass."""
    os.chmod(directory, 0o755)
    return directory


@pytest.fixture
def config(config: IpcConfig, open_directory: str) -> IpcConfig:
    return config.replace(endpoint_path=f"{open_directory}/a/b/test.sock", socket_group=str(GROUP))


def access(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return stat.S_IMODE(found.st_mode), found.st_gid


# --- Who gets in --------------------------------------------------------------------------------------------


async def test_a_member_is_served_and_the_log_says_by_what(
    config: IpcConfig, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_ipc")
    async with serving(succeed, config) as server:
        assert await run_as(MEMBER, [GROUP], "call", config) == ["answered"] * 5
        assert await run_as(GROUP, [], "call", config) == ["answered"] * 5  # its first group
        assert await run_as(0, [], "call", config) == ["answered"] * 5
        assert server.snapshot().connections_served == 15
    assert caplog.text.count(f"uid {MEMBER}, gid {MEMBER}, allowed as group {GROUP}") == 5
    assert caplog.text.count(f"uid {GROUP}, gid {GROUP}, allowed as group {GROUP}") == 5
    assert caplog.text.count("uid 0, gid 0, allowed as user 0") == 5
    attack(
        "members of the socket's group, by their first group and by another, and root",
        tried=15,
        outcome="served; the log says which let each of them in",
    )


async def test_each_control_alone_stops_who_is_no_member(
    config: IpcConfig, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    directory = os.path.dirname(config.endpoint_path)
    async with serving(succeed, config) as server:
        met = await run_as(STRANGER, [STRANGER], "call", config)
        assert [line.split()[0] for line in met] == ["EndpointPermissionError"] * 5
        assert "as a member of its socket_group" in met[0]
        for opened in (directory, os.path.dirname(directory)):
            os.chmod(opened, 0o755)
        met = await run_as(STRANGER, [STRANGER], "call", config)
        assert [line.split()[0] for line in met] == ["EndpointPermissionError"] * 5
        assert server.snapshot().connections_accepted == 0
        os.chmod(config.endpoint_path, 0o666)
        met = await run_as(STRANGER, [STRANGER], "call", config)
        assert [line.split()[0] for line in met] == ["PeerClosedError"] * 5
        assert server.snapshot().connections_refused["credentials"] == 5
    assert (
        caplog.text.count(f"uid {STRANGER}, gid {STRANGER} is not allowed, allowed is user 0 or group") == 5
    )
    attack(
        "a user who is not in the socket's group: as it is, with its directory opened, and its mode too",
        tried=15,
        outcome="stopped by the directory's mode 0750, by the socket's 0660, by the check of peers",
    )


async def test_a_member_can_take_nothing_away(config: IpcConfig, attack: Attack) -> None:
    async with serving(succeed, config) as server:
        assert await run_as(MEMBER, [GROUP], "replace", config) == ["denied"] * 6
        assert access(config.endpoint_path) == (0o660, GROUP)
        assert server.snapshot().endpoint_intact
    attack(
        "a member of the socket's group tries to remove, replace, lock or open up the endpoint",
        tried=6,
        outcome="denied: the group can pass the directory and no more",
    )


async def test_a_policy_of_the_callers_own_narrows_it(config: IpcConfig) -> None:
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[object]) -> None:
            await serve(succeed, DETECTION, config, peers=OWN, task_status=task_status)

        await nursery.start(run)
        met = await run_as(MEMBER, [GROUP], "call", config)
        assert [line.split()[0] for line in met] == ["PeerClosedError"] * 5
        nursery.cancel_scope.cancel()


async def test_a_clients_trust_does_not_follow_the_group(config: IpcConfig, open_directory: str) -> None:
    """A member who takes the path of a server that is down is no server to another member."""
    os.chown(open_directory, MEMBER, GROUP)
    squatter = f"""
import os, socket, sys
path = sys.argv[1]
os.setgroups([{GROUP}]); os.setgid({MEMBER}); os.setuid({MEMBER})
os.makedirs(os.path.dirname(path))
sock = socket.socket(socket.AF_UNIX); sock.bind(path); os.chmod(path, 0o666); sock.listen()
print("ready", flush=True); sys.stdin.read()
"""
    from subprocess import PIPE, Popen

    with Popen([sys.executable, "-c", squatter, config.endpoint_path], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        met = await run_as(STRANGER, [GROUP], "call", config)
        process.kill()
    assert [line.split()[0] for line in met] == ["PeerNotAllowedError"] * 5


# --- How it comes to be -------------------------------------------------------------------------------------


async def test_directories_and_socket_are_the_groups_and_the_default_is_not(config: IpcConfig) -> None:
    async with await open_channel_listener(config, OWN):
        first = os.path.dirname(os.path.dirname(config.endpoint_path))
        assert access(first) == access(f"{first}/b") == (0o750, GROUP)
        assert access(config.endpoint_path) == (0o660, GROUP)
    plain = config.replace(socket_group=None, endpoint_path=f"{first}2/test.sock")
    async with await open_channel_listener(plain, OWN):
        assert access(f"{first}2")[0] == 0o700
        assert access(plain.endpoint_path)[0] == 0o600


@pytest.fixture
def wide_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells this, other systems do not")
@pytest.mark.usefixtures("wide_umask")
async def test_nothing_is_ever_wider_than_it_should_be_not_even_for_an_instant(
    config: IpcConfig, attack: Attack
) -> None:
    directory = os.path.dirname(config.endpoint_path)
    seen: set[tuple[str, int, int]] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for kind, path in (("directory", directory), ("socket", config.endpoint_path)):
                try:
                    # Twice, for the kernel reads the group before the mode, and is not alone meanwhile.
                    first, again = access(path), access(path)
                except OSError:
                    continue
                if first == again:
                    seen.add((kind, *again))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(200):
            await (await open_channel_listener(config, OWN)).aclose()
            os.rmdir(directory)
    finally:
        over.set()
        watcher.join()
    own = os.getegid()
    assert seen <= {
        ("directory", 0o700, own),
        ("directory", 0o700, GROUP),
        ("directory", 0o750, GROUP),
        ("socket", 0o600, own),
        ("socket", 0o600, GROUP),
        ("socket", 0o660, GROUP),
    }
    attack(
        "a look at socket and directory while they are made for a group, without a rest, umask 0",
        tried=200,
        outcome="never wider than 0660 and 0750, and never wider than 0600 and 0700 for another group",
    )


async def test_an_unprivileged_server_gives_it_to_a_group_of_its_own(
    config: IpcConfig, open_directory: str
) -> None:
    os.chown(open_directory, COLLECTOR, COLLECTOR)
    assert await run_as(COLLECTOR, [GROUP], "start", config) == ["serves"] * 5


async def test_a_group_that_is_not_the_servers_to_give_is_refused_before_anything_is_made(
    config: IpcConfig, open_directory: str
) -> None:
    os.chown(open_directory, COLLECTOR, COLLECTOR)
    met = await run_as(COLLECTOR, [STRANGER], "start", config)
    assert f"uid {COLLECTOR} is no member of group {GROUP}, and may not give it the socket" in met[0]
    assert os.listdir(open_directory) == []


async def test_an_existing_directory_that_the_group_cannot_pass_is_told(
    config: IpcConfig, open_directory: str
) -> None:
    directory = os.path.dirname(config.endpoint_path)
    os.makedirs(directory, 0o700)
    with pytest.raises(EndpointError, match=f"group {GROUP}, which .* cannot pass the directory {directory}"):
        await open_channel_listener(config, OWN)
    assert access(directory)[0] == 0o700, "what exists is left as it is"
    os.chown(directory, -1, GROUP)
    os.chmod(directory, 0o750)  # as the hint says
    async with await open_channel_listener(config, OWN):
        pass


async def test_a_directory_that_the_group_can_write_is_refused(config: IpcConfig) -> None:
    directory = os.path.dirname(config.endpoint_path)
    os.makedirs(directory, 0o700)
    os.chown(directory, -1, GROUP)
    os.chmod(directory, 0o770)
    with pytest.raises(EndpointUnsafeError, match=f"others can write the directory {directory}"):
        await open_channel_listener(config, OWN)


async def test_a_first_group_that_is_shared_is_no_group_of_ones_own(
    config: IpcConfig, open_directory: str
) -> None:
    """Elsewhere a directory above may be written by the server's own first group; not by this one."""
    os.chmod(open_directory, 0o775)
    shared = config.replace(socket_group=str(os.getegid()))
    with pytest.raises(EndpointUnsafeError, match=f"group {os.getegid()} can replace the directory"):
        await open_channel_listener(shared, OWN)
    async with await open_channel_listener(config.replace(socket_group=None), OWN):
        pass


async def test_a_group_that_there_is_not_is_one_error(config: IpcConfig, open_directory: str) -> None:
    for start in (
        open_channel_listener(config.replace(socket_group="no such group"), OWN),
        serve(succeed, DETECTION, config.replace(socket_group="no such group")),
    ):
        with pytest.raises(ConfigError, match="'no such group' is no group of this system"):
            await start
    assert os.listdir(open_directory) == []


async def test_a_policy_for_a_group_that_cannot_reach_the_socket_is_told(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    alone = config.replace(socket_group=None)
    async with await open_channel_listener(alone, PeerPolicy.group(GROUP)):
        assert f"allows user 0 or group {GROUP}, who need a socket_group to reach it" in caplog.text
    caplog.clear()
    config = config.replace(endpoint_path=f"{os.path.dirname(config.endpoint_path)}/c/test.sock")
    async with await open_channel_listener(config, PeerPolicy.group(GROUP)):
        assert not caplog.records


async def test_a_start_that_fails_half_way_leaves_no_socket(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    before = open_handles()
    with monkeypatch.context() as patched:
        patched.setattr(os, "chown", denied)
        with pytest.raises(EndpointError, match="cannot listen as uid 0: Operation not permitted"):
            await open_channel_listener(config, OWN)
    assert os.listdir(os.path.dirname(config.endpoint_path)) == []
    assert open_handles() == before
