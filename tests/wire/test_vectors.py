"""Every golden frame, both ways, and by the framing of both transports."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from trio_ipc import (
    ChecksumMismatchError,
    Crc32Variant,
    FrameTooLargeError,
    InvalidLengthError,
    ProtocolError,
    TruncatedFrameError,
    UndecodableMessageError,
    daemoneye,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.legacy.frames import FrameReader, FrameWriter
from trio_ipc.wire import FrameDecoder, FrameEncoder

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "frames.json").read_text())
LIMIT = 1024 * 1024

ERRORS: dict[str, type[ProtocolError]] = {
    "invalid length": InvalidLengthError,
    "too large": FrameTooLargeError,
    "too large, judged from the header alone": FrameTooLargeError,
    "checksum mismatch": ChecksumMismatchError,
    "decode": UndecodableMessageError,
    "peer closed inside a frame": TruncatedFrameError,
}


def _name(vector: dict[str, Any]) -> str:
    return f"{vector['name']}-{vector.get('crc32_variant', 'any')}"


def legacy_payloads(data: bytes, limit: int, step: int, variant: Crc32Variant) -> list[bytes]:
    """What the legacy transport's framing makes of bytes that come so many at a time."""
    reader = FrameReader(limit, variant)
    payloads = []
    source = io.BytesIO(data)
    while piece := source.read(min(step, reader.missing)):
        reader.add(piece)
        payload = reader.take()
        if payload is not None:
            payloads.append(payload)
    reader.end()
    return payloads


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
@pytest.mark.parametrize("vector", VECTORS["valid"], ids=_name)
def test_legacy_framing_knows_every_golden_frame(vector: dict[str, Any], step: int) -> None:
    variant, frame = Crc32Variant(vector["crc32_variant"]), bytes.fromhex(vector["frame_hex"])
    payload = bytes.fromhex(vector["payload_hex"])
    assert FrameWriter(LIMIT, variant).frames([payload]) == frame
    assert legacy_payloads(frame * 2, LIMIT, step, variant) == [payload] * 2


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=_name)
def test_legacy_framing_gives_the_golden_error_of_an_invalid_frame(vector: dict[str, Any], step: int) -> None:
    def receive_task() -> None:
        data, limit = bytes.fromhex(vector["bytes_hex"]), vector["max_frame_bytes"]
        for payload in legacy_payloads(data, limit, step, Crc32Variant.IEEE):
            DETECTION.decode_request(payload)

    with pytest.raises(ERRORS[vector["error"]]):
        receive_task()


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=_name)
def test_a_golden_message_encodes_to_its_golden_frame(vector: dict[str, Any]) -> None:
    message = json_format.ParseDict(vector["json"], getattr(daemoneye, vector["type"])())
    payload = message.SerializeToString(deterministic=True)
    assert payload.hex() == vector["payload_hex"]
    frame = FrameEncoder(LIMIT, Crc32Variant(vector["crc32_variant"])).encode(payload)
    assert frame.hex() == vector["frame_hex"]


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=_name)
def test_a_golden_frame_decodes_to_its_golden_message(vector: dict[str, Any]) -> None:
    decoder = FrameDecoder(LIMIT, Crc32Variant(vector["crc32_variant"]))
    decoder.feed(bytes.fromhex(vector["frame_hex"]))
    payload = decoder.next_payload()
    assert payload is not None
    message = getattr(daemoneye, vector["type"]).FromString(payload)
    assert message == json_format.ParseDict(vector["json"], type(message)())
    assert decoder.next_payload() is None
    decoder.end()


def _receive_task(data: bytes, limit: int, step: int) -> None:
    decoder = FrameDecoder(limit, Crc32Variant.IEEE)
    for start in range(0, len(data), step):
        decoder.feed(data[start : start + step])
        while (payload := decoder.next_payload()) is not None:
            DETECTION.decode_request(payload)
    decoder.end()


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=_name)
def test_an_invalid_frame_gives_its_golden_error(vector: dict[str, Any], step: int) -> None:
    with pytest.raises(ERRORS[vector["error"]]):
        _receive_task(bytes.fromhex(vector["bytes_hex"]), vector["max_frame_bytes"], step)
