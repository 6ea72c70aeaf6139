"""The server for asyncio programs: handlers in the program's event loop, under Trio's deadlines."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from trio.testing import MockClock

from tests.adapters import DEADLINE
from tests.platforms import exists, fails_under_wine, refuse_to_accept, unix_only
from tests.support import success, task
from trio_ipc import (
    Call,
    EndpointError,
    EndpointInUseError,
    IpcConfig,
    PeerClosedError,
    ServerNotFoundError,
    TransportType,
    in_threads,
)
from trio_ipc.aio import open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .support import run


async def succeed(request: DetectionTask, _: Call) -> DetectionResult:
    await asyncio.sleep(0)
    return success(request.task_id)


class Gate:
    """A handler that answers once it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: DetectionTask, call: Call) -> DetectionResult:
        self.reached.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return success(request.task_id)


def test_handlers_run_in_the_callers_loop_each_in_a_context_of_its_own(config: IpcConfig) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    seen = []

    async def handle(request: DetectionTask, call: Call) -> DetectionResult:
        await asyncio.sleep(0)
        left = call.deadline - asyncio.get_running_loop().time()
        assert config.handler_timeout - 5 < left <= config.handler_timeout
        assert call.peer is not None
        seen.append((asyncio.get_running_loop(), variable.get(), call.connection))
        variable.set("a handler's")
        return success(request.task_id)

    async def main() -> None:
        variable.set("the server's")
        async with serve(handle, DETECTION, config) as server, open_client(DETECTION, config) as client:
            assert server.endpoint == config.endpoint_path
            assert await client.call(task("1")) == success("1")
            assert await client.call(task("2")) == success("2")
            assert server.snapshot().requests == 2
            assert repr(server) == f"<trio_ipc.aio.Server at {config.endpoint_path}, open>"
        assert seen == [(asyncio.get_running_loop(), "the server's", 1)] * 2
        assert not exists(config.endpoint_path)

    run(main)


def test_many_handlers_run_at_a_time_one_for_each_connection(config: IpcConfig) -> None:
    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        await together.wait()  # all of them are there, or none goes on
        return success(request.task_id)

    together = asyncio.Barrier(4)

    async def main() -> None:
        async def ask(name: str) -> None:
            async with open_client(DETECTION, config) as client:
                assert await client.call(task(name)) == success(name)

        async with serve(handle, DETECTION, config), asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(ask(str(number)))

    run(main)


# --- Deadlines and clients that leave -----------------------------------------------------------------------


def test_the_deadline_cancels_the_handler_and_its_client_is_told(config: IpcConfig) -> None:
    config = config.replace(handler_timeout_ms=10_000)
    clock = MockClock(rate=1)  # as any other, until it jumps

    async def main() -> None:
        gate = Gate()
        serving = serve(gate, DETECTION, config, portal=portal)
        async with serving, open_client(DETECTION, config) as client:
            call = asyncio.create_task(client.call(task()))
            await gate.reached.wait()
            portal.call(clock.jump, 10)
            answer = await call
            assert not answer.success
            assert "the handler ran out of time, the limit is 10000 ms" in answer.error_message
            assert gate.cancelled.is_set()
            gate.opened.set()
            assert await client.call(task("after")) == success("after")

    with start_blocking_portal("trio", {"clock": clock}) as portal:
        run(main)


def test_a_client_that_leaves_cancels_its_handler(config: IpcConfig) -> None:
    async def main() -> None:
        gate = Gate()
        async with serve(gate, DETECTION, config):
            async with open_client(DETECTION, config) as client:
                call = asyncio.create_task(client.call(task()))
                await gate.reached.wait()
                call.cancel()
            await gate.cancelled.wait()

    run(main)


def test_a_handler_that_is_done_as_its_time_is_up_is_waited_for(config: IpcConfig) -> None:
    config = config.replace(handler_timeout_ms=50)
    ended = []

    async def handle(request: DetectionTask, _call: Call) -> DetectionResult:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for _ in range(5):
                await asyncio.sleep(0)  # it has something to put away
            ended.append(request.task_id)
            raise
        raise AssertionError("unreachable")

    async def main() -> None:
        async with serve(handle, DETECTION, config), open_client(DETECTION, config) as client:
            answer = await client.call(task("1"))
            assert "ran out of time" in answer.error_message
            assert ended == ["1"]

    run(main)


# --- Failures -----------------------------------------------------------------------------------------------


def test_what_a_handler_raises_is_one_failed_response(config: IpcConfig) -> None:
    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        await asyncio.sleep(0)
        if request.task_id == "cancelled":
            raise asyncio.CancelledError
        if request.task_id == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.wait_for(asyncio.Event().wait(), 0))
        raise ValueError("no such process")

    async def main() -> None:
        async with serve(handle, DETECTION, config), open_client(DETECTION, config) as client:
            said = [
                (await client.call(task(name))).error_message for name in ("raised", "cancelled", "group")
            ]
            assert "the handler failed: ValueError: no such process" in said[0]
            assert "the handler was cancelled, though its time was not up" in said[1]
            assert "TimeoutError" in said[2]

    run(main)


def test_wrong_arguments_are_told_before_anything_is_opened(config: IpcConfig) -> None:
    wrong: Any = "wrong"
    with pytest.raises(TypeError, match="which is not async"):
        serve(lambda _request, _call: success(), DETECTION, config)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"use asyncio.to_thread\(\)"):
        serve(in_threads(lambda _request, _call: success()), DETECTION, config)
    with pytest.raises(TypeError, match="contract is 'wrong'"):
        serve(succeed, wrong, config)
    with pytest.raises(TypeError, match="portal is 'wrong'"):
        serve(succeed, DETECTION, config, portal=wrong)


@fails_under_wine("FILE_FLAG_FIRST_PIPE_INSTANCE is ignored", versions=[8, 10], run=False)
def test_an_endpoint_in_use_is_refused(config: IpcConfig) -> None:
    async def main() -> None:
        async with serve(succeed, DETECTION, config):
            with pytest.raises(EndpointInUseError):
                await serve(succeed, DETECTION, config)

    run(main)


@unix_only
def test_what_a_server_fails_by_is_raised_where_it_is_waited_for(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_accept(monkeypatch, errno.EINVAL, 1)

    async def main() -> None:
        with pytest.raises(EndpointError, match="the listener failed"):  # noqa: PT012 - its block raises
            async with serve(succeed, DETECTION, config) as server:
                # Its endpoint may be gone by then.
                with pytest.raises((PeerClosedError, ServerNotFoundError)):
                    async with open_client(DETECTION, config) as client:
                        await client.call(task())
                with pytest.raises(EndpointError, match="the listener failed"):
                    await server.wait_stopped()

    run(main)


# --- The end ------------------------------------------------------------------------------------------------


def test_at_the_end_of_the_block_what_is_in_flight_is_answered(config: IpcConfig) -> None:
    async def main() -> None:
        gate = Gate()
        async with AsyncExitStack() as clients:
            async with serve(gate, DETECTION, config) as server:
                client = await clients.enter_async_context(open_client(DETECTION, config))
                call = asyncio.create_task(client.call(task()))
                await gate.reached.wait()
                server.stop()
                gate.opened.set()
                await server.wait_stopped()
            assert await call == success()

    run(main)


def test_a_block_that_raises_cuts_off_what_is_in_flight(config: IpcConfig) -> None:
    async def main() -> None:
        gate = Gate()
        async with AsyncExitStack() as clients:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block's end is what is tried
                async with serve(gate, DETECTION, config):
                    client = await clients.enter_async_context(open_client(DETECTION, config))
                    call = asyncio.create_task(client.call(task()))
                    await gate.reached.wait()
                    raise ZeroDivisionError
            with pytest.raises(PeerClosedError):
                await call
            assert gate.cancelled.is_set()

    run(main)


def test_the_transport_can_be_switched(config: IpcConfig) -> None:
    other = next(kind for kind in TransportType if kind is not config.transport)

    async def main() -> None:
        async with serve(succeed, DETECTION, config) as server:
            await server.switch_transport(other)
            assert server.snapshot().transport == str(other)
            async with open_client(DETECTION, config.replace(transport=other)) as client:
                assert await client.call(task("1")) == success("1")

    run(main)


def test_stop_may_be_asked_for_by_any_thread(config: IpcConfig) -> None:
    async def main() -> None:
        async with serve(succeed, DETECTION, config) as server:
            thread = threading.Thread(target=server.stop)
            thread.start()
            await server.wait_stopped()
            thread.join(DEADLINE)
            assert not exists(config.endpoint_path)

    run(main)
