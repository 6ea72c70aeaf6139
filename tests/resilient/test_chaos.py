"""Servers that crash, restart, hang, answer late or by garbage, and close at random, under many callers.

All of it on the mock clock and from a seed, so that a storm that went wrong can be had again.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.support import success, task
from trio_ipc import (
    Call,
    ChannelClosedError,
    ChecksumMismatchError,
    Contract,
    FrameTooLargeError,
    InvalidLengthError,
    IpcError,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    ServerNotFoundError,
    TruncatedFrameError,
    UndecodableMessageError,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, is_capability_negotiation
from trio_ipc.errors import AttemptsFailedError, CallTimeoutError, CircuitOpenError, PoolTimeoutError
from trio_ipc.resilient import BreakerState, Strategy

from .support import (
    PLAIN,
    UNREPEATABLE,
    DetectionResilientClient,
    FakeServer,
    Servers,
    calling,
    openings_of,
    waiters_of,
    world_of,
)

CALLERS = 16
CALLS = 25
PER_ENDPOINT, IN_ALL = 3, 7

#: A contract that takes every response: here only the order ties a response to its caller.
TRUSTING: Contract[DetectionTask, DetectionResult] = attrs.evolve(
    PLAIN, name="trusting", mismatch=lambda _request, _response: None
)


#: What must happen in every storm.
DEEDS = {"crash", "be away", "restart", "hang", "answer late", "answer garbage", "close", "lie"}
MOODS = ["well", "well", "hangs", "late", "closes", "lies", "garbage"]


class Stormy(FakeServer):
    """Behaves well, or badly in a way that it is told; ``lies`` allows what only a check can find out."""

    def __init__(self, name: str, chance: random.Random, *, lies: bool) -> None:
        super().__init__(name, self.weather, read_timeout_ms=2_000, accept_timeout_ms=1_000)
        self.chance = chance
        self.lies = lies
        self.mood = "well"
        self.done: Counter[str] = Counter()

    def does(self, what: str) -> bool:
        self.done[what] += 1
        return True

    async def weather(self, task: DetectionTask, call: Call) -> DetectionResult:
        chance = self.chance
        await trio.sleep(chance.choice([0, 0, 0.001, 0.01, 0.1]))
        match self.mood:
            case "hangs" if self.does("hang"):
                await trio.sleep_forever()
            case "late" if self.does("answer late"):
                await trio.sleep(chance.uniform(0, 4))
            case "closes" if chance.random() < 0.3 and self.does("close"):
                self.drop_connections()
            case "lies" if self.lies and chance.random() < 0.3 and self.does("lie"):
                return success(f"{chance.randrange(CALLERS)}-{chance.randrange(CALLS)}")
            case "garbage" if chance.random() < 0.3 and self.does("answer garbage"):
                stream = self.streams[call.connection - 1]
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(chance.randbytes(chance.randrange(1, 40)))
        return success(task.task_id)

    async def storm(self) -> None:
        chance = self.chance
        moods: list[str] = []
        while True:
            await trio.sleep(chance.uniform(0.1, 2.5))
            # Dealt like cards, so that all have their turn.
            moods = moods or chance.sample(MOODS, len(MOODS))
            self.mood = moods.pop()
            self.connecting = trio.sleep_forever if chance.random() < 0.1 else trio.lowlevel.checkpoint
            self.closes = chance.choice([0, 0, 0, 2])
            match chance.randrange(6):
                case 0 if self.does("crash"):
                    self.crash()
                case 1 if self.does("be away"):
                    self.failing = ServerNotFoundError("no server", endpoint=self.config.endpoint_path)
                case _:
                    if self.failing is not None:
                        self.does("restart")
                    self.restart()

    def calm_down(self) -> None:
        self.mood, self.closes, self.connecting = "well", 0, trio.lowlevel.checkpoint
        self.restart()


@attrs.define
class Tally:
    servers: list[Stormy]
    calls: int = 0
    answers: int = 0
    errors: Counter[type[IpcError]] = attrs.field(factory=Counter)
    cancelled: int = 0

    def missing(self) -> set[str]:
        """What no server has done yet; a storm goes on until all has been."""
        wanted = DEEDS if self.servers[0].lies else DEEDS - {"lie"}
        return wanted.difference(*(server.done for server in self.servers))

    def fail(self, error: IpcError) -> bool:
        """Note an error; return whether it says to come again later."""
        self.errors[type(error)] += 1
        assert type(error) in PRECISE
        assert error.endpoint or error.hint
        if isinstance(error, CircuitOpenError):
            assert error.retry_after > 0
            return True
        return False


#: What a call may end by. No base class is among them: each says what happened.
PRECISE = {
    AttemptsFailedError,
    CallTimeoutError,
    ChannelClosedError,
    ChecksumMismatchError,
    CircuitOpenError,
    FrameTooLargeError,
    InvalidLengthError,
    PeerClosedError,
    PoolTimeoutError,
    ReadTimeoutError,
    ResponseMismatchError,
    TruncatedFrameError,
    UndecodableMessageError,
}


async def caller(
    client: DetectionResilientClient, number: int, chance: random.Random, tally: Tally, world: Servers
) -> None:
    for turn in range(CALLS * 10):
        if turn >= CALLS and tally.missing() == set():
            return
        tally.calls += 1
        await trio.sleep(chance.choice([0, 0, 0.05, 1]))
        name = f"{number}-{turn}"
        timeout = chance.choice([0.01, 0.5, 3, 10])
        began = trio.current_time()
        refused = False
        with trio.CancelScope() as scope:
            if chance.random() < 0.15:
                scope.deadline = began + chance.uniform(0, timeout)
            try:
                answer = await client.ask(task(name), timeout=timeout)
            except IpcError as exc:
                refused = tally.fail(exc)
            else:
                tally.answers += 1
                assert answer.response == success(name), "a response reached the wrong caller"
        tally.cancelled += scope.cancelled_caught
        assert trio.current_time() - began <= timeout + 1e-6
        assert world.connections.now <= IN_ALL
        await trio.sleep(refused)


async def weather_the_storm(
    seed: int, max_in_flight: int, contract: Contract[DetectionTask, DetectionResult]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Trio shuffles who runs next, so that nobody comes to rely on it. Here a seed must tell all.
        patch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr(trio._core._run, "_r", random.Random(seed))
        await _weather(seed, max_in_flight, contract)


async def _weather(seed: int, max_in_flight: int, contract: Contract[DetectionTask, DetectionResult]) -> None:
    chance = random.Random(seed)
    lies = contract is not TRUSTING
    servers = [Stormy(name, random.Random(chance.random()), lies=lies) for name in "abcd"]
    tally = Tally(servers)
    strategy = chance.choice(list(Strategy))
    async with calling(
        *servers,
        contract=contract,
        seed=seed,
        strategy=strategy,
        max_connections=IN_ALL,
        max_connections_per_endpoint=PER_ENDPOINT,
        max_in_flight=max_in_flight,
        idle_timeout_ms=3_000,
        lifetime_ms=20_000,
        pool_timeout_ms=5_000,
        capabilities_refresh_ms=10_000,
        # With 30 s most of the calls would only meet open breakers.
        breaker_reset_ms=1_000,
    ) as client:
        world = world_of(client)
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(server.storm)
            async with trio.open_nursery() as callers:
                for number in range(CALLERS):
                    callers.start_soon(caller, client, number, random.Random(chance.random()), tally, world)
            nursery.cancel_scope.cancel()
        for server in servers:
            server.calm_down()
        metrics = client.metrics()
        assert metrics.tasks_sent_total == tally.calls >= CALLERS * CALLS
        assert metrics.tasks_completed_total == tally.answers
        assert metrics.tasks_failed_total == tally.errors.total() + tally.cancelled
        assert metrics.connection_attempts_total == (
            metrics.connections_established_total
            + metrics.connection_failures_total
            + len(openings_of(client))  # one may wait for its turn to ask, though its call has a response
        )
        said = client.statistics()
        assert sum(one.connection_failures for one in said) == metrics.connection_failures_total
        assert sum(one.breaker.activations for one in said) == metrics.circuit_breaker_activations_total
        refreshed = sum(one.answers for one in said) - metrics.tasks_completed_total
        # It is over before capabilities_refresh_ms are: who asks is a connection whose response was owed.
        assert 0 <= refreshed <= metrics.connections_established_total
        assert all(server.connections.most <= PER_ENDPOINT for server in servers)
        assert world.connections.most <= IN_ALL
        await trio.sleep(31)
        assert client.metrics().active_connections_current == 0, "what was abandoned is settled by now"
        assert world.connections.now == 0, "what was idle for 3 s is closed, and nothing is opened by itself"
        assert not waiters_of(client)
        assert not openings_of(client)
        for turn in range(12):
            assert await client.call(task(f"after-{turn}"), timeout=1) == success(f"after-{turn}")
        assert all(one.breaker.state is not BreakerState.OPEN for one in client.statistics())
    assert tally.answers > tally.calls / 3, "a storm in which nothing is answered shows nothing"
    assert tally.errors
    assert tally.cancelled
    assert not tally.missing()


@pytest.mark.parametrize("max_in_flight", [1, 6])
@pytest.mark.parametrize("seed", range(8))
async def test_every_call_ends_in_time_in_its_own_answer_or_an_error(
    autojump_clock: MockClock, seed: int, max_in_flight: int
) -> None:
    await weather_the_storm(seed, max_in_flight, [DETECTION, PLAIN][seed % 2])


@pytest.mark.parametrize("max_in_flight", [1, 6])
@pytest.mark.parametrize("seed", range(100, 104))
async def test_the_order_alone_keeps_answers_apart(
    autojump_clock: MockClock, seed: int, max_in_flight: int
) -> None:
    await weather_the_storm(seed, max_in_flight, TRUSTING)


@pytest.mark.parametrize("max_in_flight", [1, 6])
@pytest.mark.parametrize("seed", range(200, 204))
async def test_what_may_not_be_repeated_is_seen_at_most_once(
    autojump_clock: MockClock, seed: int, max_in_flight: int
) -> None:
    seen: list[str] = []
    original = Stormy.weather

    async def noted(self: Stormy, task: DetectionTask, call: Call) -> DetectionResult:
        if not is_capability_negotiation(task):
            seen.append(task.task_id)
        return await original(self, task, call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stormy, "weather", noted)
        await weather_the_storm(seed, max_in_flight, UNREPEATABLE)
    assert len(seen) == len(set(seen))
