"""Programs that are stopped for longer than their deadlines: what came meanwhile counts."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.platforms import unix_only
from tests.server.handling import CONFIG
from tests.support import MemoryEndpoint, frame, read_results, serving, succeed, success, task
from trio_ipc import Call, IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect

pytestmark = unix_only  # SIGSTOP is

#: Longer than any deadline that the tests set.
STOPPED = 0.8

#: It stops by itself: how long this process takes to notice something is nothing to its deadlines.
CLIENT = """
import os, signal, sys, trio, trio.testing
from trio_ipc import IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask

async def stop():
    await trio.testing.wait_all_tasks_blocked()  # until the call waits for its response
    os.kill(os.getpid(), signal.SIGSTOP)

async def main(path, transport, in_flight):
    config = IpcConfig(endpoint_path=path, transport=transport, read_timeout_ms=400)
    async with open_client(DETECTION, config, max_in_flight=int(in_flight)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            print((await client.call(DetectionTask(task_id="t"))).task_id, flush=True)

trio.run(main, *sys.argv[1:])
"""

#: It stops by itself, too: in a handler, or once so many bytes have come and there is nothing to do.
SERVER = """
import os, signal, socket, sys

received, recv = 0, socket.socket.recv

def counted(sock, at_most, *flags):
    global received
    data = recv(sock, at_most, *flags)
    received += 0 if flags else len(data)
    return data

socket.socket.recv = counted  # before Trio takes it

import trio, trio.testing
from trio_ipc import IpcConfig, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult

async def answer(task, call):
    if task.task_id == "stop":
        with trio.move_on_after(0.2):
            os.kill(os.getpid(), signal.SIGSTOP)
            await trio.sleep_forever()
    return DetectionResult(task_id=task.task_id, success=True)

async def main(path, transport, came):
    config = IpcConfig(endpoint_path=path, transport=transport, read_timeout_ms=400)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, answer, DETECTION, config)
        print("listening", flush=True)
        while received < float(came):
            await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGSTOP)

trio.run(main, *sys.argv[1:])
"""


async def program(code: str, *arguments: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def line_of(process: trio.Process) -> str:
    """The next line that a program prints, in however many pieces."""
    assert process.stdout is not None
    line = b""
    with trio.fail_after(60):
        while not line.endswith(b"\n"):
            piece = await process.stdout.receive_some()
            assert piece, line
            line += piece
    return line.decode().strip()


async def let_it_stop_for_a_while(
    process: trio.Process, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    # Until it has stopped.
    await trio.to_thread.run_sync(os.waitpid, process.pid, os.WUNTRACED, abandon_on_cancel=True)
    task_status.started()
    await trio.sleep(STOPPED)  # a program is stopped by the clock on the wall, and nothing else tells
    os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("in_flight", ["1", "4"])
async def test_a_client_that_was_stopped_finds_its_response(config: IpcConfig, in_flight: str) -> None:
    entered, leave = trio.Event(), trio.Event()

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        entered.set()
        await leave.wait()
        return success(request.task_id)

    async with serving(handler, config):
        process = await program(CLIENT, config.endpoint_path, str(config.transport), in_flight)
        assert process.stderr is not None
        with trio.fail_after(20):
            await entered.wait()
        async with trio.open_nursery() as nursery:
            await nursery.start(let_it_stop_for_a_while, process)
            leave.set()
        assert await line_of(process) == "t"
        with trio.fail_after(20):
            assert await process.stderr.receive_some() == b""
            await process.wait()


async def started_server(config: IpcConfig, came: float) -> trio.Process:
    process = await program(SERVER, config.endpoint_path, str(config.transport), str(came))
    assert await line_of(process) == "listening"
    return process


@pytest.mark.parametrize("at_first", [0, 9], ids=["between frames", "inside of one"])
async def test_a_server_that_was_stopped_reads_what_came(config: IpcConfig, at_first: int) -> None:
    request = frame(task("late"))
    process = await started_server(config, at_first or len(request))
    try:
        async with await connect(config.endpoint_path) as stream:
            await stream.send_all(request[:at_first] or request)
            if not at_first:
                assert await read_results(stream, 1) == [success("late")]
            async with trio.open_nursery() as stopping:
                await stopping.start(let_it_stop_for_a_while, process)
                await stream.send_all(request[at_first:])
            with trio.fail_after(20):
                assert await read_results(stream, 1) == [success("late")]
    finally:
        process.kill()
        await process.wait()


async def test_a_handler_that_was_stopped_in_its_last_moment_has_answered(config: IpcConfig) -> None:
    async with trio.open_nursery() as nursery:
        process = await started_server(config, math.inf)
        try:
            async with open_client(DETECTION, config) as client:
                nursery.start_soon(let_it_stop_for_a_while, process)
                assert await client.call(task("stop")) == success("stop")
        finally:
            process.kill()
            await process.wait()


async def test_who_waits_for_a_place_of_a_server_that_was_stopped_waits_on(mock_clock: MockClock) -> None:
    """It was not the client before it that took too long."""
    config = CONFIG.replace(max_connections=1, accept_timeout_ms=1_000, read_timeout_ms=1_000_000)
    endpoint = MemoryEndpoint(config)
    async with serving(succeed, endpoint) as server:
        first = endpoint.connect()
        await wait_all_tasks_blocked()
        second = endpoint.connect()
        await second.send_all(frame(task()))
        await wait_all_tasks_blocked()
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        await first.aclose()
        assert await read_results(second, 1) == [success()]
        third = endpoint.connect()
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        assert await third.receive_some() == b"", "else it waits for as long as ever"
        snapshot = server.snapshot()
        assert (snapshot.connections_refused["limit"], snapshot.timeouts["accept"]) == (1, 1)
