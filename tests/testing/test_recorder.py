"""What is recorded can be read again, as far as it got, and played again."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import attrs
import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given, settings

from tests.platforms import unix_only
from tests.support import frame, succeed, success, task
from tests.testing.recordings import (
    WHOLE,
    record,
)
from trio_ipc import (
    Crc32Variant,
    IpcConfig,
    TruncatedFrameError,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import (
    Recorder,
    RecordingError,
    memory_streams,
    open_pair,
    read_recording,
)
from trio_ipc.testing.__main__ import main
from trio_ipc.wire import FrameEncoder

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


def test_a_recorder_outlives_a_run_of_trios_whose_next_one_counts_time_anew(path: Path) -> None:
    async def run(before: float, between: float) -> None:
        near, far = memory_streams()
        await trio.sleep(before)
        await recorder.wrap(near).send_all(b"x")
        await trio.sleep(between)
        await recorder.wrap(far).receive_some()

    with Recorder(path, DETECTION) as recorder:
        trio.run(run, 10, 5, clock=trio.testing.MockClock(autojump_threshold=0))
        trio.run(run, 0, 2, clock=trio.testing.MockClock(autojump_threshold=0))
    recording = read_recording(path)
    assert recording.damage is None
    assert [event.at for event in recording.events] == [0, 0, 5, 5, 5, 5, 7, 7]


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


async def test_a_recording_of_a_contract_that_is_not_available_is_shown_as_bytes(
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
