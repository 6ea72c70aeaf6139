"""When a task that works through many messages lets the others have their turn."""

from __future__ import annotations

from trio.testing import MockClock

from trio_ipc.client.slices import Slice


def quick() -> Slice:
    """One whose messages have shown to be quick."""
    work = Slice()
    assert not work.is_over(0)
    return work


async def test_the_clock_is_looked_at_each_16_kib_where_a_message_counts_as_1_kib_more(
    mock_clock: MockClock,
) -> None:
    work = quick()
    mock_clock.jump(0.001)
    assert not work.is_over(15_359)
    assert work.is_over(0), "it adds up"
    assert quick().is_over(15_360) is False, "its time has just begun"

    work = quick()
    mock_clock.jump(0.001)
    assert work.is_over(15_360)


async def test_a_turn_is_one_millisecond_and_another_begins_after_a_rest(mock_clock: MockClock) -> None:
    work = quick()
    mock_clock.jump(0.000_9)
    assert not work.is_over(100_000)
    mock_clock.jump(0.000_2)
    assert work.is_over(100_000)
    await work.rest()
    assert not work.is_over(100_000)
    mock_clock.jump(0.002)
    assert not work.is_over(15_359)
    await work.rest()
    mock_clock.jump(0.002)
    assert not work.is_over(0), "what was worked before the rest does not count"
    assert work.is_over(100_000)


async def test_the_clock_is_looked_at_after_each_message_until_one_was_quick(mock_clock: MockClock) -> None:
    work = Slice()
    for _ in range(9):
        mock_clock.jump(0.000_1)
        assert not work.is_over(0)
    mock_clock.jump(0.000_1)
    assert work.is_over(0)
    await work.rest()
    assert not work.is_over(0)
    mock_clock.jump(0.001)
    assert not work.is_over(0), "it was quick"


async def test_and_again_where_16_took_longer(mock_clock: MockClock) -> None:
    work = quick()
    mock_clock.jump(0.000_9)
    assert not any(work.is_over(1) for _ in range(16))
    mock_clock.jump(0.000_1)
    assert work.is_over(0)
