"""What goes wrong with calls that are made in the event loop itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest

from tests.adapters import (
    DEADLINE,
    OF_DIRECT_CALLS,
    Gate,
    check_counts,
    interrupt_counting,
    interrupted,
    served,
    stop_at_the_end_of_a_wait_for_a_turn,
    until_sent_no_time_passes,
)
from tests.support import MIB, frame, success, task
from trio_ipc import (
    Call,
    CallTimeoutError,
    ChecksumMismatchError,
    IpcConfig,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    TurnTimeoutError,
    UnsolicitedResponseError,
)
from trio_ipc.aio import direct, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .support import AioClient, expect_closed_by, run, run_alone, waiting_call

pytestmark = OF_DIRECT_CALLS


def test_a_response_that_does_not_come_is_a_read_timeout(config: IpcConfig) -> None:
    async def test(client: AioClient) -> None:
        with pytest.raises(ReadTimeoutError, match="frame to begin, the limit read_timeout_ms is 30"):
            await client.call(task("wait"))
        await expect_closed_by(client, ReadTimeoutError)

    with served(config, Gate()):
        run_alone(config.replace(read_timeout_ms=30), test)


def test_the_callers_own_limit_is_told(config: IpcConfig) -> None:
    async def test(client: AioClient) -> None:
        until_sent_no_time_passes(client._direct)
        with pytest.raises(CallTimeoutError, match=r"for the response; .* the limit timeout is 0\.02 s"):
            await client.call(task("wait"), timeout=0.02)
        await expect_closed_by(client, CallTimeoutError)

    with served(config, Gate()):
        run_alone(config, test)


def test_a_server_that_goes_is_told(config: IpcConfig) -> None:
    gate = Gate()

    async def test(client: AioClient) -> None:
        call = await waiting_call(client, gate)
        server.server.stop()
        with pytest.raises(PeerClosedError):
            await call
        await expect_closed_by(client, PeerClosedError)

    with served(config.replace(shutdown_grace_ms=1), gate) as server:
        run_alone(config, test)


def test_a_server_that_refuses_half_a_request_is_heard(config: IpcConfig) -> None:
    async def test(client: AioClient) -> None:
        with pytest.raises(PeerClosedError, match=f"too large, the limit max_frame_bytes is {MIB}"):
            await client.call(DetectionTask(task_id="1", metadata="x" * 3 * MIB))
        await expect_closed_by(client, PeerClosedError)

    with served(config.replace(max_frame_bytes=MIB)):
        run_alone(config.replace(max_frame_bytes=8 * MIB), test)


def test_a_response_to_another_request_is_refused(config: IpcConfig) -> None:
    async def handle(_: DetectionTask, __: Call) -> DetectionResult:
        return success("another")

    async def test(client: AioClient) -> None:
        with pytest.raises(ResponseMismatchError) as caught:
            await client.call(task("1"))
        assert caught.value.endpoint == config.endpoint_path
        await expect_closed_by(client, ResponseMismatchError)

    with served(config, handle):
        run_alone(config, test)


def serve_by_hand(config: IpcConfig, script: Callable[[socket.socket], None]) -> Any:
    """Play the server of one connection in a thread, for a block."""

    @contextlib.contextmanager
    def serving() -> Iterator[None]:
        def play() -> None:
            connection, _ = listener.accept()
            with connection:
                script(connection)
                assert connection.recv(1000) == b"", "and it closes"

        with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as thread:
            listener.bind(config.endpoint_path)
            listener.listen()
            playing = thread.submit(play)
            yield
            playing.result(DEADLINE)

    return serving()


def test_checksums_are_looked_at(config: IpcConfig) -> None:
    def answer_wrongly(connection: socket.socket) -> None:
        assert connection.recv(1000)
        connection.sendall(frame(success("1"))[:-1] + b"!")

    async def test(client: AioClient) -> None:
        with pytest.raises(ChecksumMismatchError) as caught:
            await client.call(task("1"))
        assert caught.value.endpoint == config.endpoint_path
        await expect_closed_by(client, ChecksumMismatchError)

    with serve_by_hand(config, answer_wrongly):
        run_alone(config, test)


def test_what_nobody_asked_for_is_refused_by_the_next_call_and_costs_the_loop_nothing(
    config: IpcConfig,
) -> None:
    more = threading.Event()

    def answer_twice(connection: socket.socket) -> None:
        assert connection.recv(1000)
        connection.sendall(frame(success("1")))
        assert more.wait(DEADLINE)
        connection.sendall(frame(success("2")))

    async def test(client: AioClient) -> None:
        assert await client.call(task("1")) == success("1")
        watch: Any = client._direct._watch  # type: ignore[union-attr]
        stop, stopped = watch._stop, asyncio.Event()

        def noted() -> None:
            stop()
            stopped.set()

        watch._stop = noted
        more.set()
        await stopped.wait()
        assert not watch._watching
        with pytest.raises(UnsolicitedResponseError):
            await client.call(task("2"))

    with serve_by_hand(config, answer_twice):
        run_alone(config, test)


def test_what_a_contract_raises_comes_out_and_closes(config: IpcConfig) -> None:
    def mismatch(_: DetectionTask, __: DetectionResult) -> str | None:
        raise ZeroDivisionError

    async def main() -> None:
        contract = attrs.evolve(DETECTION, mismatch=mismatch)
        async with open_client(contract, config, max_in_flight=1) as client:
            with pytest.raises(ZeroDivisionError):
                await client.call(task("1"))
            await expect_closed_by(client, ZeroDivisionError)

    with served(config):
        run(main)


def test_tasks_wait_for_their_turn_no_longer_than_they_have_time(config: IpcConfig) -> None:
    gate = Gate()

    async def test(client: AioClient) -> None:
        call = await waiting_call(client, gate)
        with pytest.raises(CallTimeoutError, match="for a turn behind other tasks' calls; nothing was sent"):
            await client.call(task(), timeout=0.01)
        with pytest.raises(CallTimeoutError, match=r"turn .*; nothing was sent; the limit timeout is 0\.02"):
            await client.call_many([task(), task()], timeout=0.02)
        client._direct._channel.read_timeout = 0.01  # type: ignore[union-attr]
        with pytest.raises(TurnTimeoutError, match="the limit read_timeout_ms is 10"):
            await client.call_many([task()])
        client._direct._channel.read_timeout = DEADLINE  # type: ignore[union-attr]
        server.portal.call(gate.open)
        assert await call == success("wait")
        assert await client.call(task("after")) == success("after")
        check_counts(client, call_timeout=3, turn_timeout=1)

    with served(config, gate) as server:
        run_alone(config, test)


def test_who_waits_for_a_turn_in_a_process_that_was_stopped_waits_on(config: IpcConfig) -> None:
    gate = Gate()

    async def test(client: AioClient) -> None:
        call = await waiting_call(client, gate)
        stopped = asyncio.Event()
        stop_at_the_end_of_a_wait_for_a_turn(client._direct, stopped.set)
        after = asyncio.create_task(client.call(task("after")))
        await stopped.wait()
        server.portal.call(gate.open)
        assert await call == success("wait")
        assert await after == success("after")

    with served(config, gate) as server:
        run_alone(config, test)


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_while_a_call_is_counted_leaves_none_in_flight(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    async def test(client: AioClient) -> None:
        with monkeypatch.context() as patch:
            interrupt_counting(patch, client)
            if again:
                patch.setattr(direct, "_kind_of", interrupted)
            with pytest.raises(KeyboardInterrupt):
                await client.call(task("1"))
        assert await client.call(task("2")) == success("2"), "its response had come"
        check_counts(client, other=1)

    with served(config):
        run_alone(config, test)
