"""Several jobs at the same time: how they end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from trio_ipc.resilient.together import together


async def test_all_jobs_run_at_the_same_time_to_their_ends(autojump_clock: MockClock) -> None:
    done: list[int] = []

    async def job(number: int) -> None:
        await trio.sleep(number)
        done.append(number)

    await together([lambda number=number: job(number) for number in (3, 1, 2)])  # type: ignore[misc]
    assert (done, trio.current_time()) == ([1, 2, 3], 3)


async def test_the_first_failure_comes_out_as_it_is_and_ends_the_others(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def fail() -> None:
        await trio.sleep(1)
        raise LookupError("first")

    async def fail_later() -> None:
        try:
            await trio.sleep(2)
        finally:
            ended.append("later")

    with pytest.raises(LookupError, match="first"):
        await together([fail_later, fail])
    assert (ended, trio.current_time()) == (["later"], 1)


async def test_without_a_job_it_is_a_checkpoint_and_a_cancellation_is_nobodys_failure() -> None:
    with assert_checkpoints():
        await together([])
    with trio.CancelScope() as scope:
        scope.cancel()
        await together([trio.sleep_forever] * 2)
    assert scope.cancelled_caught
