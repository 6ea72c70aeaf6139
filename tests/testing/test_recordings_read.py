"""A file that no recorder has written is refused, or read up to where it goes wrong."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from trio_ipc.testing import RecordingError, read_recording

HEADER = {
    "format": "trio_ipc recording", "version": 1, "started": "x", "contract": "c", "crc32_variant": "ieee",
    "max_frame_bytes": 1000,
}  # fmt: skip
DATA: dict[str, object] = {"at": 0.0, "connection": 1, "event": "data", "by": "client", "data": "AAAA"}
NO_NUMBERS = [math.inf, math.nan, 10**400, -1, 1.5, True, "1", [], None]


@pytest.mark.parametrize("value", [*NO_NUMBERS[:2], *NO_NUMBERS[3:], 0], ids=str)
def test_a_limit_that_cannot_be_makes_it_no_recording(path: Path, value: object) -> None:
    path.write_text(json.dumps({**HEADER, "max_frame_bytes": value}) + "\n")
    with pytest.raises(RecordingError, match="is no recording of trio_ipc"):
        read_recording(path)


@pytest.mark.parametrize("key", ["started", "contract", "crc32_variant", "max_frame_bytes", "version"])
def test_a_header_that_lacks_something_makes_it_no_recording(path: Path, key: str) -> None:
    path.write_text(json.dumps({name: value for name, value in HEADER.items() if name != key}) + "\n")
    with pytest.raises(RecordingError, match="is no recording of trio_ipc"):
        read_recording(path)


@pytest.mark.parametrize("version", [2, 0, True, 1.0, "1", None], ids=repr)
def test_a_version_that_is_not_the_whole_number_is_another_one(path: Path, version: object) -> None:
    path.write_text(json.dumps({**HEADER, "version": version}) + "\n")
    with pytest.raises(RecordingError, match=f"is a recording of version {version!r}, must be 1"):
        read_recording(path)


@pytest.mark.parametrize(
    "record",
    [
        *({**DATA, "at": value} for value in NO_NUMBERS if value != 1.5),
        *({**DATA, "connection": value} for value in NO_NUMBERS if value != 10**400),
        *({**DATA, "event": "cut", "sent": value} for value in [*NO_NUMBERS[:-1], 4]),
    ],
    ids=lambda record: "/".join(f"{record.get(key)!s:.9}" for key in ("at", "connection", "sent")),
)
def test_a_number_that_cannot_be_is_damage(path: Path, record: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, DATA, record)))
    recording = read_recording(path)
    assert recording.damage == "the recording is damaged at line 3; what follows was not read"
    assert [event.data for event in recording.events] == [bytes(3)]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no file without an end")
def test_a_file_without_an_end_is_no_recording() -> None:
    with pytest.raises(RecordingError, match="/dev/zero is no recording of trio_ipc"):
        read_recording("/dev/zero")


def test_the_first_line_has_at_most_65536_bytes(path: Path) -> None:
    line = json.dumps({**HEADER, "more": ""}).encode()
    longest = line.replace(b'""', b'"%s"' % (b"y" * (65_536 - len(line))))
    path.write_bytes(longest + b"\n")
    assert read_recording(path).damage is None
    path.write_bytes(longest.replace(b'"y', b'"yy') + b"\n")
    with pytest.raises(RecordingError, match="is no recording of trio_ipc"):
        read_recording(path)
