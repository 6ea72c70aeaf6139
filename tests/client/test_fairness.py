"""A task that writes for many callers, or posts many requests, lets others have their turn now and then."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support import Beside, frame, success, task
from trio_ipc.client import posting
from trio_ipc.client.pending import Pending
from trio_ipc.testing import MemoryStream, memory_streams

from .support import answering, client_over


async def test_posting_many_requests_lets_others_have_their_turn(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Beside()
    turns = []

    def slowly(*arguments: Any) -> Pending[Any, Any]:
        mock_clock.jump(50e-6)
        turns.append(beside.turns)
        return Pending(*arguments)

    monkeypatch.setattr(posting, "Pending", slowly)
    near, _ = memory_streams()
    async with client_over(near, max_in_flight=1_000) as client, trio.open_nursery() as nursery:
        nursery.start_soon(beside.run)
        nursery.start_soon(client.call_many, [task()] * 400)
        while len(turns) < 400:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert turns[0] < turns[100] < turns[200] < turns[300] < turns[399]


async def test_writing_what_many_callers_post_lets_others_have_their_turn(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write goes without a wait, and takes half a millisecond of the processor's time."""
    beside = Beside()
    near, far = memory_streams()
    write, turns = near.write, []

    def slowly(data: bytes | bytearray | memoryview) -> int:
        mock_clock.jump(500e-6)
        turns.append(beside.turns)
        return write(data)

    monkeypatch.setattr(near, "write", slowly)
    assert isinstance(near, MemoryStream)
    async with client_over(near, max_in_flight=4_096) as client:
        async with answering(far, *[b""] * 4_095, frame(success()) * 4_096), trio.open_nursery() as nursery:
            nursery.start_soon(beside.run)
            assert await client.call_many([task()] * 4_096) == [success()] * 4_096
            nursery.cancel_scope.cancel()
    assert len(turns) >= 64, "64 go into one write"
    assert turns[0] < turns[16] < turns[32] < turns[48]
