"""``trio-ipc capture FILE.pcapng``: a reader of this test's own reads it block by block.

Where there is tshark, the dissector of docs/ is tried in it, too.
"""

from __future__ import annotations

import json
import shutil
import signal
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from tests.cli.processes import command
from tests.cli.test_capture import relaying
from tests.platforms import unix_only
from tests.support import succeed
from trio_ipc import Crc32Variant, IpcConfig
from trio_ipc.cli import pcapng
from trio_ipc.cli.ending import Status
from trio_ipc.cli.pcapng import PcapngFile, What
from trio_ipc.daemoneye import DETECTION, DetectionTask
from trio_ipc.testing import open_server, temporary_endpoint
from trio_ipc.testing.recorder import Event
from trio_ipc.wire import FrameEncoder

DISSECTOR = Path(__file__).parents[2] / "docs" / "trio-ipc.lua"


class Packet(NamedTuple):
    """What an Enhanced Packet Block says, and this library's header in it."""

    at: float
    length: int
    inbound: bool
    what: int
    by: int
    checksum: int
    connection: int
    data: bytes


def blocks(file: Path) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file: a type, a total length, a body, and the length once more."""
    data = file.read_bytes()
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, length - 4) == (length,)
        yield kind, data[8 : length - 4]
        data = data[length:]


def options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while True:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert data[4:] == b""
            return found
        found[code] = data[4 : 4 + length]
        data = data[4 + (length + 3) // 4 * 4 :]


def packets(file: Path) -> list[Packet]:
    (section, header), (interface, described), *rest = blocks(file)
    assert section == 0x0A0D0D0A
    assert struct.unpack_from("<IHHq", header) == (0x1A2B3C4D, 1, 0, -1)
    assert options(header[16:])[4].startswith(b"trio-ipc ")
    assert interface == 1
    assert struct.unpack_from("<HHI", described) == (147, 0, 262_144)
    assert options(described[8:])[2], "the interface is called by the endpoint"
    found = []
    for kind, body in rest:
        assert kind == 6
        number, high, low, kept, length = struct.unpack_from("<IIIII", body)
        assert number == 0
        data, after = body[20 : 20 + kept], body[20 + (kept + 3) // 4 * 4 :]
        (flags,) = struct.unpack("<I", options(after)[2])
        version, what, by, checksum, connection = struct.unpack_from("<BBBBI", data)
        assert version == 1
        at = ((high << 32) + low) / 1e6
        found.append(Packet(at, length, flags == 1, what, by, checksum, connection, data[8:]))
    return found


def written(file: Path, *events: tuple[str, Any], limit: int = 1024) -> list[Packet]:
    """What is in a file after these events: what happened, and the client's bytes or who did it."""
    with PcapngFile(str(file), IpcConfig(max_frame_bytes=limit)) as recorder:
        for number, (what, said) in enumerate(events):
            data = said if isinstance(said, bytes) else b""
            recorder._told(Event(number / 10, 1, what, "client" if data else said, data=data, endpoint="/e"))
    return packets(file)


def frame(payload: bytes, variant: Crc32Variant = Crc32Variant.IEEE) -> bytes:
    return FrameEncoder(1 << 20, variant).encode(payload)


@unix_only
async def test_what_is_said_becomes_packets_of_whole_messages(tmp_path: Path) -> None:
    file = tmp_path / "said.pcapng"
    before = time.time()
    with temporary_endpoint() as server, temporary_endpoint() as between:
        async with (
            open_server(succeed, DETECTION, server),
            relaying("capture", server.path, str(file), "--listen", between.path) as process,
        ):
            run = await command("call", between.path, json.dumps({"task_id": "of a test"}))
            assert run.returncode == Status.DONE
            process.send_signal(signal.SIGINT)
            assert await process.wait() == Status.DONE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = packets(file)
    assert (found[0].what, found[0].data.decode()) == (What.OPEN, server.path)
    frames = [one for one in found if one.what == What.FRAME]
    asked = [DETECTION.decode_request(one.data[8:]).task_id for one in frames if one.by == 0]
    answered = [DETECTION.decode_response(one.data[8:]).task_id for one in frames if one.by == 1]
    assert asked == answered
    assert asked[-1] == "of a test"
    assert all(one.inbound == (one.by == 1) for one in found)
    assert {one.checksum for one in frames} <= {1, 2}
    assert [one.at for one in found] == sorted(one.at for one in found)
    assert before - 1 < found[0].at < time.time() + 1
    assert found[-1].what in {What.CLOSE, What.EOF}


def test_frames_are_whole_however_their_bytes_come(tmp_path: Path) -> None:
    whole = frame(b"abc") + frame(b"defg", Crc32Variant.CASTAGNOLI)
    pieces = [("data", whole[place : place + 1]) for place in range(len(whole))]
    found = written(tmp_path / "f", ("open", "client"), *pieces, ("close", "client"))
    assert [(one.what, one.checksum, one.data[8:]) for one in found[1:-1]] == [
        (What.FRAME, 1, b"abc"),
        (What.FRAME, 2, b"defg"),
    ]
    assert found[1].at - found[0].at == pytest.approx(1.1), "the time of its last byte"
    both = written(tmp_path / "g", ("data", whole))
    assert [one.data for one in both] == [one.data for one in found[1:-1]]


def test_what_is_no_frame_is_kept_as_bytes(tmp_path: Path) -> None:
    cut_off = written(tmp_path / "a", ("data", frame(b"abc")[:-1]), ("eof", "client"))
    assert [(one.what, one.data) for one in cut_off] == [(What.BYTES, frame(b"abc")[:-1]), (What.EOF, b"/e")]
    too_large = struct.pack("<II", 1025, 0) + b"x"
    wrong = written(tmp_path / "b", ("data", too_large), ("data", b"more"))
    assert [(one.what, one.data) for one in wrong] == [(What.BYTES, too_large), (What.BYTES, b"more")]
    bad = bytes([*frame(b"abc")[:-1], 0])
    assert [(one.what, one.checksum) for one in written(tmp_path / "c", ("data", bad))] == [(What.FRAME, 3)]


def test_a_packet_is_cut_where_wireshark_takes_no_more(tmp_path: Path) -> None:
    (one,) = written(tmp_path / "f", ("data", frame(bytes(300_000))), limit=1 << 20)
    assert (one.length, len(one.data)) == (300_016, pcapng.SNAPLEN - 8)


async def test_the_format_is_chosen_by_name_or_by_option(tmp_path: Path) -> None:
    with temporary_endpoint() as server, temporary_endpoint() as between:
        for name, more, start in [
            ("a.PCAPNG", [], b"\n\r\r\n"),
            ("b.pcapng", ["--format", "recording"], b"{"),
            ("c", ["--format=pcapng"], b"\n\r\r\n"),
        ]:
            file = tmp_path / name
            arguments = ["capture", server.path, str(file), "--listen", between.path, "--seconds", "0.01"]
            run = await command(*arguments, *more)
            assert run.returncode == Status.DONE, run.stderr
            assert file.read_bytes().startswith(start)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="there is no tshark")
async def test_the_dissector_reads_it(tmp_path: Path) -> None:
    request = DetectionTask(task_id="of a test").SerializeToString()
    bad = bytes([*frame(b"abc")[:-1], 0])
    written(tmp_path / "f", ("open", "client"), ("data", frame(request)), ("data", bad), ("close", "server"))
    fields = ["_ws.col.Info", "trio_ipc.endpoint", "trio_ipc.length", "trio_ipc.checksum.status"]
    shown = [part for field in [*fields, "protobuf.field.value.string"] for part in ("-e", field)]
    proto = f'uat:protobuf_search_paths:"{DISSECTOR.parents[1] / "trio_ipc" / "daemoneye"}","TRUE"'
    options = [
        "-X",
        f"lua_script:{DISSECTOR}",
        "-r",
        str(tmp_path / "f"),
        "-T",
        "fields",
        *shown,
        "-o",
        proto,
    ]
    with trio.fail_after(60):
        run = await trio.run_process(
            ["tshark", *options, "-o", proto], capture_stdout=True, capture_stderr=True
        )
    lines = run.stdout.decode().splitlines()
    assert [line.split("\t")[:4] for line in lines] == [
        ["#1 open", "/e", "", "0"],
        [f"#1 DetectionTask, {len(request)} bytes", "", str(len(request)), "1"],
        ["#1 DetectionTask, 3 bytes, wrong checksum", "", "3", "3"],
        ["#1 close", "", "", "0"],
    ]
    assert lines[1].endswith("\tof a test")
