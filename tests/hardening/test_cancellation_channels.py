"""Every public operation of a channel and of its listener, cancelled at every place at which it can be.

What is looked at after each cancellation is said in `test_cancellation.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.hardening.cancellation_support import LARGE, MOMENTS, Operation, World
from tests.hardening.record import Attack
from tests.platforms import exists
from trio_ipc import Channel, ChannelClosedError, PeerClosedError, TruncatedFrameError
from trio_ipc.channel import close_at_once
from trio_ipc.opening import open_channel, open_channel_listener
from trio_ipc.testing import CancelledAttempt, Moment
from trio_ipc.transports import PeerPolicy


def shown(attack: Attack) -> None:
    attack(
        "an operation cancelled at every wait, at three moments of each",
        tried=1,
        outcome="nothing left open; it goes on right or says that it is closed; nobody beside it noticed",
    )


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
