"""Deadlines and cancellation of resilient calls."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import hang, succeed, success, task
from trio_ipc import (
    ReadTimeoutError,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.errors import (
    CallTimeoutError,
)

from .support import (
    UNREPEATABLE,
    A,
    B,
    FakeServer,
    calling,
    nothing_is_left_behind,
    servers,
)


async def test_one_deadline_holds_over_failover_retry_and_waiting(autojump_clock: MockClock) -> None:
    a, b, c = servers("abc", read_timeout_ms=2_000)
    a.handler = b.handler = hang
    c.crash()
    async with calling(a, b, c) as client:
        with pytest.raises(
            CallTimeoutError, match=f"timeout of 4500 ms; .*attempts had failed: .*{A}: .*{B}: "
        ) as caught:
            await client.call(task(), timeout=4.5)
        assert trio.current_time() == pytest.approx(4.5)
        assert len(caught.value.attempts) >= 3
        assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_the_default_deadline_is_the_settings(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang, read_timeout_ms=100_000)
    async with calling(server, call_timeout_ms=7_000) as client:
        with pytest.raises(CallTimeoutError, match=f"^{A}: .*was waiting for the response of {A}; see what"):
            await client.call(task())
        assert trio.current_time() == pytest.approx(7)
        [said] = client.statistics()
        assert (said.failures, said.breaker.failures, said.healthy) == (1, 1, False), "it had its time"
        assert server.connections.now == 0, "the response may still come: nobody must read it"


async def test_a_call_that_took_too_long_says_where_the_time_went(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a", hang, read_timeout_ms=3_000), FakeServer("b", hang, read_timeout_ms=60_000)
    settings: dict[str, Any] = {"contract": UNREPEATABLE, "max_connections_per_endpoint": 1}
    async with (
        calling(a, b, strategy="priority", priorities=[1, 2], **settings) as client,
        trio.open_nursery() as nursery,
    ):

        async def hold_a_for_3_s() -> None:
            with pytest.raises(ReadTimeoutError):
                await client.call(task("holds"))

        nursery.start_soon(hold_a_for_3_s)
        await wait_all_tasks_blocked()
        with pytest.raises(
            CallTimeoutError,
            match=f"^{A}: .*timeout of 5000 ms; it was waiting for the response of {B}; "
            f"it had spent 3000 ms waiting for a connection to {A}, 2000 ms waiting for the response of {B}; "
            "make fewer calls at a time",
        ):
            await client.call(task("x"), timeout=5)
        nursery.cancel_scope.cancel()


async def test_a_deadline_while_connecting_is_the_servers_failure(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    server.connecting = trio.sleep_forever
    async with calling(server) as client:
        with pytest.raises(
            CallTimeoutError, match=f"^{A}: .*it was connecting to {A}; see whether"
        ) as caught:
            await client.call(task(), timeout=1)
        assert "lower accept_timeout_ms" in caught.value.hint
        assert client.statistics()[0].breaker.failures == 1
        assert client.metrics().connection_failures_total == 1


#: What a server that closes at once most likely does it for.
WHY_CLOSED = "it may be over its connection limit .*: compare crc32_variant, max_frame_bytes and the contract"


async def test_a_deadline_after_attempts_says_why_they_most_likely_failed(autojump_clock: MockClock) -> None:
    gone, closing = servers("ab")
    gone.crash()
    closing.closes = 10**6
    async with calling(gone, closing) as client:
        with pytest.raises(
            CallTimeoutError,
            match=f"[0-9]+ attempts had failed; {WHY_CLOSED} of both sides: {B}: .*; {A}: connection refused "
            r"\([0-9]+ times\); see whether the servers run, and what they log$",
        ):
            await client.call(task(), timeout=0.5)
        nothing_is_left_behind(client)


async def test_a_deadline_after_one_attempt_says_so(autojump_clock: MockClock) -> None:
    closing, slow = servers("ab")
    closing.closes = 1
    slow.handler = hang
    async with calling(closing, slow, strategy="priority", priorities=[1, 2]) as client:
        with pytest.raises(
            CallTimeoutError,
            match=f"; 1 attempt had failed; {WHY_CLOSED} of both sides: {A}: .*; see what the server does",
        ):
            await client.call(task(), timeout=0.5)


async def test_a_wait_for_servers_that_close_says_why_they_most_likely_do(autojump_clock: MockClock) -> None:
    gone, closing = servers("ab")
    gone.crash()
    closing.closes = 10**6
    async with calling(gone, closing, contract=DETECTION) as client:
        with pytest.raises(
            CallTimeoutError, match=f"the timeout of 500 ms; {WHY_CLOSED} of both sides: {B}: .*; {A}: "
        ):
            await client.wait_until_healthy(0.5)


@pytest.mark.parametrize("at", ["connecting", "waiting for the response", "waiting to connect again"])
async def test_a_cancelled_call_is_cancelled_and_blames_nobody(autojump_clock: MockClock, at: str) -> None:
    server = FakeServer("a", hang)
    if at == "connecting":
        server.connecting = trio.sleep_forever
    elif at == "waiting to connect again":
        server.crash()
    async with calling(server) as client:
        with trio.move_on_after(0.05) as scope:
            await client.call(task())
        assert scope.cancelled_caught
        assert client.statistics()[0].breaker.failures == 0
        assert client.metrics().active_connections_current == 0
        assert server.connections.now == 0, "the connection was not kept"
        server.handler, server.connecting = succeed, trio.lowlevel.checkpoint
        server.restart()
        assert await client.call(task("next")) == success("next")


async def test_a_call_is_a_checkpoint_and_sends_nothing_where_it_is_cancelled_already(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a")
    async with calling(server) as client:
        await client.call(task("1"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call(task("2"))
        assert scope.cancelled_caught
        with trio.testing.assert_checkpoints():
            await client.call(task("3"))
        assert server.asked == ["1", "3"]
        assert server.connections.total == 1, "a call that sent nothing costs no connection"


async def test_who_waits_for_a_server_that_fails_goes_to_another(autojump_clock: MockClock) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)
    a.handler = hang
    async with calling(a, b, strategy="priority", priorities=[1, 2]) as client:
        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(client.call, task(str(number)))
        assert trio.current_time() == pytest.approx(2), "the twelve that waited did not wait their own 2 s"
        assert len(a.asked) == 4
        assert len(b.asked) == 16


async def test_a_call_for_a_removed_server_goes_to_another(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    a.handler = hang
    settings: dict[str, Any] = {"strategy": "priority", "max_connections_per_endpoint": 1}
    async with calling(a, b, priorities=[1, 2], **settings) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task("1"))
        await wait_all_tasks_blocked()
        nursery.start_soon(client.call, task("2"))
        await wait_all_tasks_blocked()
        client.remove_endpoint("a")
        await wait_all_tasks_blocked()
        assert b.asked == ["2"]
        nursery.cancel_scope.cancel()
