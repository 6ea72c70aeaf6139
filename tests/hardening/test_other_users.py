"""Processes of another user, real ones: what stops them, one control at a time."""

from __future__ import annotations

import os
import sys
from functools import partial
from subprocess import PIPE

import pytest
import trio

from tests.hardening.record import ROOT, Attack
from tests.platforms import unix_only
from tests.support import serving, succeed, success, task
from trio_ipc import IpcConfig, PeerNotAllowedError, open_client
from trio_ipc.daemoneye import DETECTION

pytestmark = [
    unix_only,
    pytest.mark.skipif(
        sys.platform != "win32" and os.geteuid() != 0, reason="takes root: a child becomes another user"
    ),
]

STRANGER = 12_345

#: It tries so often, and says each time what it met.
CLIENT = f"""
import os, sys, trio
from tests.support import task
from trio_ipc import IpcConfig, IpcError, PeerPolicy, open_client
from trio_ipc.daemoneye import DETECTION

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
os.setgid({STRANGER})
os.setuid({STRANGER})

async def main():
    for _ in range(5):
        try:
            async with open_client(DETECTION, config, peers=PeerPolicy.anyone()) as client:
                await client.call(task())
                print("answered")
        except IpcError as exc:
            print(type(exc).__name__)

trio.run(main)
"""

SERVER = f"""
import os, sys, trio
from tests.support import succeed
from trio_ipc import IpcConfig, PeerPolicy, serve
from trio_ipc.daemoneye import DETECTION

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
os.setgid({STRANGER})
os.setuid({STRANGER})

async def handle(request, call):
    print("it was asked", flush=True)
    return await succeed(request, call)

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(
            handle, DETECTION, config, peers=PeerPolicy.anyone(), task_status=task_status))
        print("ready", flush=True)

trio.run(main)
"""


async def strangers_try(config: IpcConfig) -> list[str]:
    """Let another user try to be served; return what it met."""
    command = [sys.executable, "-c", CLIENT, config.endpoint_path, str(config.transport)]
    done = await trio.run_process(command, capture_stdout=True, cwd=ROOT)
    return done.stdout.decode().split()


async def test_the_directory_stops_another_user(config: IpcConfig, attack: Attack) -> None:
    async with serving(succeed, config) as server:
        os.chmod(config.endpoint_path, 0o666)
        assert await strangers_try(config) == ["EndpointPermissionError"] * 5
        assert server.snapshot().connections_accepted == 0
    attack(
        "another user, the socket's mode loosened to 0666",
        tried=5,
        outcome="stopped by the directory's mode 0700: `EndpointPermissionError`",
    )


async def test_the_mode_of_the_socket_stops_another_user(config: IpcConfig, attack: Attack) -> None:
    async with serving(succeed, config) as server:
        os.chmod(os.path.dirname(config.endpoint_path), 0o755)
        assert await strangers_try(config) == ["EndpointPermissionError"] * 5
        assert server.snapshot().connections_accepted == 0
    attack(
        "another user, the directory's mode loosened to 0755",
        tried=5,
        outcome="stopped by the socket's mode 0600: `EndpointPermissionError`",
    )


async def test_the_check_of_peers_stops_another_user(
    config: IpcConfig, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        os.chmod(os.path.dirname(config.endpoint_path), 0o755)
        os.chmod(config.endpoint_path, 0o666)
        assert await strangers_try(config) == ["PeerClosedError"] * 5
        counts = server.snapshot()
        assert (counts.connections_refused["credentials"], counts.connections_served) == (5, 1)
        assert await honest.call(task()) == success()
    assert caplog.text.count(f"uid {STRANGER}, gid {STRANGER} is not allowed") == 5
    attack(
        "another user, both modes loosened",
        tried=5,
        outcome="stopped by the check of peers, closed without a word, counted and logged",
    )


async def test_the_client_sends_nothing_to_a_server_of_another_user(
    directory: str, config: IpcConfig, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    os.chown(directory, STRANGER, STRANGER)
    command = [sys.executable, "-c", SERVER, config.endpoint_path, str(config.transport)]
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
            await trio.run_process(command, stdout=PIPE, cwd=ROOT, check=False, task_status=task_status)

        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        assert (await process.stdout.receive_some()).startswith(b"ready")
        for _ in range(5):
            with pytest.raises(PeerNotAllowedError, match=f"uid {STRANGER}.*somebody else took the path"):
                async with open_client(DETECTION, config) as client:
                    await client.call(task())
        process.terminate()
        said = b"".join([data async for data in process.stdout])
        assert b"asked" not in said
    assert caplog.text.count("refused to talk to the server") == 5
    attack(
        "a path taken by a server of another user",
        tried=5,
        outcome="`PeerNotAllowedError` and a warning in the log; nothing was sent",
    )


async def test_who_renames_a_server_out_of_a_shared_volume_gets_neither_calls_nor_clients(
    directory: str, config: IpcConfig, attack: Attack
) -> None:
    os.chmod(directory, 0o777)  # an emptyDir volume of Kubernetes
    private = f"{directory}/private"
    config = config.replace(endpoint_path=f"{private}/s.sock")
    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        assert await strangers_try(config) == ["EndpointPermissionError"] * 5
        steal = (
            "import os, sys\n"
            f"os.setgid({STRANGER}); os.setuid({STRANGER})\n"
            "os.rename(sys.argv[1], sys.argv[1] + '-gone')\n"
            "os.mkdir(sys.argv[1], 0o700)\n"
        )
        await trio.run_process([sys.executable, "-c", steal, private])
        command = [sys.executable, "-c", SERVER, config.endpoint_path, str(config.transport)]
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, command, stdout=PIPE, cwd=ROOT, check=False)
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            assert (await process.stdout.receive_some()).startswith(b"ready")
            for _ in range(5):
                with pytest.raises(PeerNotAllowedError, match=f"uid {STRANGER}"):
                    async with open_client(DETECTION, config) as client:
                        await client.call(task())
            process.terminate()
            said = b"".join([data async for data in process.stdout])
            assert b"asked" not in said
        gone = config.replace(endpoint_path=f"{private}-gone/s.sock")
        assert await strangers_try(gone) == ["EndpointPermissionError"] * 5
        assert await honest.call(task()) == success()
        assert server.snapshot().connections_accepted == 1
    attack(
        "in a volume that everyone can write, a server's private directory renamed by another user, who "
        "serves at its path",
        tried=15,
        outcome="the stranger reached nobody: `EndpointPermissionError` before and after; new clients met "
        "`PeerNotAllowedError` and sent nothing; the old one was served on. The endpoint was gone",
    )
