"""Unsolicited responses that come with the last one, when there is no call that could be told."""

from __future__ import annotations

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.support import Ends, frame, success, task
from trio_ipc import ChannelClosedError, PeerClosedError, ProtocolError, UnsolicitedResponseError
from trio_ipc.daemoneye import failed
from trio_ipc.testing import memory_streams

from .pipelines import line
from .support import BOTH_LINES, CONFIG, Then, answering, client_over, counts_are_whole, expect_broken_by


@BOTH_LINES
@pytest.mark.parametrize("extra", [frame(success("1")), frame(success("1"))[:3], b"\x00" * 8])
@pytest.mark.parametrize("many", [False, True])
async def test_the_next_call_is_told_and_later_ones_that_it_was(
    ends: Ends, extra: bytes, many: bool, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        async with answering(far, frame(success("1")) + extra):
            assert await client.call(task("1")) == success("1")
        await wait_all_tasks_blocked()
        assert not client.is_reusable()
        with pytest.raises(
            UnsolicitedResponseError, match="^memory: an unsolicited response came "
        ) as caught:
            await (client.call_many([task("2")]) if many else client.call(task("2")))
        assert any(
            said in str(caught.value) for said in ("nothing was sent", "the server did not get this request")
        )
        assert client.snapshot().calls_failed["protocol_error"] == 1
        await expect_broken_by(client, UnsolicitedResponseError, "an unsolicited response came")
        assert client.snapshot().calls_failed["protocol_error"] == 1
        assert client.snapshot().frames_sent == 1


@BOTH_LINES
async def test_a_server_that_says_why_and_closes_has_closed(max_in_flight: int) -> None:
    near, far = memory_streams()
    async with client_over(near, max_in_flight) as client:
        async with answering(far, (frame(success("1")), frame(failed(None, "stopping")), Then.CLOSE)):
            assert await client.call(task("1")) == success("1")
        await wait_all_tasks_blocked()
        with pytest.raises(PeerClosedError, match='had closed the connection; it said: .*"stopping"'):
            await client.call(task("2"))
        with pytest.raises(ChannelClosedError):
            await client.call(task("3"))
        counts_are_whole(client)


async def test_each_error_is_a_new_one() -> None:
    """What is told has a traceback of its own, and so has what broke the connection."""
    async with line() as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        await subject.answer("1", "1")
        subject.call("2", "3")
        await wait_all_tasks_blocked()
        assert sorted(type(subject.error(name)).__name__ for name in "23") == [
            "ChannelClosedError",
            "UnsolicitedResponseError",
        ]
        [first] = [subject.error(name) for name in "23" if isinstance(subject.error(name), ProtocolError)]
        assert isinstance(first.__cause__, UnsolicitedResponseError)
        assert [outcome for _, outcome in subject.done[1:]] == [
            subject.answers[name] for name, _ in subject.done[1:]
        ]


async def test_a_connection_that_was_closed_while_idle_was_closed_and_nothing_else() -> None:
    async with line() as subject:
        await wait_all_tasks_blocked()
        await subject.pipeline.aclose()
        subject.call("1", "2")
        await wait_all_tasks_blocked()
        assert [type(subject.error(name)) for name in "12"] == 2 * [ChannelClosedError]
