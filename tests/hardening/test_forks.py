"""What the host program forks, with servers and clients in it: nobody waits for who is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE

import pytest
import trio

from tests.hardening.record import ROOT, Attack
from tests.platforms import unix_only
from tests.support import DetectionClient, serving, succeed, success, task
from trio_ipc import IpcConfig, PeerClosedError, open_client
from trio_ipc.daemoneye import DETECTION

pytestmark = unix_only

#: Serves, with a worker of `multiprocessing` that was forked while a client was being served.
SERVER = """
import multiprocessing, os, signal, sys, time, trio
from tests.support import succeed
from trio_ipc import IpcConfig, serve
from trio_ipc.daemoneye import DETECTION

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])

async def handle(request, call):
    if request.task_id == "fork":
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=False)
        worker.start()
        print(worker.pid, flush=True)
    if request.task_id == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if request.task_id == "stop":
        server.stop()
    return await succeed(request, call)

async def main():
    global server
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, handle, DETECTION, config)
        print("ready", flush=True)
    os._exit(0)  # without waiting for the worker

trio.run(main)
"""


@contextmanager
def server(config: IpcConfig) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SERVER, config.endpoint_path, str(config.transport)]
    with subprocess.Popen(command, stdout=PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


async def calls_without_end(client: DetectionClient) -> None:
    while True:  # a request that is there when the server stops is answered
        await client.call(task())


@pytest.mark.parametrize("end", ["die", "stop"])
async def test_clients_of_a_server_that_ends_are_told_though_its_worker_lives_on(
    config: IpcConfig, end: str, attack: Attack
) -> None:
    with server(config) as process:
        async with open_client(DETECTION, config) as client, open_client(DETECTION, config) as idle:
            assert await idle.call(task()) == success()
            assert await client.call(task("fork")) == success("fork")
            assert process.stdout is not None
            worker = int(process.stdout.readline())
            try:
                with trio.fail_after(10):  # a third of read_timeout_ms
                    if end == "die":
                        with pytest.raises(PeerClosedError):
                            await client.call(task("die"))
                    else:
                        assert await client.call(task("stop")) == success("stop")
                    with pytest.raises(PeerClosedError):
                        await calls_without_end(idle)
                process.wait(10)
                os.kill(worker, 0)
                # And the next server starts at once.
                async with serving(succeed, config), open_client(DETECTION, config) as next_one:
                    assert await next_one.call(task()) == success()
            finally:
                os.kill(worker, signal.SIGKILL)
    attack(
        "a server is killed or stopped while a worker that it forked lives on",
        tried=1,
        outcome="its clients are told at once, and the next server starts",
    )


async def test_a_client_that_is_closed_gives_up_its_place_though_a_forked_child_lives_on(
    config: IpcConfig, attack: Attack
) -> None:
    config = config.replace(max_connections=1)
    async with serving(succeed, config):
        for _ in range(5):
            async with open_client(DETECTION, config) as client:
                assert await client.call(task()) == success()
                child = os.fork()
                if child == 0:
                    signal.pause()
                    os._exit(0)
            try:
                with trio.fail_after(10):
                    async with open_client(DETECTION, config) as other:
                        assert await other.call(task()) == success()
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    attack(
        "a client is closed while a child that its program forked lives on",
        tried=5,
        outcome="its place is free at once",
    )
