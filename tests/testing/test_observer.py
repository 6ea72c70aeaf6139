"""What goes over streams is told as it goes, and nothing of it is kept."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support import frame, task
from trio_ipc import Crc32Variant
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import memory_streams
from trio_ipc.testing.recorder import Event, StreamObserver
from trio_ipc.testing.recording import FrameReader, event_line


async def test_each_event_is_told_with_its_connection_and_who_did_it() -> None:
    told: list[Event] = []
    observer = StreamObserver(told.append)
    for wrap in (observer.wrap, observer.wrap_server):
        near, far = memory_streams()
        observed = wrap(near)
        await observed.send_all(b"ask")
        await far.send_all(b"answer")
        assert await observed.receive_some() == b"answer"
        await observed.aclose()
    assert [(one.connection, one.what, one.by, one.data) for one in told] == [
        (1, "open", "client", b""), (1, "data", "client", b"ask"),
        (1, "data", "server", b"answer"), (1, "close", "client", b""),
        (2, "open", "server", b""), (2, "data", "server", b"ask"),
        (2, "data", "client", b"answer"), (2, "close", "server", b""),
    ]  # fmt: skip


async def test_what_it_raises_comes_out_of_the_stream() -> None:
    def told(event: Event) -> None:
        if event.what == "data":
            raise ZeroDivisionError

    near, _ = memory_streams()
    with pytest.raises(ZeroDivisionError):
        await StreamObserver(told).wrap(near).send_all(b"ask")


async def test_of_a_send_that_was_cancelled_is_told_of_how_many_bytes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[Event] = []
    sending = trio.testing.MemorySendStream(send_all_hook=trio.sleep_forever)
    stream = trio.StapledStream(sending, trio.testing.MemoryReceiveStream())
    with trio.move_on_after(1):
        await StreamObserver(told.append).wrap(stream).send_all(b"cancelled")
    cut = told[-1]
    assert (cut.what, cut.data, cut.sent) == ("cut", b"cancelled", None)
    assert "of 9 bytes none were sent, or a part of them" in event_line(cut)


@pytest.mark.parametrize("end", ["close", "broken"])
def test_a_reader_of_frames_keeps_nothing_of_connections_that_have_ended(end: str) -> None:
    reader = FrameReader(1000, Crc32Variant.IEEE)
    whole = frame(task("1"))
    for connection in (1, 2, 3):
        (asked,) = reader.frames(Event(0.0, connection, "data", "client", whole))
        assert DETECTION.decode_request(asked.payload).task_id == "1"
        assert reader.frames(Event(0.0, connection, "data", "server", whole[:5])) == []
        (cut,) = reader.frames(Event(0.0, connection, end, "client"))
        assert (cut.by, type(cut.error).__name__) == ("server", "TruncatedFrameError")
    assert not reader._decoders
