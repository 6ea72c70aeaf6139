"""Spinning is done where it saves more time than it takes CPU time, and is tried now and then elsewhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from trio.testing import MockClock

from trio_ipc.channel.spin import Spin, Way

#: What a wait takes in this way, in seconds: until the next wait, and of CPU time.
Costs = dict[Way, tuple[float, float]]

# Measured on two cores: docs/benchmarks.md.
SMALL_CALLS: Costs = {Way.SPIN: (27e-6, 27e-6), Way.SLEEP: (118e-6, 60e-6)}
LARGE_CALLS: Costs = {Way.SPIN: (416e-6, 416e-6), Way.SLEEP: (672e-6, 343e-6)}
ONE_CORE: Costs = {Way.SPIN: (152e-6, 76e-6), Way.SLEEP: (104e-6, 52e-6)}
SLOW_HANDLERS: Costs = {Way.SPIN: (1.3e-3, 400e-6), Way.SLEEP: (1.3e-3, 200e-6)}


class World:
    """A connection in a world in which each way has its costs."""

    def __init__(
        self, costs: Costs, chance: Callable[[], float] = lambda: 0.0, *, adapts: bool = True
    ) -> None:
        self.costs = costs
        self.found = True
        self.time = self.cpu = 1.0
        self.spin = Spin(
            75,
            adapts=adapts,
            clock=lambda: self.time,
            cpu_clock=lambda: self.cpu,
            chance=chance,
        )

    async def wait(self, factor: float = 1.0) -> Way:
        looked = False

        def look() -> bool:
            nonlocal looked
            looked = True
            if not self.found:
                self.time += 10e-6
            return self.found

        assert await self.spin.until(look) is (looked and self.found)
        way = Way.SPIN if looked else Way.SLEEP
        wall, cpu = self.costs[way]
        self.time += wall * factor
        self.cpu += cpu * factor
        return way

    async def waits(self, number: int) -> Counter[Way]:
        return Counter([await self.wait() for _ in range(number)])


async def test_where_messages_are_rare_nobody_spins(autojump_clock: MockClock) -> None:
    chance = random.Random(1)
    world = World(SLOW_HANDLERS)
    world.found = False
    ways = []
    for _ in range(2_000):
        ways.append(await world.wait())
        world.time += chance.uniform(0.003, 0.1)
    assert ways.count(Way.SPIN) == 1
    world.found, world.costs = True, SMALL_CALLS
    assert (await world.waits(100))[Way.SPIN] >= 80, "and it is tried once they are not"


async def test_a_pause_belongs_to_neither_way(autojump_clock: MockClock) -> None:
    world = World(SMALL_CALLS)
    for number in range(40):
        await world.wait()
        if number % 3 == 2:
            world.time += 5
    assert await world.waits(200)
    assert world.spin.way is Way.SPIN


@pytest.mark.parametrize(
    ("costs", "better"),
    [
        (SMALL_CALLS, Way.SPIN),
        (LARGE_CALLS, Way.SPIN),
        (ONE_CORE, Way.SLEEP),
    ],
)
async def test_the_way_that_pays_is_found_at_once_and_hardly_left(
    costs: Costs, better: Way, autojump_clock: MockClock
) -> None:
    world = World(costs)
    first = await world.waits(13)
    assert first == {Way.SPIN: 6, Way.SLEEP: 6, better: first[better]}
    assert (await world.waits(50))[better] == 50
    later = await world.waits(20_000)
    assert later[better] > 0.995 * 20_000


async def test_a_new_connection_spins_first(autojump_clock: MockClock) -> None:
    assert await World(ONE_CORE).waits(6) == {Way.SPIN: 6}


async def test_what_pays_now_is_found_soon_after_it_changed(autojump_clock: MockClock) -> None:
    world = World(ONE_CORE)
    await world.waits(100)
    world.costs = SMALL_CALLS
    await world.waits(300)
    assert (await world.waits(60))[Way.SPIN] >= 48
    world.costs = ONE_CORE
    await world.waits(300)
    assert (await world.waits(60))[Way.SLEEP] >= 48


async def test_a_way_that_was_the_better_one_for_long_is_left_in_the_end(autojump_clock: MockClock) -> None:
    world = World(SMALL_CALLS)
    await world.waits(20_000)
    world.costs = ONE_CORE
    await world.waits(4_200)
    assert (await world.waits(60))[Way.SLEEP] >= 48


async def test_spinning_in_vain_is_questioned_after_a_few_times(autojump_clock: MockClock) -> None:
    world = World(SMALL_CALLS)
    await world.waits(20_000)
    world.found, world.costs = False, SLOW_HANDLERS
    assert (await world.waits(40))[Way.SLEEP] >= 24
    assert (await world.waits(1_000))[Way.SLEEP] >= 900


async def test_one_slow_wait_among_those_tried_does_not_count(autojump_clock: MockClock) -> None:
    world = World(SMALL_CALLS)
    await world.wait()
    await world.wait()
    await world.wait(factor=50)
    await world.waits(10)
    assert world.spin.way is Way.SPIN


async def test_connections_that_began_together_are_not_tried_together(autojump_clock: MockClock) -> None:
    begins = set()
    for chance in (0.0, 0.25, 0.5, 0.75):
        world = World(SMALL_CALLS, lambda chance=chance: chance)  # type: ignore[misc]
        await world.waits(13)
        begins.add([await world.wait() for _ in range(300)].index(Way.SLEEP))
    assert len(begins) == 4


async def test_it_ends_after_a_third_of_a_millisecond_where_waits_follow_one_another(
    autojump_clock: MockClock,
) -> None:
    world = World(SMALL_CALLS, adapts=False)
    world.found = False
    began = world.time
    await world.wait()
    assert world.time - began == pytest.approx(100e-6 + 27e-6, abs=11e-6)
    began = world.time
    await world.wait()
    assert world.time - began == pytest.approx(300e-6 + 27e-6, abs=11e-6)


async def test_without_adapting_it_spins_each_time(autojump_clock: MockClock) -> None:
    world = World(ONE_CORE, adapts=False)
    world.found = False
    assert await world.waits(300) == {Way.SPIN: 300}


async def test_zero_looks_are_never(autojump_clock: MockClock) -> None:
    assert not await Spin(0).until(lambda: True)
