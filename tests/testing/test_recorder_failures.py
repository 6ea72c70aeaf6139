"""What is recorded of what did not go."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support import frame, task
from tests.testing.recordings import (
    WHOLE,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import (
    Faults,
    Flip,
    MemoryStream,
    Recorder,
    Reset,
    at_byte,
    memory_streams,
    read_recording,
)


async def test_nothing_is_recorded_of_a_send_that_was_refused_or_cancelled_before_it_went(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_streams(buffer_bytes=1)
    with Recorder(path, DETECTION) as recorder:
        recorded = recorder.wrap(near)
        await recorded.send_all(b"x")
        with trio.move_on_after(1):
            await recorded.send_all(b"never")
        assert await far.receive_some() == b"x"
        await recorded.send_all(b"y")
        await recorded.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await recorded.send_all(b"refused")
        far.close()
    recording = read_recording(path)
    assert [(event.what, event.data) for event in recording.events[1:]] == [
        ("data", b"x"), ("data", b"y"), ("eof", b""),
    ]  # fmt: skip


def plain_pair(buffer: list[bytes]) -> trio.abc.Stream:
    """A stream that is not local, and takes one send at a time."""

    class Plain(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if bytes(data) == b"refused":
                raise trio.BusyResourceError("no")
            await trio.sleep(1)
            buffer.append(bytes(data))

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("no more")

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    return Plain()


async def test_of_a_stream_that_tells_nothing_a_send_that_was_cancelled_is_shown_as_one_that_may_be_cut(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    went: list[bytes] = []
    with Recorder(path, DETECTION) as recorder:
        recorded = recorder.wrap(plain_pair(went))
        await recorded.send_all(frame(task("a")))
        with trio.move_on_after(0.5):
            await recorded.send_all(frame(task("cancelled")))
        with pytest.raises(trio.BusyResourceError):
            await recorded.send_all(b"refused")
        await recorded.send_all(frame(task("b")))
        with pytest.raises(trio.BrokenResourceError):
            await recorded.receive_some()
        await recorded.aclose()
    recording = read_recording(path)
    assert recording.events[-1].what == "broken"
    sent = [DETECTION.decode_request(one.payload).task_id for one in recording.frames() if one.error is None]
    assert sent == ["a", "b"]
    assert [event.data for event in recording.events if event.what == "data"] == went
    assert [event.data for event in recording.events if event.what == "cut"] == [
        frame(task("cancelled")), b"refused",
    ]  # fmt: skip
    lines = list(recording.lines(DETECTION))
    assert any("of 19 bytes none were sent, or a part of them" in line for line in lines)
    assert "cancelled" not in "".join(lines)


async def test_what_faults_make_short_writes_of_is_recorded_as_it_went(path: Path) -> None:
    near, far = memory_streams()
    faults = Faults(sending=[at_byte(1, Flip(0)), at_byte(3, Reset())])
    with Recorder(path, DETECTION) as recorder:
        recorded = recorder.wrap(faults.wrap(near))
        with pytest.raises(trio.BrokenResourceError):
            await recorded.send_all(b"abcdef")
    events = read_recording(path).events
    assert b"".join(event.data for event in events if event.what == "data") == b"abc"
    assert far.read(9) == b"acc"


def test_a_cut_of_nothing_is_damage(path: Path) -> None:
    header = WHOLE.splitlines()[0]
    path.write_bytes(header + b'\n{"at":0,"connection":1,"event":"cut","by":"client"}\n')
    assert read_recording(path).damage == "the recording is damaged at line 2; what follows was not read"


async def test_an_end_is_recorded_once_however_often_it_is_read_or_sent_and_not_if_it_is_refused(
    path: Path,
) -> None:
    near, far = memory_streams()
    with Recorder(path, DETECTION) as recorder:
        recorded = recorder.wrap(near)
        await far.send_eof()
        for _ in range(3):
            assert await recorded.receive_some() == b""
            await recorded.send_eof()
        await far.aclose()
        await recorded.aclose()
        refused = recorder.wrap(near)
        with pytest.raises(trio.ClosedResourceError):
            await refused.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await recorder.wrap(closed_stream()).send_eof()
    events = read_recording(path).events
    assert [(event.what, event.by) for event in events] == [
        ("open", "client"), ("eof", "server"), ("eof", "client"), ("close", "client"),
        ("open", "client"), ("open", "client"),
    ]  # fmt: skip


def closed_stream() -> MemoryStream:
    near, _ = memory_streams()
    near.close()
    return near
