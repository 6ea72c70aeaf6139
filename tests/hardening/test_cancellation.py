"""Every public operation, cancelled at every place at which it can be, over both transports.

Each test runs one operation again and again, cancelled at one wait after another, beside a client that has a
request in flight all the time. After each of them: no descriptor, no connection and no file is left, the
client beside it has its response, and what was cancelled either goes on with right responses or says that
it is closed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.hardening.record import Attack
from tests.platforms import KEPT_BY_WINE, UNDER_WINE, exists, open_handles
from tests.resilient.support import PLAIN, UNREPEATABLE, nothing_is_left_behind
from tests.support import DetectionClient, DetectionServer, serving, success, task
from trio_ipc import (
    Call,
    Channel,
    ChannelClosedError,
    Contract,
    IpcConfig,
    PeerClosedError,
    TransportType,
    TruncatedFrameError,
    open_client,
    serve,
)
from trio_ipc.channel import close_at_once
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.opening import open_channel, open_channel_listener
from trio_ipc.resilient import Endpoint, open_resilient_client
from trio_ipc.testing import (
    CancelledAttempt,
    Dribble,
    Faults,
    Moment,
    at_byte,
    cancel_everywhere,
    open_pair,
)
from trio_ipc.transports import PeerPolicy

#: Under Wine each wait of a pipe costs a hundred times what it costs here; one moment of the three must do.
MOMENTS = pytest.mark.parametrize("moment", [Moment.WAITING] if UNDER_WINE else list(Moment), ids=str)

#: More than a socket takes, so that sending waits.
LARGE = "x" * 700_000

#: Far more than any of it takes. Nothing waits that long unless it is broken.
DEADLINE = 60.0


@attrs.define(eq=False)
class World:
    """A server, and a client of it that must never notice what happens beside it."""

    config: IpcConfig
    server: DetectionServer
    neighbour: DetectionClient
    _gate: trio.Event = attrs.field(factory=trio.Event)
    _held: trio.Event = attrs.field(factory=trio.Event)

    async def answer(self, request: DetectionTask, _: Call) -> DetectionResult:
        """Answer by what was asked: ``held`` when the gate opens, all the rest after a few steps."""
        if request.task_id == "held":
            self._held.set()
            await self._gate.wait()
        await trio.lowlevel.checkpoint()
        return success(request.task_id)

    def elsewhere(self) -> IpcConfig:
        """Settings for an endpoint beside the server's."""
        return self.config.replace(endpoint_path=f"{self.config.endpoint_path}-2")

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Have a request of the neighbour's in a handler for the length of a block, and then answered."""
        self._gate, self._held = trio.Event(), trio.Event()

        async def ask() -> None:
            assert await self.neighbour.call(task("held")) == success("held")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await self._held.wait()
            yield
            self._gate.set()

    async def drive(self, moment: Moment, operation: Operation) -> None:
        """Cancel the operation at every wait, and look around after each."""
        for _ in range(2):  # so that it is served, and has the task that keeps its deadlines
            await self.neighbour.call(task())
        await trio.testing.wait_all_tasks_blocked()
        before = self.around()
        handles = open_handles() if sys.platform == "win32" else 0
        with trio.fail_after(DEADLINE):
            for attempt in cancel_everywhere([moment]):
                async with self.undisturbed():
                    await operation(self, attempt)
                with trio.move_on_after(DEADLINE / 6):
                    while self.around() != before:  # the server may be about to see the end of a client
                        await trio.lowlevel.checkpoint()
                assert self.around() == before, attempt
        assert attempt.number > 1, "it was cancelled nowhere"
        if sys.platform == "win32":
            assert open_handles() < handles + attempt.number + KEPT_BY_WINE

    def around(self) -> dict[str, object]:
        """What must be as before: a thing that only garbage collection would close is left behind."""
        tasks = trio.lowlevel.current_statistics().tasks_living
        if sys.platform != "linux":  # Windows' threads have handles, and live a little longer than their work
            return {"tasks": tasks}
        directory = os.path.dirname(self.server.endpoint)
        return {
            "tasks": tasks,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "files": sorted(os.listdir(directory)),
        }


Operation: TypeAlias = Callable[[World, CancelledAttempt], Awaitable[None]]


@pytest.fixture
async def world(config: IpcConfig) -> AsyncIterator[World]:
    async def answer(request: DetectionTask, call: Call) -> DetectionResult:
        return await made.answer(request, call)

    async with serving(answer, config) as server, open_client(DETECTION, config) as neighbour:
        made = World(config, server, neighbour)
        yield made


def shown(attack: Attack) -> None:
    attack(
        "an operation cancelled at every wait, at three moments of each",
        tried=1,
        outcome="nothing left open; it goes on right or says that it is closed; nobody beside it noticed",
    )


async def is_good_or_closed(client: DetectionClient) -> None:
    """The next calls have their own responses, or all of them say that the client is closed."""
    broken = client.is_broken
    for name in ("after", "again"):
        try:
            assert await client.call(task(name)) == success(name)
            assert not broken
        except ChannelClosedError:
            assert broken


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


# --- A channel's --------------------------------------------------------------------------------


@asynccontextmanager
async def channels(world: World) -> AsyncIterator[tuple[Channel, Channel]]:
    """Both ends of a connection: a client's and a server's."""
    config = world.elsewhere()
    listener = await open_channel_listener(config, PeerPolicy.of(None))
    made, accepted = list[Channel](), list[Channel]()
    try:
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                made.append(await open_channel(config))

            nursery.start_soon(connect)
            accepted.append(await listener.accept())
        yield made[0], accepted[0]
    finally:
        for one in (*made, *accepted, listener):
            await close_at_once(one)


async def receive_all(channel: Channel) -> list[bytes]:
    """Whole payloads until the connection ends, however it does."""
    received: list[bytes] = []
    with suppress(PeerClosedError, ChannelClosedError, TruncatedFrameError):
        while True:
            received.append(bytes(await channel.receive()))
    return received


PAYLOADS = [LARGE.encode(), b"second", b"third"]


async def receiving(world: World, attempt: CancelledAttempt) -> None:
    async with channels(world) as (near, far):

        async def send() -> None:
            with suppress(PeerClosedError):
                for payload in PAYLOADS:
                    await far.send(payload)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            received = []
            with attempt:
                received.append(bytes(await near.receive()))
                received.append(bytes(await near.receive()))
            with suppress(ChannelClosedError):
                while len(received) < len(PAYLOADS):
                    received.append(bytes(await near.receive()))
            assert received == PAYLOADS[: len(received)], "none was lost in between, or taken twice"
            if len(received) < len(PAYLOADS):
                with pytest.raises(ChannelClosedError):
                    await near.receive()
            await near.aclose()


async def sends(world: World, attempt: CancelledAttempt, send: Callable[[Channel], Awaitable[None]]) -> None:
    async with channels(world) as (near, far):
        received: list[bytes] = []

        async def receive() -> None:
            received.extend(await receive_all(far))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with attempt:
                await send(near)
            try:
                await near.send(b"last")
                closed = False
            except ChannelClosedError:
                closed = True
            await near.aclose()
        if received and received[-1] == b"last":
            assert not closed
            received.pop()
        else:
            assert closed
        assert received == PAYLOADS[: len(received)]
        assert attempt.hit or received == PAYLOADS


async def sending(world: World, attempt: CancelledAttempt) -> None:
    async def send(channel: Channel) -> None:
        for payload in PAYLOADS:
            await channel.send(payload)

    await sends(world, attempt, send)


async def sending_many(world: World, attempt: CancelledAttempt) -> None:
    await sends(world, attempt, lambda channel: channel.send_many(PAYLOADS))


async def flushing(world: World, attempt: CancelledAttempt) -> None:
    async def send(channel: Channel) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        channel.send_nowait(PAYLOADS)
        await channel.flush()

    await sends(world, attempt, send)


async def filling(world: World, attempt: CancelledAttempt) -> None:
    async with channels(world) as (near, far):
        await far.send(b"kept")

        async def leave() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await far.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            with attempt:
                await near.fill()
            assert await receive_all(near) == [b"kept"], "cancellation leaves the channel as it was"


async def opening_a_channel(world: World, attempt: CancelledAttempt) -> None:
    channel = None
    with attempt:
        channel = await open_channel(world.config)
    if channel is not None:
        await channel.aclose()


async def listening(world: World, attempt: CancelledAttempt) -> None:
    config = world.elsewhere()
    listener = None
    with attempt:
        listener = await open_channel_listener(config, PeerPolicy.of(None))
    if listener is None:
        assert not exists(config.endpoint_path)
    else:
        await listener.aclose()


async def closing_a_listener(world: World, attempt: CancelledAttempt) -> None:
    listener = await open_channel_listener(world.elsewhere(), PeerPolicy.of(None))
    with attempt:
        await listener.aclose()
    assert not exists(world.elsewhere().endpoint_path), "closing closes, cancelled or not"


async def accepting(world: World, attempt: CancelledAttempt) -> None:
    config = world.elsewhere()
    listener = await open_channel_listener(config, PeerPolicy.of(None))

    async def talk() -> None:
        client = await open_channel(config)
        await client.send(b"here I am")
        assert await client.receive() == b"welcome"
        await client.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        channel = None
        with attempt:
            channel = await listener.accept()
        if channel is None:
            channel = await listener.accept()  # no client is lost
        assert await channel.receive() == b"here I am"
        await channel.send(b"welcome")
    await channel.aclose()
    await listener.aclose()


CHANNELS = [
    receiving,
    sending,
    sending_many,
    flushing,
    filling,
    opening_a_channel,
    listening,
    closing_a_listener,
    accepting,
]


@MOMENTS
@pytest.mark.parametrize("operation", CHANNELS)
async def test_a_channel_cancelled_at_any_wait_loses_repeats_and_mixes_nothing(
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
