from __future__ import annotations

import itertools
import math
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.platforms import NOBODY
from tests.support import hang, success, task
from trio_ipc import (
    Call,
    ChecksumMismatchError,
    ConnectError,
    ConnectTimeoutError,
    EndpointPermissionError,
    IpcError,
    PeerClosedError,
    PeerNotAllowedError,
    PeerPolicy,
    ReadTimeoutError,
    ServerNotFoundError,
    ServerRefusedError,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.errors import AttemptsFailedError, CallTimeoutError
from trio_ipc.resilient import ResilientConfig
from trio_ipc.resilient.calls import backoff

from .support import A, FakeServer, calling


def test_waits_double_from_100_ms_to_30_s_and_jitter_takes_off_up_to_a_half() -> None:
    settings = ResilientConfig()
    longest = [backoff(rounds, settings, 0) for rounds in range(1, 12)]
    assert longest == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])
    assert backoff(3, settings, 0.5) == pytest.approx(0.3)
    assert backoff(500, settings, 0.999) == pytest.approx(15, rel=0.01)
    assert backoff(2_000, settings, 0) == 30
    settings = ResilientConfig(backoff_first_ms=1, backoff_longest_ms=2**31 - 1)
    assert backoff(2_000, settings, 0) == settings.backoff_longest_ms / 1000


class Refusing(FakeServer):
    """Nobody can be reached there; it notes when somebody tried."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.tried_at: list[float] = []
        self.connecting = self.note
        self.crash()

    async def note(self) -> None:
        self.tried_at.append(trio.current_time())


async def test_ten_rounds_with_growing_waits_and_then_the_last_error(autojump_clock: MockClock) -> None:
    server = Refusing("a")
    async with calling(server) as client:
        client._loop._draw = lambda: 0.0
        with pytest.raises(AttemptsFailedError, match="10 attempts failed"):
            await client.call(task(), timeout=1000)
    waits = [later - earlier for earlier, later in itertools.pairwise(server.tried_at)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6])


async def test_a_call_may_go_on_for_thousands_of_rounds(autojump_clock: MockClock) -> None:
    server = Refusing("a")
    async with calling(server, connect_attempts=2_000, backoff_longest_ms=100) as client:
        with pytest.raises(AttemptsFailedError, match="2000 attempts failed"):
            await client.call(task(), timeout=math.inf)


async def test_a_single_round_waits_for_nothing(autojump_clock: MockClock) -> None:
    server = Refusing("a")
    async with calling(server, connect_attempts=1) as client:
        with pytest.raises(ServerRefusedError):
            await client.call(task())
        assert (server.tries, trio.current_time()) == (1, 0)


async def test_what_is_no_passing_failure_ends_the_call_in_any_round(autojump_clock: MockClock) -> None:
    server = Refusing("a")
    async with calling(server) as client:

        async def another_failure() -> None:
            if server.tries == 2:
                server.failing = EndpointPermissionError("no", endpoint=A)

        server.connecting = another_failure
        with pytest.raises(AttemptsFailedError) as caught:
            await client.call(task())
        kinds = [type(error) for error in caught.value.attempts]
        assert kinds == [ServerRefusedError, EndpointPermissionError]


@pytest.mark.parametrize("tries", [1, 2])
async def test_a_cancellation_goes_through_while_it_connects_in_any_round(
    autojump_clock: MockClock, tries: int
) -> None:
    server = Refusing("a", accept_timeout_ms=60_000)

    async def hang_in_the_end() -> None:
        if server.tries == tries:
            await trio.sleep_forever()

    server.connecting = hang_in_the_end
    async with calling(server) as client:
        with trio.move_on_after(5) as scope:
            await client.call(task())
        assert scope.cancelled_caught
        assert server.tries == tries


# --- In the client ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passing", [ServerNotFoundError, ServerRefusedError, ConnectTimeoutError])
async def test_a_server_that_comes_back_while_a_call_tries_to_connect_answers_it(
    autojump_clock: MockClock, passing: type[ConnectError]
) -> None:
    server = FakeServer("a")
    server.failing = passing("not now", endpoint=A)
    async with calling(server) as client, trio.open_nursery() as nursery:

        async def come_back() -> None:
            await trio.sleep(2)
            server.restart()

        nursery.start_soon(come_back)
        answer = await client.ask(task())
        assert answer.response == success()
        assert 2 <= trio.current_time() < 4
        assert {type(error) for error in answer.attempts} == {passing}
        assert len(answer.attempts) == server.tries - 1
        [said] = client.statistics()
        assert (said.answers, said.failures, said.breaker.failures) == (1, 0, 0), "in the end it was reached"
        assert said.connection_failures == len(answer.attempts)


async def test_closing_instead_of_the_first_response_is_a_connection_not_made(
    autojump_clock: MockClock,
) -> None:
    """What a server over its connection limit does; nothing but the negotiation was sent."""
    server = FakeServer("a")
    server.closes = 3
    async with calling(server, contract=DETECTION) as client:
        answer = await client.ask(task())
        assert [type(error) for error in answer.attempts] == [PeerClosedError] * 3
        assert server.asked.count("t") == 1
        assert trio.current_time() > 0.3, "it waited between the tries"
        assert client.metrics().connection_failures_total == 3


async def test_ten_tries_at_one_server_are_one_error_that_tells_of_all(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    server.crash()
    async with calling(server) as client:
        with pytest.raises(
            AttemptsFailedError, match=f"^{A}: no server answered, 10 attempts failed: "
        ) as caught:
            await client.call(task(), timeout=1000)
        assert server.tries == 10
        assert len(caught.value.attempts) == 10
        assert "(10 times)" in str(caught.value)
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        [said] = client.statistics()
        assert said.failures == said.breaker.failures == 1, "a call that could not be made is one failure"
        assert said.connection_failures == client.metrics().connection_failures_total == 10


@pytest.mark.parametrize(("tries", "number"), [(1, ""), (2, " (2 times)"), (3, " (3 times)")])
async def test_how_often_a_try_failed_is_told_from_twice_on(
    tries: int, number: str, autojump_clock: MockClock
) -> None:
    server = FakeServer("a")
    server.crash()
    other = FakeServer("b")
    other.failing = ServerNotFoundError("no such file", endpoint=other.config.endpoint_path)
    async with calling(server, other, connect_attempts=tries) as client:
        with pytest.raises(AttemptsFailedError) as caught:
            await client.call(task(), timeout=1000)
    assert f"{A}: connection refused{number}; " in f"{caught.value.message}; "


async def test_the_calls_deadline_ends_the_tries(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    server.crash()
    async with calling(server) as client:
        with pytest.raises(
            CallTimeoutError, match="was waiting to connect again.*connection refused"
        ) as caught:
            await client.call(task(), timeout=5)
        assert trio.current_time() == pytest.approx(5)
        assert len(caught.value.attempts) == server.tries
        assert caught.value.endpoint == A
        assert caught.value.hint == "see whether the servers run, and what they log"
        assert client.statistics()[0].breaker.failures == 1


@pytest.mark.parametrize(
    "lasting",
    [
        EndpointPermissionError("no", endpoint=A),
        ConnectError("no", endpoint=A),
        ChecksumMismatchError("no", endpoint=A),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_does_not_pass_is_not_tried_again(autojump_clock: MockClock, lasting: IpcError) -> None:
    server = FakeServer("a")
    server.failing = lasting
    async with calling(server) as client:
        with pytest.raises(type(lasting)) as caught:
            await client.call(task())
        assert caught.value is lasting
        assert (server.tries, trio.current_time()) == (1, 0)


async def test_a_server_of_another_user_is_not_tried_again(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    async with calling(server, peers=PeerPolicy.users([NOBODY])) as client:
        with pytest.raises(PeerNotAllowedError):
            await client.call(task())
        assert server.tries == 1
        assert server.connections.now == 0


async def test_a_response_that_does_not_come_in_time_is_not_waited_for_again(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=2_000)
    async with calling(server) as client:
        with pytest.raises(ReadTimeoutError):
            await client.call(task())
        assert server.asked == ["t"]
        assert trio.current_time() == pytest.approx(2)


async def test_nothing_more_is_sent_for_who_was_cancelled_between_tries(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b) as client:
        for _ in range(2):
            assert await client.call(task("before")) == success("before")  # each keeps its connection
        a.handler = b.handler = hang
        judge, scope = client._loop._not_answered, trio.CancelScope()

        def cancelled_meanwhile(*arguments: Any) -> None:
            judge(*arguments)
            scope.cancel()

        client._loop._not_answered = cancelled_meanwhile  # type: ignore[assignment, method-assign]
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _call() -> None:
                with scope:
                    await client.call(task("once"))

            await trio.testing.wait_all_tasks_blocked()
            asked = [*a.asked, *b.asked]
            (a if "once" in a.asked else b).drop_connections()
        assert scope.cancelled_caught
        assert [*a.asked, *b.asked] == asked
        assert client.metrics().active_connections_current == 0


async def test_a_server_that_was_left_without_blame_gets_none_at_the_deadline(mock_clock: MockClock) -> None:
    """Its refusal of one more connection is seen in the pass in which the caller's own deadline passes."""

    async def handler(request: DetectionTask, call: Call) -> DetectionResult:
        if request.task_id == "before":
            return success(request.task_id)
        return await hang(request, call)

    server = FakeServer("a", handler)
    async with calling(server, max_connections_per_endpoint=2) as client:
        assert await client.call(task("before")) == success("before")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("slow"))
            await trio.testing.wait_all_tasks_blocked()

            @nursery.start_soon
            async def _second() -> None:
                with trio.move_on_after(5), suppress(CallTimeoutError):
                    await client.call(task("refused"), timeout=5)

            await trio.testing.wait_all_tasks_blocked()
            server.streams[-1].close()
            mock_clock.jump(5)
            await trio.testing.wait_all_tasks_blocked()
            [found] = client.statistics()
            nursery.cancel_scope.cancel()
    assert (found.breaker.failures, found.healthy) == (0, True)
