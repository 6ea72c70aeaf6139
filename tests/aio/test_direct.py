"""Calls that are made in the event loop itself: what they share with all others, and what is theirs."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from trio.testing import wait_all_tasks_blocked

from tests.adapters import DEADLINE, OF_DIRECT_CALLS, Gate, Held, check_counts, portal_threads, served
from tests.platforms import open_handles
from tests.support import MIB, success, task
from trio_ipc import (
    Call,
    CallTimeoutError,
    ChannelClosedError,
    IpcConfig,
    MessageEmptyError,
    MessageTooLargeError,
)
from trio_ipc.aio import open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .support import AioClient, run, run_alone, waiting_call

pytestmark = OF_DIRECT_CALLS


# --- Calls --------------------------------------------------------------------------------------------------


def test_it_is_for_one_call_at_a_time_of_the_default_transport(config: IpcConfig) -> None:
    legacy = config.replace(endpoint_path=config.endpoint_path + "2", transport="legacy")
    auto = config.replace(crc32_variant="auto")

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1) as client:
            assert client._direct is not None
        for settings, max_in_flight in ((config, 2), (legacy, 1), (auto, 1)):
            async with open_client(DETECTION, settings, max_in_flight=max_in_flight) as client:
                assert client._direct is None
                assert await client.call(task("1")) == success("1")

    with served(config), served(legacy):
        run(main)


def test_it_does_not_wait_for_the_trio_thread(config: IpcConfig) -> None:
    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1, portal=portal) as client:
            with Held(portal):
                for number in range(10):
                    assert await client.call(task(str(number)), timeout=DEADLINE) == success(str(number))
            check_counts(client)

    with served(config), start_blocking_portal("trio") as portal:
        run(main)


def test_a_loop_that_cannot_watch_a_socket_leaves_it_to_the_trio_thread(config: IpcConfig) -> None:
    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, *_: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1) as client:
            assert client._direct is None
            assert await client.call(task("1")) == success("1")

    with served(config):
        run(main, Loop)


def test_messages_that_do_not_come_or_go_at_once_are_whole(config: IpcConfig) -> None:
    config = config.replace(max_frame_bytes=8 * MIB)

    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=request.task_id, success=True, error_message=request.metadata * 2)

    async def test(client: AioClient) -> None:
        for size in (1, 100, 70_000, 3 * MIB, 1):
            request = DetectionTask(task_id=str(size), metadata="x" * size)
            assert len((await client.call(request, timeout=DEADLINE)).error_message) == 2 * size
        answers = await client.call_many([task("1"), task("2")])
        assert [answer.task_id for answer in answers] == ["1", "2"]
        check_counts(client)

    with served(config, handle):
        run_alone(config, test)


def test_what_cannot_be_sent_leaves_the_client_good(config: IpcConfig) -> None:
    async def test(client: AioClient) -> None:
        with pytest.raises(MessageEmptyError):
            await client.call(DetectionTask())
        with pytest.raises(MessageTooLargeError):
            await client.call(DetectionTask(task_id="x" * 2 * MIB))
        with pytest.raises(CallTimeoutError, match="before anything was sent; the limit timeout is 0 s"):
            await client.call(task(), timeout=0)
        assert await client.call(task("1")) == success("1")
        check_counts(client, request_unsendable=2, call_timeout=1)

    with served(config):
        run_alone(config, test)


def test_tasks_take_turns_and_each_gets_its_own_answer(config: IpcConfig) -> None:
    async def test(client: AioClient) -> None:
        calls = [client.call(task(str(number))) for number in range(20)]
        assert await asyncio.gather(*calls) == [success(str(number)) for number in range(20)]
        check_counts(client)

    with served(config):
        run_alone(config, test)


def test_no_requests_need_no_turn(config: IpcConfig) -> None:
    gate = Gate()

    async def test(client: AioClient) -> None:
        call = await waiting_call(client, gate)
        assert await client.call_many([], timeout=0.01) == []
        server.portal.call(gate.open)
        assert await call == success("wait")

    with served(config, gate) as server:
        run_alone(config, test)


def test_several_calls_that_wait_for_their_turn_are_in_flight(config: IpcConfig) -> None:
    gate = Gate()

    async def test(client: AioClient) -> None:
        call, waits = await waiting_call(client, gate), asyncio.Event()
        direct: Any = client._direct
        take_turn = direct._take_turn

        async def noted(left: float) -> None:
            waits.set()
            await take_turn(left)

        direct._take_turn = noted
        many = asyncio.create_task(client.call_many([task("1"), task("2")]))
        await waits.wait()
        assert (client.snapshot().calls, client.snapshot().calls_in_flight) == (3, 3)
        with pytest.raises(MessageEmptyError):  # what cannot be sent is told at once
            await client.call_many([task(), DetectionTask()])
        server.portal.call(gate.open)
        assert await call == success("wait")
        assert await many == [success("1"), success("2")]
        check_counts(client)

    with served(config, gate) as server:
        run_alone(config, test)


# --- Cancellation -------------------------------------------------------------------------------------------


def test_a_cancelled_call_closes_the_connection_and_its_server_hears_of_it(config: IpcConfig) -> None:
    gate = Gate()

    async def test(client: AioClient) -> None:
        await client.call(task("1"))
        call = await waiting_call(client, gate)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.is_broken
        assert await asyncio.to_thread(gate.cancelled.wait, DEADLINE)
        check_counts(client, cancelled=1)
        with pytest.raises(ChannelClosedError, match="a call on it was cancelled; open a new client"):
            await client.call(task())

    with served(config, gate):
        run_alone(config, test)


def test_one_that_waits_for_its_turn_is_cancelled_without_harm(config: IpcConfig) -> None:
    gate = Gate()

    async def test(client: AioClient) -> None:
        call = await waiting_call(client, gate)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.call(task())
        server.portal.call(gate.open)
        assert await call == success("wait")
        assert await client.call(task("after")) == success("after")
        check_counts(client, cancelled=1)

    with served(config, gate) as server:
        run_alone(config, test)


def test_a_second_cancellation_does_not_wait_and_the_next_call_closes_what_is_owed(config: IpcConfig) -> None:
    gate = Gate()

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1, portal=portal) as client:
            call = await waiting_call(client, gate)
            with Held(portal):
                for _ in range(2):
                    call.cancel()
                    await asyncio.sleep(0)
                with pytest.raises(asyncio.CancelledError):
                    await call
            with pytest.raises(ChannelClosedError, match="open a new client"):
                await client.call(task())
            assert client.is_broken

    with served(config, gate), start_blocking_portal("trio") as portal:
        run(main)


# --- The end ------------------------------------------------------------------------------------------------


def test_closing_ends_the_call_of_another_task(config: IpcConfig) -> None:
    gate = Gate()

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1) as client:
            call = await waiting_call(client, gate)
        with pytest.raises(ChannelClosedError):
            await call

    with served(config, gate):
        run(main)


def test_the_descriptor_is_closed_by_the_loop_that_reads_it(config: IpcConfig) -> None:
    async def test(client: AioClient) -> None:
        await client.call(task())
        direct: Any = client._direct
        number: int = direct._channel._duplex._sock.fileno()
        inode = os.fstat(number).st_ino
        client._kept.leave()
        client._kept.left.result(DEADLINE)  # while this thread may be reading
        assert os.fstat(number).st_ino == inode
        with pytest.raises(ChannelClosedError):
            await client.call(task())
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    with served(config):
        run_alone(config, test)


def test_a_portal_that_ends_ends_a_call(config: IpcConfig) -> None:
    gate = Gate()

    async def main() -> None:
        with start_blocking_portal("trio") as portal:
            client = await open_client(DETECTION, config, max_in_flight=1, portal=portal)
            call = await waiting_call(client, gate)
            client._kept.abandon()
        with pytest.raises(ChannelClosedError):
            await call
        await client.aclose()

    with served(config, gate):
        run(main)


def test_nothing_is_left_open_by_whom_it_is_closed(config: IpcConfig) -> None:
    async def closed() -> None:
        async with open_client(DETECTION, config, max_in_flight=1) as client:
            await client.call(task())

    async def forgotten() -> None:
        client = await open_client(DETECTION, config, max_in_flight=1)
        await client.call(task())
        [thread] = portal_threads()
        with pytest.warns(ResourceWarning, match="unclosed <trio_ipc.aio.Client at"):  # noqa: PT031
            del client
            gc.collect()
        await asyncio.to_thread(thread.join, DEADLINE)

    async def left_to_later() -> None:
        kept.append(await open_client(DETECTION, config, max_in_flight=1))
        await kept[0].call(task())

    def open_at_rest() -> int:
        server.portal.call(wait_all_tasks_blocked)  # it has closed its ends, too
        return open_handles()

    kept: list[Any] = []
    with served(config) as server:
        run(closed)
        before = open_at_rest()
        for main in (closed, forgotten, left_to_later):
            run(main)
        [thread] = portal_threads()
        with pytest.warns(ResourceWarning, match="unclosed <trio_ipc.aio.Client at"):  # noqa: PT031
            kept.clear()
            gc.collect()
        thread.join(DEADLINE)
        if sys.platform == "linux":
            assert open_at_rest() <= before
