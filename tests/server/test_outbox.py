"""Responses that cannot be sent while the next handler runs."""

from __future__ import annotations

import pytest
import trio

from tests.support import IN_MEMORY, ME
from trio_ipc import ChannelClosedError, FramedChannel, IpcConfig, PeerClosedError
from trio_ipc.server.outbox import Outbox
from trio_ipc.telemetry import RequestFailure, ServerCounters
from trio_ipc.testing import memory_streams


@pytest.mark.parametrize("kind", [PeerClosedError, ChannelClosedError])
async def test_what_could_not_be_sent_is_told_to_who_flushes_and_is_not_counted_as_answered(
    kind: type[Exception],
) -> None:
    near, far = memory_streams()
    channel = FramedChannel(near, IpcConfig(endpoint_path=IN_MEMORY), endpoint=IN_MEMORY, peer=ME)
    counters = ServerCounters(transport="interprocess")
    outbox = Outbox(channel, counters)
    counters.requests_in_flight = 1
    outbox.add(b"response", counts=True)
    await (far if kind is PeerClosedError else channel).aclose()
    told: list[Exception] = []
    async with trio.open_nursery() as nursery:
        outbox.send_behind(nursery, told.append)
    assert [type(exc) for exc in told] == [kind]
    assert not outbox.flush_nowait()
    with pytest.raises(kind):
        await outbox.flush()
    assert (counters.requests_answered, counters.requests_in_flight) == (0, 1)
    outbox.discard(RequestFailure.RESPONSE_UNDELIVERED)
    assert (counters.requests_answered, counters.requests_in_flight) == (0, 0)
    assert counters.requests_failed[RequestFailure.RESPONSE_UNDELIVERED] == 1
