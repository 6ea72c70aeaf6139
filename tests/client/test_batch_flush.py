"""A batch that the system does not take at once: which error of its sending ends the reading, and which not.

What the server has answered before it closed can still be read, though nothing can be sent any more.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support import ME, frame, success, task
from trio_ipc import ChannelClosedError, FramedChannel, IpcError, PeerClosedError, WriteTimeoutError
from trio_ipc.testing import MemoryStream

from .support import CONFIG, client_over, narrow_streams


class NotTaken(FramedChannel):
    """Hands over a part, and then fails with this error. What comes can be read all the same."""

    error: IpcError

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        raise self.error


def not_taken(error: IpcError) -> tuple[NotTaken, MemoryStream]:
    near, far = narrow_streams(15)
    channel = NotTaken(near, CONFIG, endpoint="memory", peer=ME)
    channel.error = error
    return channel, far


async def answer_one_and_close(far: MemoryStream) -> None:
    """Each of the two a second after what was before it."""
    await trio.sleep(1)
    await far.send_all(frame(success("0")))
    await trio.sleep(1)
    await far.send_eof()


@pytest.mark.parametrize("kind", [PeerClosedError, ChannelClosedError])
async def test_of_who_has_closed_all_is_read_that_it_had_said(
    kind: type[IpcError], autojump_clock: MockClock
) -> None:
    """It comes a second after the sending has failed, which ends nothing by itself."""
    channel, far = not_taken(kind("closed", endpoint="memory"))
    async with client_over(channel) as client, trio.open_nursery() as nursery:
        nursery.start_soon(answer_one_and_close, far)
        with pytest.raises(PeerClosedError) as caught:
            await client.call_many([task("0"), task("1"), task("2")])
    assert caught.value.responses == (success("0"),)
    assert trio.current_time() == pytest.approx(2)


async def test_any_other_error_ends_the_reading_at_once(autojump_clock: MockClock) -> None:
    """Not after read_timeout_ms: nobody is going to answer."""
    channel, _ = not_taken(WriteTimeoutError("not taken", endpoint="memory"))
    async with client_over(channel) as client:
        with pytest.raises(WriteTimeoutError, match="not taken, sending requests 1 to 3 of 3"):
            await client.call_many([task("0"), task("1"), task("2")])
    assert trio.current_time() == 0


class Taken(FramedChannel):
    """Says of what was not taken at once that it was taken later."""

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_who_closes_after_all_was_handed_over_has_not_closed_while_it_was_sent(
    autojump_clock: MockClock,
) -> None:
    near, far = narrow_streams(15)
    channel = Taken(near, CONFIG, endpoint="memory", peer=ME)
    async with client_over(channel) as client, trio.open_nursery() as nursery:
        nursery.start_soon(answer_one_and_close, far)
        with pytest.raises(PeerClosedError) as caught:
            await client.call_many([task("0"), task("1"), task("2")])
    assert caught.value.responses == (success("0"),)
    assert caught.value.message.startswith("the peer closed")
    assert caught.value.__cause__ is None, "it is no error of sending"
