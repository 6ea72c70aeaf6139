"""What a channel holds no longer once it has ended: the rest of what it could not send."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support import MIB
from trio_ipc import Channel, ChannelClosedError, IpcConfig, IpcError, TransportType
from trio_ipc.opening import open_channel, open_channel_listener
from trio_ipc.transports import PeerPolicy

#: More than there is room for.
SIZE: Final = 4 * MIB


async def close_here(channel: Channel, _peer: Channel) -> None:
    await channel.aclose()


async def close_there(_channel: Channel, peer: Channel) -> None:
    await peer.aclose()


@pytest.mark.parametrize("transport", TransportType)
@pytest.mark.parametrize("end", [close_here, close_there])
async def test_the_rest_of_a_message_is_let_go_of_when_its_channel_ends(
    config: IpcConfig, transport: TransportType, end: Callable[[Channel, Channel], Awaitable[None]]
) -> None:
    config = config.replace(transport=transport, max_frame_bytes=SIZE)
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await open_channel(config) as channel, await listener.accept() as peer:

            async def send() -> None:
                try:
                    await channel.send(bytes(SIZE))
                except IpcError:
                    await channel.aclose()

            tracemalloc.start()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    await wait_all_tasks_blocked()
                    assert tracemalloc.get_traced_memory()[0] > SIZE / 2
                    await end(channel, peer)
                assert tracemalloc.get_traced_memory()[0] < SIZE / 2
            finally:
                tracemalloc.stop()
            assert channel.traffic.frames_sent == 0


@pytest.mark.parametrize("transport", TransportType)
async def test_likewise_where_nobody_had_begun_to_flush_it(
    config: IpcConfig, transport: TransportType
) -> None:
    config = config.replace(transport=transport, max_frame_bytes=SIZE)
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await open_channel(config) as channel, await listener.accept():
            tracemalloc.start()
            try:
                channel.send_nowait([bytes(SIZE)])
                channel.close()
                assert tracemalloc.get_traced_memory()[0] < SIZE / 2
            finally:
                tracemalloc.stop()
            with pytest.raises(ChannelClosedError):
                await channel.flush()
            assert channel.traffic.frames_sent == 0
