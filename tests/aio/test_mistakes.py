"""What a new user does wrong in an asyncio program, and what that user is told."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio
from google.protobuf.struct_pb2 import Value
from google.protobuf.wrappers_pb2 import StringValue

import trio_ipc
from tests.adapters import DEADLINE, portal_threads, served
from tests.support import succeed, success, task
from trio_ipc import Call, Contract, Endpoint, IpcConfig, IpcError, Router, in_threads
from trio_ipc.aio import Client, open_client, open_resilient_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .support import run


async def handle(request: DetectionTask, _: Call) -> DetectionResult:
    await asyncio.sleep(0)
    return success(request.task_id)


# --- Opening ------------------------------------------------------------------------------------------------


async def test_in_an_event_loop_within_a_task_of_trio_it_says_what_is_for_trio(config: IpcConfig) -> None:
    async def main() -> None:
        await open_client(DETECTION, config)

    with pytest.raises(IpcError, match="this thread runs Trio, .*; on Trio use trio_ipc itself"):
        asyncio.run(main())


def test_what_is_not_open_yet_says_what_opens_it(config: IpcConfig) -> None:
    opening: Any = open_client(DETECTION, config)
    with pytest.raises(AttributeError, match="nothing is open yet that could have 'call': use async with"):
        opening.call(task())
    assert not hasattr(opening, "call")


def test_one_opening_serves_several_blocks_one_after_the_other(config: IpcConfig) -> None:
    async def main() -> None:
        opening = open_client(DETECTION, config)
        for name in ("1", "2"):
            async with opening as client:
                assert await client.call(task(name)) == success(name)
        client = await opening
        assert await client.call(task("3")) == success("3")
        await client.aclose()
        resilient = open_resilient_client(DETECTION, iter([Endpoint(config)]))
        for name in ("4", "5"):
            async with resilient as several:
                assert await several.call(task(name), timeout=DEADLINE) == success(name)

    with served(config):
        run(main)


def test_blocks_of_one_opening_do_not_overlap(config: IpcConfig) -> None:
    async def main() -> None:
        opening = open_client(DETECTION, config)
        async with opening as client:
            with pytest.raises(IpcError, match="has not ended yet; make one for each block"):
                async with opening:
                    pytest.fail("it was opened")
            assert await client.call(task("1")) == success("1")
        async with opening as client:
            assert await client.call(task("2")) == success("2")

    with served(config):
        run(main)


def test_an_opening_that_failed_may_be_tried_again(config: IpcConfig) -> None:
    async def main() -> None:
        opening = open_client(DETECTION, config)
        with pytest.raises(IpcError):
            async with opening:
                pytest.fail("there is no server")
        async with serve(handle, DETECTION, config):
            async with opening as client:
                assert await client.call(task("1")) == success("1")

    run(main)


def test_a_client_is_neither_made_by_hand_nor_copied(config: IpcConfig) -> None:
    made_of: Any = (DETECTION, config, None)
    with pytest.raises(TypeError, match=r"trio_ipc\.aio\.Client is not made by itself"):
        Client(*made_of)

    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            for copying in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="can be neither pickled nor copied: open one in each"):
                    copying(client)
            assert len(portal_threads()) == 1
            assert await client.call(task("1")) == success("1")

    with served(config):
        run(main)


# --- The wrong event loop -----------------------------------------------------------------------------------


def _on_trio_alone(config: IpcConfig) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    async def enter(manager: Any) -> None:
        async with manager:
            pytest.fail("it was opened")

    return [
        lambda: enter(trio_ipc.open_client(DETECTION, config)),
        lambda: enter(trio_ipc.open_resilient_client(DETECTION, [Endpoint(config)])),
        lambda: trio_ipc.serve(succeed, DETECTION, config),
    ]


@pytest.mark.parametrize("which", range(3), ids=["client", "resilient client", "server"])
def test_what_is_for_trio_says_so_in_asyncio(config: IpcConfig, which: int) -> None:
    async def main() -> None:
        with pytest.raises(IpcError, match=r"Trio does not run here; asyncio programs use trio_ipc\.aio"):
            await _on_trio_alone(config)[which]()

    with served(config):
        run(main)


def test_a_server_is_waited_for_in_asyncio(config: IpcConfig) -> None:
    async def main() -> None:
        async with serve(handle, DETECTION, config) as server:
            servers.append(server)

    async def wait() -> None:
        with pytest.raises(IpcError, match="no event loop of asyncio runs here"):
            await servers[0].wait_stopped()

    servers: list[Any] = []
    run(main)
    trio.run(wait)
    run(servers[0].wait_stopped)


def test_a_handler_in_threads_within_another_one_says_that_it_is_for_trio(config: IpcConfig) -> None:
    def failed(_: Value | None, reason: str) -> StringValue:
        return StringValue(value=reason)

    contract = Contract(name="values", request_type=Value, response_type=StringValue, failure=failed)
    router = Router(contract, {}, default=in_threads(lambda _request, _call: StringValue(value="unused")))

    async def main() -> None:
        async with serve(router, contract, config), open_client(contract, config) as client:
            answer = await client.call(Value(string_value="x"))
            assert (
                r"in_threads() is for Trio: in an asyncio handler await asyncio.to_thread()" in answer.value
            )

    run(main)


@pytest.mark.parametrize("max_in_flight", [1, 64])
def test_what_is_no_iterable_of_requests_is_told(config: IpcConfig, max_in_flight: int) -> None:
    one: Any = task()

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=max_in_flight) as client:
            with pytest.raises(TypeError, match="requests is a DetectionTask, must be an iterable of them"):
                await client.call_many(one)
            assert await client.call(task("1")) == success("1")

    with served(config):
        run(main)
