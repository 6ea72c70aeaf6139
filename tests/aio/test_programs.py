"""asyncio programs outside of the tree: Ctrl-C, cancellation, and what they forget."""

from __future__ import annotations

import signal

import pytest

from tests.adapters import DEADLINE, Gate, program, served
from tests.platforms import exists, unix_only
from trio_ipc import IpcConfig

#: Makes a call that is never answered, and ends.
CALLER = """
import asyncio, sys
from trio_ipc import IpcConfig
from trio_ipc.aio import open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])

async def main():
    async with open_client(DETECTION, config) as client:
        call = asyncio.create_task(client.call(DetectionTask(task_id="wait")))
        if sys.argv[3] == "interrupt":
            await call
        await client.call_many([])  # which is over once the other one has gone
        if sys.argv[3] == "cancel":
            call.cancel()
        elif sys.argv[3] == "timeout":
            async with asyncio.timeout(0.01):
                await call

try:
    asyncio.run(main())
except TimeoutError:
    print("timeout")
except KeyboardInterrupt:
    print("interrupt")
"""


@pytest.mark.parametrize("how", ["cancel", "timeout", "leave"])
def test_a_program_ends_though_a_call_is_not_answered(config: IpcConfig, directory: str, how: str) -> None:
    gate = Gate()
    arguments = (config.endpoint_path, str(config.transport), how)
    with served(config, gate), program(CALLER, *arguments, directory=directory) as caller:
        status, out, errors = caller.end()
        assert (status, out) == (0, "timeout\n" if how == "timeout" else "")
        # asyncio itself tells of a task that failed and was awaited by nobody.
        assert ("ChannelClosedError" in errors) is (how == "leave")
        assert errors == "" or how == "leave"
        if gate.reached.is_set():
            assert gate.cancelled.wait(DEADLINE), "its client has left"


@unix_only  # Windows has no signal that reaches one process from another alone
def test_ctrl_c_ends_the_call_of_a_program(config: IpcConfig, directory: str) -> None:
    gate = Gate()
    arguments = (config.endpoint_path, str(config.transport), "interrupt")
    with served(config, gate), program(CALLER, *arguments, directory=directory) as caller:
        assert gate.reached.wait(DEADLINE)
        caller.interrupt()
        assert caller.end() == (0, "interrupt\n", "")
        assert gate.cancelled.wait(DEADLINE), "its client has left"


SERVER = """
import asyncio, sys
from trio_ipc import IpcConfig
from trio_ipc.aio import open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])

async def handle(task, call):
    if task.task_id == "exit":
        raise SystemExit(3)
    return DetectionResult(task_id=task.task_id, success=True)

async def main():
    global server
    server = serve(handle, DETECTION, config)
    server = await server.__aenter__() if sys.argv[3] == "forget" else server
    if sys.argv[3] == "forget":
        return
    if sys.argv[3] == "cancel":
        closing = asyncio.create_task((await server).aclose())
        await asyncio.sleep(0)
        closing.cancel()
        return
    async with server, open_client(DETECTION, config) as client:
        print("listening", flush=True)
        if sys.argv[3] == "exit":
            await client.call(DetectionTask(task_id="exit"))
        await asyncio.Event().wait()

asyncio.run(main())
"""


@unix_only
def test_ctrl_c_ends_a_server_and_its_endpoint_is_removed(config: IpcConfig, directory: str) -> None:
    arguments = (config.endpoint_path, str(config.transport), "serve")
    with program(SERVER, *arguments, directory=directory) as server:
        assert server.line() == "listening"
        server.interrupt()
        status, _, errors = server.end()
        assert status == -signal.SIGINT
        assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not exists(config.endpoint_path)


def test_a_handler_may_end_the_program(config: IpcConfig, directory: str) -> None:
    arguments = (config.endpoint_path, str(config.transport), "exit")
    with program(SERVER, *arguments, directory=directory) as server:
        assert server.line() == "listening"
        status, _, _ = server.end()
        assert status == 3
    assert not exists(config.endpoint_path)


def test_a_server_that_a_program_forgets_warns_and_leaves_no_endpoint(
    config: IpcConfig, directory: str
) -> None:
    arguments = (config.endpoint_path, str(config.transport), "forget")
    with program(SERVER, *arguments, directory=directory, options=("-W", "always")) as server:
        status, _, errors = server.end()
        assert status == 0
        assert errors.count("ResourceWarning: unclosed <trio_ipc.aio.Server at") == 1, errors
    assert not exists(config.endpoint_path)


def test_a_program_that_ends_as_the_end_of_its_server_is_cancelled_leaves_no_endpoint(
    config: IpcConfig, directory: str
) -> None:
    arguments = (config.endpoint_path, str(config.transport), "cancel")
    with program(SERVER, *arguments, directory=directory) as server:
        assert server.end() == (0, "", "")
    assert not exists(config.endpoint_path)


#: Opens both, and uses them in a fork and, after that, in the parent.
FORKS = """
import asyncio, os, sys
from trio_ipc import IpcConfig, IpcError
from trio_ipc.aio import open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])

async def handle(task, call):
    return DetectionResult(task_id=task.task_id, success=True)

async def open_both():
    return await serve(handle, DETECTION, config), await open_client(DETECTION, config)

async def use():
    uses = client.call(DetectionTask(task_id="1")), server.switch_transport("legacy"), server.wait_stopped()
    for use in uses:
        try:
            await use
        except IpcError as exc:
            print(exc.message.replace(str(os.getppid()), "P").replace(str(os.getpid()), "C"))
    server.stop()
    await client.aclose()
    await server.aclose()

async def go_on():
    print((await client.call(DetectionTask(task_id="2"))).task_id)
    await client.aclose()
    await server.aclose()
    await server.wait_stopped()

with asyncio.Runner() as runner:
    server, client = runner.run(open_both())
    child = os.fork()
    if child == 0:
        asyncio.run(use())
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    runner.run(go_on())
"""


@unix_only
@pytest.mark.parametrize("max_in_flight", ["1", "64"])
def test_a_forked_child_is_told_and_its_parent_goes_on(
    config: IpcConfig, directory: str, max_in_flight: str
) -> None:
    opening = "open_client(DETECTION, config"
    text = FORKS.replace(opening, f"{opening}, max_in_flight={max_in_flight}")
    arguments = (config.endpoint_path, str(config.transport))
    # Python itself warns of a fork beside threads, which is what is tried here.
    options = ("-W", "ignore::DeprecationWarning")
    with program(text, *arguments, directory=directory, options=options) as caller:
        status, out, errors = caller.end()
    assert (status, errors) == (0, "")
    assert out.splitlines() == ["it was opened by process P, and this is a fork of it, process C"] * 3 + ["2"]
