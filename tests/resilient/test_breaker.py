from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_ipc.resilient import BreakerState
from trio_ipc.resilient.breaker import CircuitBreaker, Permit

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def breaker(on_open: object = None) -> CircuitBreaker:
    opened = on_open if callable(on_open) else (lambda: None)
    return CircuitBreaker(failures_to_open=5, reset_after=30, successes_to_close=3, on_open=opened)


def admitted(subject: CircuitBreaker) -> Permit:
    permit = subject.admit()
    assert permit is not None
    return permit


def fail(subject: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        admitted(subject).fail()


def opened(subject: CircuitBreaker) -> CircuitBreaker:
    fail(subject, 5)
    assert subject.state is OPEN
    return subject


async def test_it_opens_after_five_failures_in_a_row(mock_clock: MockClock) -> None:
    times: list[float] = []
    subject = breaker(lambda: times.append(trio.current_time()))
    fail(subject, 4)
    assert (subject.state, times) == (CLOSED, [])
    fail(subject)
    assert (subject.state, times) == (OPEN, [0])
    assert subject.admit() is None
    assert subject.retry_after == 30


async def test_a_success_between_begins_the_count_again(mock_clock: MockClock) -> None:
    subject = breaker()
    fail(subject, 4)
    admitted(subject).succeed()
    fail(subject, 4)
    assert subject.state is CLOSED
    assert subject.statistics().failures == 4


async def test_it_is_half_open_after_thirty_seconds_and_lets_one_call_through_at_a_time(
    mock_clock: MockClock,
) -> None:
    subject = opened(breaker())
    mock_clock.jump(29.9)
    assert (subject.state, subject.would_admit) == (OPEN, False)
    assert subject.retry_after == pytest.approx(0.1)
    mock_clock.jump(0.1)
    assert (subject.state, subject.would_admit, subject.retry_after) == (HALF_OPEN, True, 0)
    probe = admitted(subject)
    assert probe.probing
    assert not subject.would_admit
    assert subject.admit() is None
    probe.withdraw()
    assert admitted(subject).probing, "one that says nothing makes room for the next"


async def test_while_one_call_tries_it_says_when_to_come_again_and_never_at_once(
    mock_clock: MockClock,
) -> None:
    subject = opened(breaker())
    mock_clock.jump(30)
    probe = subject.admit(until=trio.current_time() + 8)
    assert probe is not None
    assert subject.retry_after == 8
    mock_clock.jump(5)
    assert subject.retry_after == 3
    mock_clock.jump(4)
    assert 0 < subject.retry_after < 0.1, "its time is up, and its verdict about to come"
    probe.succeed()
    assert subject.retry_after == 0
    assert subject.admit(until=trio.current_time() + 1000) is not None
    assert subject.retry_after == 30, "but not longer than it would stay open"


async def test_three_successes_in_a_row_close_it(mock_clock: MockClock) -> None:
    subject = opened(breaker())
    mock_clock.jump(30)
    for successes in range(3):
        assert subject.state is HALF_OPEN
        assert subject.statistics().successes == successes
        admitted(subject).succeed()
    assert subject.state is CLOSED
    fail(subject, 4)
    assert (subject.state, subject.retry_after) == (CLOSED, 0), "it counts from zero again"


async def test_one_failure_while_half_open_opens_it_again_for_as_long(mock_clock: MockClock) -> None:
    subject = opened(breaker())
    mock_clock.jump(30)
    admitted(subject).succeed()
    admitted(subject).succeed()
    admitted(subject).fail()
    assert (subject.state, subject.retry_after) == (OPEN, 30)
    mock_clock.jump(30)
    assert subject.state is HALF_OPEN
    assert subject.statistics().successes == 0
    assert subject.statistics().activations == 2


async def test_verdicts_from_before_it_opened_move_nothing(mock_clock: MockClock) -> None:
    subject = breaker()
    late = [admitted(subject) for _ in range(3)]
    opened(subject)
    mock_clock.jump(10)
    late[0].fail()
    assert subject.retry_after == 20, "it stays open no longer for it"
    mock_clock.jump(20)
    late[1].fail()
    assert subject.state is HALF_OPEN
    late[2].succeed()
    assert subject.statistics().successes == 0
    assert subject.admit() is not None, "nor was the probe's place taken"
    said = subject.statistics()
    assert (said.failed_total, said.succeeded_total) == (7, 1), "but they are counted"


async def test_only_the_first_verdict_of_a_permit_counts(mock_clock: MockClock) -> None:
    subject = breaker()
    permit = admitted(subject)
    for _ in range(5):
        permit.fail()
    permit.succeed()
    assert subject.statistics().failures == 1
    assert (subject.statistics().failed_total, subject.statistics().succeeded_total) == (1, 0)


async def test_a_permit_is_good_until_it_is_judged_or_the_breaker_turns(mock_clock: MockClock) -> None:
    subject = breaker()
    kept, judged = admitted(subject), admitted(subject)
    judged.succeed()
    assert subject.still_admits(kept)
    assert not subject.still_admits(judged)
    opened(subject)
    assert not subject.still_admits(kept)


class Model:
    """The rules, written down a second time and as plainly as can be."""

    def __init__(self) -> None:
        self.failures = 0
        self.successes = 0
        self.opened_at: float | None = None

    def state(self, now: float) -> BreakerState:
        if self.opened_at is None:
            return CLOSED
        return OPEN if now < self.opened_at + 30 else HALF_OPEN

    def verdict(self, now: float, *, success: bool) -> None:
        state = self.state(now)
        if state is CLOSED:
            self.failures = 0 if success else self.failures + 1
            if self.failures == 5:
                self.opened_at, self.successes = now, 0
        elif success:
            self.successes += 1
            if self.successes == 3:
                self.failures, self.successes, self.opened_at = 0, 0, None
        else:
            self.opened_at, self.successes = now, 0


@given(st.lists(st.sampled_from(["succeed", "fail", "withdraw", "wait"]), max_size=60))
def test_its_state_is_what_the_statistics_say_whatever_happens(steps: list[str]) -> None:
    clock = MockClock()

    async def live() -> None:
        subject, model = breaker(), Model()
        for step in steps:
            now = trio.current_time()
            assert subject.state is model.state(now)
            said = subject.statistics()
            assert (said.state is CLOSED) == (said.opened_at is None)
            if said.opened_at is not None:
                assert (said.state is OPEN) == (now < said.opened_at + 30)
            assert said.failures == model.failures
            permit = None if step == "wait" else subject.admit()
            if step == "wait":
                clock.jump(7)
            elif permit is None:
                assert said.state is OPEN
            else:
                getattr(permit, step)()
                if step != "withdraw":
                    model.verdict(now, success=step == "succeed")

    trio.run(live, clock=clock)
