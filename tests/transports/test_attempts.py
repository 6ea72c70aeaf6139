"""Connecting where that takes a wait: attempts, pauses between them, and what a cancellation does."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from trio_ipc.transports.attempts import until_made


class Attempts:
    """Fails so often, and notes when it was asked."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.made_at: list[float] = []

    def __call__(self) -> str | None:
        self.made_at.append(trio.current_time())
        self.failures -= 1
        return None if self.failures >= 0 else "made"


@pytest.mark.parametrize("failures", [0, 1, 5])
async def test_it_is_a_checkpoint_whether_it_has_to_wait_or_not(
    failures: int, autojump_clock: MockClock
) -> None:
    with trio.testing.assert_checkpoints():
        assert await until_made(Attempts(failures)) == "made"


async def test_others_have_three_turns_before_it_sleeps_longer_and_longer(autojump_clock: MockClock) -> None:
    attempt = Attempts(12)
    began = trio.current_time()
    await until_made(attempt)
    pauses = [0.001 * 2**n for n in range(6)] + [0.05] * 3
    assert attempt.made_at[:4] == [began] * 4
    assert attempt.made_at[3:] == pytest.approx([began, *itertools.accumulate(pauses, initial=began)][1:])


async def test_who_is_cancelled_makes_no_attempt(autojump_clock: MockClock) -> None:
    attempt = Attempts(0)
    with trio.CancelScope() as scope:
        scope.cancel()
        await until_made(attempt)
    assert scope.cancelled_caught
    assert attempt.made_at == []


async def test_what_was_made_as_the_cancellation_came_is_not_lost(autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:

        def attempt() -> str:
            scope.cancel()
            return "made"

        made = await until_made(attempt)
    assert made == "made"
    assert not scope.cancelled_caught


async def test_a_cancellation_ends_the_pauses(autojump_clock: MockClock) -> None:
    attempt = Attempts(1_000)
    began = trio.current_time()
    with trio.move_on_after(1):
        await until_made(attempt)
    assert trio.current_time() == began + 1
    assert attempt.failures > 900


async def test_what_an_attempt_raises_comes_out(autojump_clock: MockClock) -> None:
    def attempt() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await until_made(attempt)
