"""What is recorded can be read again, as far as it got, and played again."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import attrs
import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given, settings

from tests.platforms import unix_only
from tests.support import ME, UNPRINTABLE, frame, succeed, success, task
from trio_ipc import (
    Call,
    ChecksumMismatchError,
    Crc32Variant,
    FramedChannel,
    FrameTooLargeError,
    IpcConfig,
    TruncatedFrameError,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    Faults,
    Flip,
    MemoryEndpoint,
    MemoryStream,
    Recorder,
    Recording,
    RecordingError,
    Reset,
    at_byte,
    at_frame,
    memory_streams,
    open_client_at,
    open_pair,
    open_server,
    read_recording,
)
from trio_ipc.testing.__main__ import main
from trio_ipc.wire import FrameEncoder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recording"


async def record(path: Path, *ids: str, connections: int = 1) -> Recording:
    """Record calls of these ids, on each of so many connections."""
    endpoint = MemoryEndpoint()
    with Recorder(path, DETECTION) as recorder:
        async with open_server(succeed, DETECTION, endpoint):
            for _ in range(connections):
                async with open_client_at(DETECTION, endpoint, wrap=recorder.wrap) as client:
                    for task_id in ids:
                        await client.call(task(task_id))
    return read_recording(path)


# --- Writing and reading ------------------------------------------------------------------------------------


async def test_what_both_sides_sent_is_read_as_it_went(path: Path) -> None:
    recording = await record(path, "a", "b")
    assert recording.damage is None
    frames = list(recording.frames())
    assert [(one.connection, one.by, one.error) for one in frames] == [
        (1, "client", None), (1, "server", None), (1, "client", None), (1, "server", None),
    ]  # fmt: skip
    assert DETECTION.decode_request(frames[2].payload) == task("b")
    assert DETECTION.decode_response(frames[3].payload) == success("b")
    assert [event.what for event in recording.events] == ["open", "data", "data", "data", "data", "close"]


async def test_the_servers_side_can_be_recorded_as_well(path: Path) -> None:
    near, far = memory_streams()
    with Recorder(path, DETECTION) as recorder:
        served = recorder.wrap_server(far)
        await near.send_all(frame(task("a")))
        assert served.read(1000) == frame(task("a"))
        assert served.read(1000) is None
        await served.send_all(frame(success("a")))
        await served.send_eof()
        await near.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await served.receive_some()
        await served.aclose()
    recording = read_recording(path)
    assert [(one.by, one.error) for one in recording.frames()] == [("client", None), ("server", None)]
    assert [event.what for event in recording.events] == ["open", "data", "data", "eof", "broken"]


async def test_what_went_out_of_a_write_that_was_cancelled_is_recorded_and_no_more(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_streams(buffer_bytes=10)
    with Recorder(path, DETECTION) as recorder:
        recorded = recorder.wrap(near)
        with trio.move_on_after(1):
            await recorded.send_all(frame(task("x" * 50)))
        await far.send_eof()
        assert await recorded.receive_some() == b""
        far.close()
        with pytest.raises(trio.BrokenResourceError):
            recorded.read(1)
    recording = read_recording(path)
    assert [event.what for event in recording.events] == ["open", "data", "eof", "broken"]
    assert recording.events[1].data == frame(task("x" * 50))[:10]
    assert [type(one.error) for one in recording.frames()] == [TruncatedFrameError]


@unix_only
async def test_the_file_is_its_owners_alone_and_never_takes_anothers_place(path: Path) -> None:
    await record(path, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        Recorder(path, DETECTION)
    link = path.with_name("link")
    link.symlink_to(path.with_name("nowhere"))
    with pytest.raises(FileExistsError):
        Recorder(link, DETECTION)
    assert path.read_bytes() == before


async def test_traffic_goes_on_when_the_recording_cannot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    room = 700

    def write(file: int, data: bytes) -> int:
        nonlocal room
        if file != recorder._file:
            return real(file, data)
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(file, data[:room])
        room -= written
        return written

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):  # noqa: PT012 - it is about a block
        with Recorder(path, DETECTION) as recorder:
            monkeypatch.setattr(os, "write", write)
            async with open_pair(succeed, DETECTION, wrap=recorder.wrap) as (client, _):
                for number in range(20):
                    assert await client.call(task(str(number))) == success(str(number))
            monkeypatch.undo()
    assert recorder.failure is not None
    recording = read_recording(path)
    assert recording.damage == "the recording ends in the middle of a record"
    assert len(recording.exchanges()) > 0


async def test_a_failure_of_the_block_goes_before_one_of_the_file(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Recorder(path, DETECTION) as recorder:  # noqa: PT012 - it is about a block
        recorder.failure = OSError("no")
        _ = 1 / 0


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_recording_cut_off_anywhere_is_read_up_to_there(data: st.DataObject) -> None:
    whole = WHOLE
    cut = data.draw(st.integers(0, len(whole)))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "r")
        path.write_bytes(whole[:cut])
        header = whole.index(b"\n")
        if cut < header:
            with pytest.raises(RecordingError, match="is no recording"):
                read_recording(path)
            return
        recording = read_recording(path)
    lines = whole[:cut].count(b"\n")
    assert len(recording.events) == max(lines - 1, 0)
    assert (recording.damage is None) == (whole[:cut].endswith(b"\n"))
    shown = list(recording.lines(DETECTION))
    assert (recording.damage is None) == (not shown[-1].startswith("!! the recording"))


def whole_recording() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        trio.run(partial(record, Path(directory, "r"), "a", "b", connections=2))
        return Path(directory, "r").read_bytes()


WHOLE = whole_recording()


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=50)), max_size=10))
@settings(deadline=None, max_examples=60)
def test_any_bytes_at_all_are_recorded_and_shown(pieces: list[tuple[bool, bytes]]) -> None:
    async def write(path: Path) -> None:
        near, far = memory_streams()
        with Recorder(path, DETECTION) as recorder:
            recorded = recorder.wrap(near)
            for by_client, piece in pieces:
                if by_client:
                    await recorded.send_all(piece)
                else:
                    await far.send_all(piece)
                    await recorded.receive_some()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "r")
        trio.run(write, path)
        recording = read_recording(path)
    assert [(event.by == "client", event.data) for event in recording.events[1:]] == pieces
    for line in recording.lines(DETECTION):
        assert line.isprintable()
        assert line.isascii()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no recording"),
        (b"hello\n", "is no recording"),
        (b"[]\n", "is no recording"),
        (b'{"format":"other","version":1}\n', "is no recording"),
        (b'{"format":"trio_ipc recording","version":2}\n', "is a recording of version 2, must be 1"),
        (b'{"format":"trio_ipc recording","version":1}\n', "is no recording"),
    ],
)
def test_another_file_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        read_recording(path)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"{}",
        b'{"at":0,"connection":1,"event":"data","by":"client","data":"*"}',
        b'{"at":0,"connection":1,"event":"data","by":"nobody"}',
    ],
)
def test_damage_inside_is_told_with_its_line(path: Path, line: bytes) -> None:
    lines = WHOLE.splitlines()
    lines[4] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    recording = read_recording(path)
    assert recording.damage == "the recording is damaged at line 5; what follows was not read"
    assert len(recording.events) == 3


# --- Showing ------------------------------------------------------------------------------------------------


async def test_it_is_shown_as_people_read_it(path: Path) -> None:
    async def odd(task: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, error_message=UNPRINTABLE)

    with Recorder(path, DETECTION) as recorder:
        async with open_pair(odd, DETECTION, wrap=recorder.wrap) as (client, _):
            await client.call(task("a"))
    lines = list(read_recording(path).lines(DETECTION))
    text = "\n".join(lines)
    assert "contract 'daemoneye.detection', ieee, frames of at most 1048576 bytes" in lines[0]
    assert "#1 client: connected to" in lines[1]
    assert '    task_id: "a"' in lines
    assert "client: DetectionTask, 3 bytes" in text
    assert "server: DetectionResult, " in text
    assert "\x1b" not in text
    assert text.isascii()


async def played_to(path: Path, client: bytes, server: bytes = b"", config: IpcConfig | None = None) -> str:
    near, far = memory_streams()
    with Recorder(path, DETECTION, config) as recorder:
        recorded = recorder.wrap(near)
        await recorded.send_all(client)
        if server:
            await far.send_all(server)
            await recorded.receive_some()
        await recorded.aclose()
    return "\n".join(read_recording(path).lines(DETECTION))


async def test_errors_are_marked_each_as_what_it_is(path: Path) -> None:
    damaged = bytearray(frame(task("x")))
    damaged[-1] ^= 1
    text = await played_to(path, bytes(damaged) + frame(task("after")), frame(success())[:-1])
    assert "client: !! checksum mismatch" in text
    assert "after" not in text, "nothing can be told of what follows"
    assert "server: !! the peer closed inside a frame" in text


async def test_an_error_of_size_and_one_of_content_are_marked(path: Path) -> None:
    config = IpcConfig(max_frame_bytes=100)
    text = await played_to(path, frame(task("x" * 101)), frame(DetectionResult(task_id="x"))[:8], config)
    assert "client: !! a frame of 103 bytes is too large" in text
    path.unlink()
    near, _ = memory_streams()
    with Recorder(path, DETECTION) as recorder:
        channel = FramedChannel(recorder.wrap(near), IpcConfig(), endpoint="e", peer=ME)
        await channel.send(b"\xff" * 100)
    text = "\n".join(read_recording(path).lines(DETECTION))
    assert "client: !! a payload of 100 bytes does not decode as" in text
    assert "ff ff ff" in text
    assert text.endswith("...")


async def test_frames_carry_the_error_that_ends_their_direction(path: Path) -> None:
    await played_to(path, b"\xff" * 8, frame(success())[:9])
    kinds = {one.by: type(one.error) for one in read_recording(path).frames()}
    assert kinds == {"client": FrameTooLargeError, "server": TruncatedFrameError}


async def test_a_frame_larger_than_a_read_is_one_frame(path: Path) -> None:
    recording = await record(path, "x" * 300_000)
    assert [len(one.payload) > 300_000 for one in recording.frames()] == [True, True]


async def test_a_recorder_sees_what_faults_do_behind_it(path: Path) -> None:
    faults = Faults(receiving=[at_frame(1, Flip(0), offset=8)])
    with Recorder(path, DETECTION) as recorder, faults:
        async with open_pair(succeed, DETECTION, wrap=lambda stream: recorder.wrap(faults.wrap(stream))) as (
            client,
            _,
        ):
            with pytest.raises(ChecksumMismatchError):
                await client.call(task())
    assert [type(one.error) for one in read_recording(path).frames()] == [type(None), ChecksumMismatchError]


SHOW = [sys.executable, "-W", "error", "-m", "trio_ipc.testing", "show"]

# --- The command --------------------------------------------------------------------------------------------


def test_the_command_shows_a_recording(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(WHOLE)
    assert main(["show", str(path)]) == 0
    assert 'task_id: "b"' in capsys.readouterr().out
    path.write_bytes(WHOLE[:-1])
    assert main(["show", str(path), "--contract", "trio_ipc.daemoneye:DETECTION"]) == 1
    assert "!! the recording ends in the middle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "/nowhere/at/all"], "cannot read /nowhere/at/all: No such file or directory"),
        (["show", "{path}"], "is no recording"),
        (["show", "{path}", "--contract", "trio_ipc.daemoneye"], "must be MODULE:NAME"),
        (["show", "{path}", "--contract", "no.such.module:X"], "no.such.module"),
        (["show", "{path}", "--contract", "trio_ipc.daemoneye:NONE"], "NONE"),
        (["show", "{path}", "--contract", "trio_ipc:IpcConfig"], "no Contract"),
    ],
)
def test_a_mistake_is_one_line(
    path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(b"nonsense\n")
    assert main([argument.format(path=path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


def test_it_runs_as_a_program(path: Path) -> None:
    path.write_bytes(WHOLE)
    run = subprocess.run([*SHOW, str(path)], capture_output=True, text=True, check=True)
    assert "DetectionTask" in run.stdout
    assert run.stderr == ""


@unix_only
def test_a_reader_that_has_seen_enough_is_no_error(path: Path) -> None:
    path.write_bytes(WHOLE)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run([*SHOW, str(path)], stdout=writer, stderr=subprocess.PIPE, check=True)
    finally:
        os.close(writer)
    assert run.stderr == b""


def test_the_first_line_of_the_file_says_what_it_is() -> None:
    assert json.loads(WHOLE.splitlines()[0]).keys() == {
        "format", "version", "started", "contract", "crc32_variant", "max_frame_bytes",
    }  # fmt: skip


# --- What did not go ----------------------------------------------------------------------------------------


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


# --- Of which contract --------------------------------------------------------------------------------------

OTHER = attrs.evolve(DETECTION, name="other")


async def recorded_under_another_contract(path: Path) -> None:
    with Recorder(path, OTHER) as recorder:
        async with open_pair(succeed, OTHER, wrap=recorder.wrap) as (client, _):
            await client.call(task("a"))


async def test_a_recording_has_the_name_of_its_contract(path: Path) -> None:
    await recorded_under_another_contract(path)
    recording = read_recording(path)
    assert recording.contract == "other"
    assert not any(line.startswith("!!") for line in recording.lines(OTHER))
    with pytest.raises(TypeError, match="contract is 'other', must be a Contract"):
        Recorder(path.with_name("another"), "other")  # type: ignore[arg-type]
    assert not path.with_name("another").exists()


async def test_a_recording_that_is_shown_by_another_contract_says_so(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await recorded_under_another_contract(path)
    assert main(["show", str(path), "--contract", "trio_ipc.daemoneye:DETECTION"]) == 0
    shown = capsys.readouterr().out
    assert "!! shown by another contract, 'daemoneye.detection'" in shown
    assert 'task_id: "a"' in shown


async def test_a_recording_of_a_contract_that_is_not_at_hand_is_shown_as_bytes(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await recorded_under_another_contract(path)
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "!! the contract 'other' was not given: payloads are shown as bytes" in shown
    assert "client: 3 bytes\n    0a 01 61\n" in shown
    assert "DetectionTask" not in shown


async def test_what_was_recorded_with_auto_is_read_in_the_variant_of_each_connection(tmp_path: Path) -> None:
    path = tmp_path / "auto"
    with Recorder(path, DETECTION, IpcConfig(crc32_variant="auto")) as recorder:
        for variant in Crc32Variant:
            near, far = memory_streams("memory")
            stream = recorder.wrap(near)
            await stream.send_all(FrameEncoder(1000, variant).encode(b"\x0a\x01t"))
            await stream.aclose()
            await far.aclose()
    recording = read_recording(path)
    assert recording.crc32_variant == "auto"
    assert [frame.payload for frame in recording.frames()] == [b"\x0a\x01t"] * 2
