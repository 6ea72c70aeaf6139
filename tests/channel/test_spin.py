"""Spinning that helps is done each time, spinning that does not costs next to nothing."""

from __future__ import annotations

import sys

import pytest
from trio.testing import MockClock

from tests.channel.support import CONFIG
from trio_ipc.channel.spin import Spin


async def spun(spin: Spin, answers: list[bool]) -> int:
    """How often it looked in one wait."""
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        return answers[looks - 1] if looks <= len(answers) else False

    if spin.begin():
        await spin.until(look)
    return looks


class Events:
    """Passes of the scheduler (r) and looks (l), each of which takes its time and finds nothing."""

    def __init__(self, rest_takes: float, look_takes: float = 0.0) -> None:
        self.now, self.seen = 0.0, ""
        self._takes = {"r": rest_takes, "l": look_takes}

    def note(self, event: str) -> None:
        self.seen += event
        self.now += self._takes[event]

    async def rest(self) -> None:
        self.note("r")

    def look(self) -> bool:
        self.note("l")
        return False

    async def until(self, spin: Spin) -> bool:
        clock = lambda: self.now  # noqa: E731
        return spin.begin(clock) and await spin.until(self.look, rest=self.rest, clock=clock)


async def test_it_looks_each_time_while_that_helps(autojump_clock: MockClock) -> None:
    spin = Spin(5)
    assert [await spun(spin, [False, True]) for _ in range(10)] == [2] * 10


async def test_where_it_is_no_use_it_looks_ever_less_often_and_again_once_it_helps(
    autojump_clock: MockClock,
) -> None:
    spin = Spin(3)
    looked = [index for index in range(300) if await spun(spin, [])]
    assert looked == [0, 2, 6, 14, 30, 62, 126, 190, 254]
    while not await spun(spin, [True]):
        pass
    assert await spun(spin, [True]) == 1


async def test_zero_looks_are_never(autojump_clock: MockClock) -> None:
    assert await spun(Spin(0), [True]) == 0


async def test_how_long_it_looks_depends_on_how_soon_the_waits_follow_one_another(
    mock_clock: MockClock,
) -> None:
    spin = Spin(100, backs_off=False)

    async def looks_of_35_us() -> int:
        looks = 0

        def look() -> bool:
            nonlocal looks
            looks += 1
            mock_clock.jump(0.000_035)
            return False

        assert spin.begin()
        assert not await spin.until(look)
        return looks

    assert await looks_of_35_us() == 3, "the first: 0.1 ms"
    assert await looks_of_35_us() == 9, "lively: 0.3 ms"
    mock_clock.jump(0.001)
    assert await looks_of_35_us() == 3
    mock_clock.jump(0.000_8)
    assert await looks_of_35_us() == 9, "it began 0.9 ms after the last one"


async def test_what_does_not_back_off_looks_each_time(autojump_clock: MockClock) -> None:
    spin = Spin(3, backs_off=False)
    assert [await spun(spin, []) for _ in range(5)] == [3 * 8] * 5


async def test_others_have_their_turn_before_each_look_and_time_is_whoevers_it_is_told() -> None:
    spin, rests, now = Spin(100), [], 0.0

    async def rest() -> None:
        nonlocal now
        rests.append(now)
        now += 30e-6

    assert spin.begin(lambda: now)
    assert not await spin.until(lambda: False, rest=rest, clock=lambda: now)
    assert len(rests) == 4, "100 µs are over"


@pytest.mark.parametrize(
    ("rest_takes", "attempts", "wanted"),
    [
        (9e-6, 2, "rllllllllrllllllll"),
        (21e-6, 4, "rlrlrlrl"),
        (0.0, 1, "rllllllll"),
    ],
)
async def test_after_a_pass_in_which_nobody_else_ran_it_looks_eight_times(
    rest_takes: float, attempts: int, wanted: str
) -> None:
    events = Events(rest_takes, look_takes=3e-6)
    assert not await events.until(Spin(attempts))
    assert events.seen == wanted, "and it is passes that are counted"


@pytest.mark.parametrize(
    ("worth", "rest_takes", "wanted"),
    [
        (2, 9e-6, "rllllllllrllllllll" + "r"),
        (1.5, 9e-6, "rllllllllrllllllll" + "r"),
        (0, 9e-6, "rllllllll" + "r"),
        (2, 21e-6, "rl" * 5),  # others had something to do
    ],
)
async def test_it_looks_in_as_many_idle_passes_as_it_is_worth(
    worth: float, rest_takes: float, wanted: str
) -> None:
    events, spin = Events(rest_takes), Spin(5, worth=lambda: worth)
    for _ in range(2):
        assert not await events.until(spin)
    assert events.seen == wanted, "and once it was left out"


@pytest.mark.parametrize(("rest_takes", "look_takes"), [(9e-6, 3e-6), (4e-6, 1e-6), (1e-6, 0.6e-6)])
async def test_the_default_is_enough_for_all_of_its_time_on_a_fast_machine(
    rest_takes: float, look_takes: float
) -> None:
    now = 0.0

    async def rest() -> None:
        nonlocal now
        now += rest_takes

    def look() -> bool:
        nonlocal now
        now += look_takes
        return False

    spin = Spin(CONFIG.poll_attempts, backs_off=False)
    assert spin.begin(lambda: now)
    await spin.until(look, rest=rest, clock=lambda: now)
    began = now
    assert spin.begin(lambda: now)
    await spin.until(look, rest=rest, clock=lambda: now)
    assert 300e-6 <= now - began < 320e-6
    began = now
    assert spin.begin(lambda: now)
    assert not spin.block_until(look, lambda: now)
    assert 300e-6 <= now - began < 320e-6


def test_in_a_thread_it_does_the_same_without_a_rest() -> None:
    now, looks = 0.0, list[float]()

    def look() -> bool:
        nonlocal now
        now += 30e-6
        looks.append(now)
        return answers > 0

    spin, answers = Spin(100), 0
    assert spin.begin(lambda: now)
    assert not spin.block_until(look, lambda: now)
    assert len(looks) == 4, "100 µs are over"
    answers = 1
    assert not spin.begin(lambda: now), "left out once"
    assert spin.begin(lambda: now)
    assert spin.block_until(look, lambda: now)
    assert len(looks) == 5
    assert not Spin(0).begin(lambda: now)


@pytest.mark.parametrize("attempts", [5, 0])
async def test_it_asks_once_a_second_whether_its_peer_has_a_core_too(
    attempts: int, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """An affinity or a quota may be set while the process runs, and lifted."""
    usable, asked, spin = 1.5, 0, Spin(attempts, backs_off=False)

    def usable_cores() -> float:
        nonlocal asked
        asked += 1
        return usable

    # Not by its dotted name: the package has a function of the module's name.
    monkeypatch.setattr(sys.modules["trio_ipc.channel.cores"], "usable_cores", usable_cores)
    for cores, seconds, begins in (
        (1.5, 0.0, False),
        (2, 0.5, False),
        (2, 0.5, True),
        (1, 0.9, True),
        (1, 0.1, False),
    ):
        usable = cores
        mock_clock.jump(seconds)
        assert spin.begin() is spin.begin() is (begins and attempts > 0)
    assert asked == (3 if attempts else 0)
