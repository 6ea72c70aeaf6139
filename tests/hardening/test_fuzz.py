"""What the fuzzer begins with, and all that it has ever found, as ordinary tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardening.fuzz_targets import CRASHES, TARGETS, Input, expected, seeds
from tests.hardening.record import Attack
from tests.platforms import unix_only
from trio_ipc import ChecksumMismatchError, Crc32Variant, InvalidLengthError

FOUND = [pytest.param(file, id=f"{file.parent.name}-{file.name}") for file in sorted(CRASHES.glob("*/*-*"))]


def test_the_targets_hold_for_every_seed_of_the_framing(attack: Attack) -> None:
    for seed in seeds():
        TARGETS["decoder"](seed)
    attack(
        "golden frames and golden mistakes, sliced by chance",
        tried=len(seeds()),
        outcome="both transports' framing give the same payloads and the same error",
    )


@unix_only  # the descriptors of a socketpair, half-closed
def test_the_targets_hold_for_every_seed_of_a_server(attack: Attack) -> None:
    for seed in seeds():
        TARGETS["server"](seed)
    attack(
        "golden frames and golden mistakes to a whole server",
        tried=len(seeds()),
        outcome="answered up to the first violation, which is told; the next client is served",
    )


@unix_only
@pytest.mark.parametrize("file", FOUND)
def test_what_the_fuzzer_has_found_is_mended(file: Path) -> None:
    TARGETS[file.parent.name](file.read_bytes())


def test_every_flag_of_an_input_means_something() -> None:
    frame = bytes.fromhex("03000000a0d8a5bc0a0174")
    assert expected(Input.of(b"\0\0" + frame).wire, Crc32Variant.IEEE) == ([b"\x0a\x01t"], None)
    wrong = b"\x03\0\0\0" + b"wron" + b"\x0a\x01t"
    assert expected(Input.of(b"\0\0" + wrong).wire, Crc32Variant.IEEE) == ([], ChecksumMismatchError)
    assert Input.of(b"\2\0" + wrong).wire == frame
    assert expected(b"\0" * 9, Crc32Variant.IEEE) == ([], InvalidLengthError)
    parts = [*Input.of(b"\x08\1" + frame).slices()]
    assert len(parts) > 1
    assert b"".join(parts) == frame
    assert [*Input.of(b"\0\1" + frame).slices()] == [frame]
    assert Input.of(b"\4").legacy
    assert Input.of(b"\1").variant is Crc32Variant.CASTAGNOLI


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_fails_where_a_promise_is_broken(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.hardening.fuzz_targets.expected", lambda *_: ([b"\x0a\x05never"], None), raising=True
    )
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        TARGETS[target](b"\0\0" + bytes.fromhex("03000000a0d8a5bc0a0174"))
