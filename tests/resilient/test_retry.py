from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from tests.support import hang, success, task
from trio_ipc import (
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
from trio_ipc.daemoneye import DETECTION
from trio_ipc.errors import AttemptsFailedError, CallTimeoutError
from trio_ipc.resilient import ResilientConfig
from trio_ipc.resilient.retry import NobodyReachedError, backoff, with_backoff

from .support import A, FakeCollector, calling


def always(chance: float) -> Callable[[], float]:
    return lambda: chance


def test_waits_double_from_100_ms_to_30_s_and_jitter_takes_off_up_to_a_half() -> None:
    settings = ResilientConfig()
    longest = [backoff(tries, settings, 0) for tries in range(1, 12)]
    assert longest == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])
    assert backoff(3, settings, 0.5) == pytest.approx(0.3)
    assert backoff(500, settings, 0.999) == pytest.approx(15, rel=0.01)


async def test_ten_tries_with_growing_waits_and_then_the_last_error(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def reach() -> None:
        times.append(trio.current_time())
        raise NobodyReachedError(len(times))

    with pytest.raises(NobodyReachedError, match="10"):
        await with_backoff(reach, ResilientConfig(), always(0))
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6])


async def test_a_single_try_waits_for_nothing(autojump_clock: MockClock) -> None:
    async def reach() -> None:
        raise NobodyReachedError

    with pytest.raises(NobodyReachedError):
        await with_backoff(reach, ResilientConfig(connect_attempts=1), always(0))
    assert trio.current_time() == 0


async def test_what_is_no_passing_failure_comes_out_at_once_and_as_it_is(autojump_clock: MockClock) -> None:
    tries = 0

    async def reach() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise NobodyReachedError
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await with_backoff(reach, ResilientConfig(), always(0))
    assert tries == 2


@pytest.mark.parametrize("tries", [1, 2])
async def test_a_cancellation_goes_through_during_a_try(autojump_clock: MockClock, tries: int) -> None:
    made = 0

    async def reach() -> None:
        nonlocal made
        made += 1
        if made == tries:
            await trio.sleep_forever()
        raise NobodyReachedError

    with trio.move_on_after(5) as scope:
        await with_backoff(reach, ResilientConfig(), always(0))
    assert scope.cancelled_caught
    assert made == tries


# --- In the client ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passing", [ServerNotFoundError, ServerRefusedError, ConnectTimeoutError])
async def test_a_collector_that_comes_back_while_a_call_tries_to_connect_answers_it(
    autojump_clock: MockClock, passing: type[ConnectError]
) -> None:
    collector = FakeCollector("a")
    collector.failing = passing("not now", endpoint=A)
    async with calling(collector) as client, trio.open_nursery() as nursery:

        async def come_back() -> None:
            await trio.sleep(2)
            collector.restart()

        nursery.start_soon(come_back)
        answer = await client.ask(task())
        assert answer.response == success()
        assert 2 <= trio.current_time() < 4
        assert {type(error) for error in answer.attempts} == {passing}
        assert len(answer.attempts) == collector.tries - 1
        [said] = client.statistics()
        assert (said.answers, said.failures, said.breaker.failures) == (1, 0, 0), "in the end it was reached"
        assert said.connection_failures == len(answer.attempts)


async def test_closing_instead_of_the_first_answer_is_a_connection_not_made(
    autojump_clock: MockClock,
) -> None:
    """What a server over its connection limit does; nothing but the negotiation was sent."""
    collector = FakeCollector("a")
    collector.closes = 3
    async with calling(collector, contract=DETECTION) as client:
        answer = await client.ask(task())
        assert [type(error) for error in answer.attempts] == [PeerClosedError] * 3
        assert collector.asked.count("t") == 1
        assert trio.current_time() > 0.3, "it waited between the tries"
        assert client.metrics().connection_failures_total == 3


async def test_ten_tries_at_one_collector_are_one_error_that_tells_of_all(autojump_clock: MockClock) -> None:
    collector = FakeCollector("a")
    collector.crash()
    async with calling(collector) as client:
        with pytest.raises(AttemptsFailedError, match=f"^{A}: no collector answered, 10 tries") as caught:
            await client.call(task(), timeout=1000)
        assert collector.tries == 10
        assert len(caught.value.attempts) == 10
        assert "(10 times)" in str(caught.value)
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        [said] = client.statistics()
        assert said.failures == said.breaker.failures == 1, "a call that could not be made is one failure"
        assert said.connection_failures == client.metrics().connection_failures_total == 10


async def test_the_calls_deadline_ends_the_tries(autojump_clock: MockClock) -> None:
    collector = FakeCollector("a")
    collector.crash()
    async with calling(collector) as client:
        with pytest.raises(
            CallTimeoutError, match="was waiting to connect again.*connection refused"
        ) as caught:
            await client.call(task(), timeout=5)
        assert trio.current_time() == pytest.approx(5)
        assert len(caught.value.attempts) == collector.tries
        assert caught.value.endpoint == A
        assert caught.value.hint == "see whether the collectors run"
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
    collector = FakeCollector("a")
    collector.failing = lasting
    async with calling(collector) as client:
        with pytest.raises(type(lasting)) as caught:
            await client.call(task())
        assert caught.value is lasting
        assert (collector.tries, trio.current_time()) == (1, 0)


async def test_a_collector_of_another_user_is_not_tried_again(autojump_clock: MockClock) -> None:
    collector = FakeCollector("a")
    async with calling(collector, peers=PeerPolicy.users([54321])) as client:
        with pytest.raises(PeerNotAllowedError):
            await client.call(task())
        assert collector.tries == 1
        assert collector.connections.now == 0


async def test_an_answer_that_does_not_come_in_time_is_not_waited_for_again(
    autojump_clock: MockClock,
) -> None:
    collector = FakeCollector("a", hang, read_timeout_ms=2_000)
    async with calling(collector) as client:
        with pytest.raises(ReadTimeoutError):
            await client.call(task())
        assert collector.asked == ["t"]
        assert trio.current_time() == pytest.approx(2)
