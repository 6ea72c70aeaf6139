"""Every public operation of a client, of a server and of a pair, cancelled at every place at which it can be.

Each test runs one operation again and again, cancelled at one wait after another, beside a client that has a
request in flight all the time. After each of them: no descriptor, no connection and no file is left, the
client beside it has its response, and what was cancelled either goes on with right responses or says that
it is closed. All of that is over both transports.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.hardening.cancellation_support import LARGE, MOMENTS, Operation, World, is_good_or_closed
from tests.hardening.record import Attack
from tests.platforms import exists
from tests.resilient.support import PLAIN, UNREPEATABLE, nothing_is_left_behind
from tests.support import DetectionServer, success, task
from trio_ipc import (
    Call,
    ChannelClosedError,
    Contract,
    PeerClosedError,
    TransportType,
    TruncatedFrameError,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.resilient import Endpoint, open_resilient_client
from trio_ipc.testing import CancelledAttempt, Dribble, Faults, Moment, at_byte, open_pair


def shown(attack: Attack) -> None:
    attack(
        "an operation cancelled at every wait, at three moments of each",
        tried=1,
        outcome="nothing left open; it goes on right or says that it is closed; nobody beside it noticed",
    )


# --- A client's ---------------------------------------------------------------------------------


async def connecting(world: World, attempt: CancelledAttempt) -> None:
    with attempt:
        async with open_client(DETECTION, world.config):
            pass


async def a_call(world: World, attempt: CancelledAttempt) -> None:
    async with open_client(DETECTION, world.config) as client:
        with attempt:
            assert await client.call(task("cancelled")) == success("cancelled")
        assert attempt.hit or not client.is_broken
        await is_good_or_closed(client)


async def a_large_call(world: World, attempt: CancelledAttempt) -> None:
    async with open_client(DETECTION, world.config) as client:
        with attempt:
            assert await client.call(task(LARGE)) == success(LARGE)
        await is_good_or_closed(client)


async def a_call_that_waits_for_its_turn(world: World, attempt: CancelledAttempt) -> None:
    async with open_client(DETECTION, world.config) as client:
        first: list[DetectionResult] = []

        async def ask_first() -> None:
            first.append(await client.call(task(LARGE)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_first)
            while not client.snapshot().calls_in_flight:
                await trio.lowlevel.checkpoint()
            with attempt:
                assert await client.call(task("second")) == success("second")
        assert first == [success(LARGE)], attempt
        await is_good_or_closed(client)


async def many_calls(world: World, attempt: CancelledAttempt) -> None:
    names = [f"{number}" for number in range(70)]
    async with open_client(DETECTION, world.config) as client:
        with attempt:
            answers = await client.call_many([task(name) for name in names])
            assert answers == [success(name) for name in names]
        await is_good_or_closed(client)


async def many_large_calls(world: World, attempt: CancelledAttempt) -> None:
    names = [f"{number}{LARGE}" for number in range(3)]
    async with open_client(DETECTION, world.config) as client:
        with attempt:
            answers = await client.call_many([task(name) for name in names])
            assert answers == [success(name) for name in names]
        await is_good_or_closed(client)


async def closing_a_client(world: World, attempt: CancelledAttempt) -> None:
    async with open_client(DETECTION, world.config) as client:
        await client.call(task())
        with attempt:
            await client.aclose()
        assert client.is_broken, "closing closes, cancelled or not"
        await is_good_or_closed(client)


async def a_call_on_a_shared_client(world: World, attempt: CancelledAttempt) -> None:
    async with open_client(DETECTION, world.config, max_in_flight=64) as client:
        beside: list[DetectionResult] = []

        async def ask_beside() -> None:
            beside.append(await client.call(task(LARGE)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_beside)
            with attempt:
                assert await client.call(task("cancelled")) == success("cancelled")
        assert beside == [success(LARGE)], "cancellation hurts no other call"
        assert not client.is_broken
        assert await client.call(task("after")) == success("after")


async def opening_calling_and_closing_a_shared_client(world: World, attempt: CancelledAttempt) -> None:
    with attempt:
        async with open_client(DETECTION, world.config, max_in_flight=64) as client:
            assert await client.call(task("x")) == success("x")


async def closing_a_shared_client(world: World, attempt: CancelledAttempt) -> None:
    async with open_client(DETECTION, world.config, max_in_flight=64) as client:
        await client.call(task())
        with attempt:
            await client.aclose()
        assert client.is_broken, "closing closes, cancelled or not"
        with pytest.raises(ChannelClosedError):
            await client.call(task())


CLIENTS = [
    connecting,
    a_call,
    a_large_call,
    a_call_that_waits_for_its_turn,
    many_calls,
    many_large_calls,
    closing_a_client,
    a_call_on_a_shared_client,
    opening_calling_and_closing_a_shared_client,
    closing_a_shared_client,
]


@MOMENTS
@pytest.mark.parametrize("operation", CLIENTS)
async def test_a_client_cancelled_at_any_wait_is_good_or_closed(
    world: World, moment: Moment, operation: Operation, attack: Attack
) -> None:
    await world.drive(moment, operation)
    shown(attack)


# --- A server's ---------------------------------------------------------------------------------


async def serving_from_start_to_stop(world: World, attempt: CancelledAttempt) -> None:
    config = world.elsewhere()
    with attempt:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, world.answer, DETECTION, config)
            try:
                async with open_client(DETECTION, config) as client:
                    assert await client.call(task(LARGE)) == success(LARGE)
            except (PeerClosedError, TruncatedFrameError):
                assert attempt.hit  # the server was cancelled, and the client saw it before it was
            server.stop()
    assert not exists(config.endpoint_path)


async def a_server_under_its_clients(world: World, attempt: CancelledAttempt) -> None:
    config = world.elsewhere()

    async def ask(task_status: trio.TaskStatus[None]) -> None:
        async with open_client(DETECTION, config) as client:
            assert await client.call(task("first")) == success("first")
            task_status.started()
            with suppress(PeerClosedError, ChannelClosedError):
                for name in ("1", "2", "3"):
                    assert await client.call(task(name)) == success(name)

    async with trio.open_nursery() as clients:
        with attempt:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve, world.answer, DETECTION, config)
                # They are no tasks of the attempt's.
                for _ in range(2):
                    await clients.start(ask)
                server.stop()
    assert not exists(config.endpoint_path)


async def waiting_until_a_server_has_stopped(world: World, attempt: CancelledAttempt) -> None:
    async with trio.open_nursery() as nursery:
        server: DetectionServer = await nursery.start(serve, world.answer, DETECTION, world.elsewhere())
        server.stop()
        with attempt:
            await server.wait_stopped()
        await server.wait_stopped()
        assert not exists(server.endpoint)


async def switching_transports(world: World, attempt: CancelledAttempt) -> None:
    kinds = list(TransportType)
    kinds.remove(TransportType(world.server.snapshot().transport))
    async with open_client(DETECTION, world.config) as before:
        with attempt:
            await world.server.switch_transport(kinds[0])
        now = world.server.snapshot().transport
        assert attempt.hit or now == kinds[0]
        assert await before.call(task("before")) == success("before")
        served = world.server.snapshot().by_transport[now].connections_served
        async with open_client(DETECTION, world.config) as after:
            assert await after.call(task("after")) == success("after")
        assert world.server.snapshot().by_transport[now].connections_served > served


SERVERS = [
    serving_from_start_to_stop,
    a_server_under_its_clients,
    waiting_until_a_server_has_stopped,
    switching_transports,
]


@MOMENTS
@pytest.mark.parametrize("operation", SERVERS)
async def test_a_server_cancelled_at_any_wait_leaves_nothing_and_disturbs_nobody(
    world: World, moment: Moment, operation: Operation, attack: Attack
) -> None:
    await world.drive(moment, operation)
    shown(attack)


# --- A resilient client's, and a pair's ---------------------------------------------------------


def resilient(contract: Contract[DetectionTask, DetectionResult]) -> list[Operation]:
    async def opening_calling_and_closing(world: World, attempt: CancelledAttempt) -> None:
        with attempt:
            async with open_resilient_client(contract, [Endpoint(world.config)]) as client:
                assert await client.call(task("x")) == success("x")

    async def calling(world: World, attempt: CancelledAttempt) -> None:
        async with open_resilient_client(contract, [Endpoint(world.config)]) as client:
            with attempt:
                assert await client.call(task("x")) == success("x")
            nothing_is_left_behind(client)
            assert await client.call(task("after")) == success("after")

    async def asking(world: World, attempt: CancelledAttempt) -> None:
        async with open_resilient_client(contract, [Endpoint(world.config)]) as client:
            assert await client.call(task("before")) == success("before")
            with attempt:
                assert (await client.ask(task(LARGE))).response == success(LARGE)
            nothing_is_left_behind(client)
            assert [one.failures for one in client.statistics()] == [0], "nobody is blamed"
            assert (await client.ask(task("after"))).response == success("after")

    return [opening_calling_and_closing, calling, asking]


RESILIENT = [
    pytest.param(operation, id=f"{operation.__name__}-{contract.name}")
    for contract in (PLAIN, UNREPEATABLE, DETECTION)
    for operation in resilient(contract)
]


@MOMENTS
@pytest.mark.parametrize("operation", RESILIENT)
async def test_a_resilient_client_cancelled_at_any_wait_is_as_it_was_before(
    world: World, moment: Moment, operation: Operation, attack: Attack
) -> None:
    await world.drive(moment, operation)
    shown(attack)


@MOMENTS
async def test_a_pair_cancelled_at_any_wait_leaves_nothing(
    world: World, moment: Moment, attack: Attack
) -> None:
    async def opening_a_pair(world: World, attempt: CancelledAttempt) -> None:
        with attempt:
            async with open_pair(world.answer, DETECTION, over=world.config.transport) as (client, _):
                assert await client.call(task("x")) == success("x")

    await world.drive(moment, opening_a_pair)
    shown(attack)


# --- Deadlines, on a clock of their own ---------------------------------------------------------


async def test_a_call_whose_deadline_comes_at_any_time_is_answered_right_or_the_client_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answer(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(0.05)
        return success(request.task_id)

    ended: set[bool] = set()
    for hundredths in range(60):
        dribble = [at_byte(0, Dribble(size=1, seconds=0.01))]
        faults = Faults(sending=dribble, receiving=dribble)
        async with open_pair(answer, DETECTION, wrap=faults.wrap) as (client, _):
            cancelled = True
            with trio.move_on_after(hundredths / 100):
                assert await client.call(task()) == success()
                cancelled = False
            ended.add(cancelled)
            # With no time at all nothing was sent.
            assert client.is_broken == (cancelled and hundredths > 0)
            await is_good_or_closed(client)
    assert ended == {True, False}, "some had time enough, and some had not"
