"""What the fuzzer begins with, and all that it has ever found, as ordinary tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardening.fuzz_targets import CRASHES, TARGETS, Input, expected, repeat, seeds
from tests.hardening.record import Attack
from tests.platforms import unix_only
from trio_ipc import ChecksumMismatchError, Crc32Variant, InvalidLengthError

#: One task in a frame.
FRAME = bytes.fromhex("03000000a0d8a5bc0a0174")


def test_the_targets_hold_for_every_seed_of_the_framing(attack: Attack) -> None:
    for seed in seeds():
        TARGETS["decoder"](seed)
    attack(
        "golden frames and golden mistakes, sliced at random",
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
def test_what_the_fuzzer_has_found_is_mended() -> None:
    repeat(CRASHES)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_fails_where_a_promise_is_broken_and_the_file_is_named(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.hardening.fuzz_targets.expected", lambda *_: ([b"\x0a\x05never"], None))
    (tmp_path / target).mkdir()
    (tmp_path / target / "crash-1").write_bytes(b"\0\0" + FRAME)
    with pytest.raises((AssertionError, ExceptionGroup)) as raised:
        repeat(tmp_path)
    assert raised.value.__notes__ == [f"by {target}/crash-1"]


def test_every_flag_of_an_input_means_something() -> None:
    assert expected(Input.of(b"\0\0" + FRAME).wire, Crc32Variant.IEEE) == ([b"\x0a\x01t"], None)
    wrong = b"\x03\0\0\0" + b"wron" + b"\x0a\x01t"
    assert expected(Input.of(b"\0\0" + wrong).wire, Crc32Variant.IEEE) == ([], ChecksumMismatchError)
    assert Input.of(b"\2\0" + wrong).wire == FRAME
    assert expected(b"\0" * 9, Crc32Variant.IEEE) == ([], InvalidLengthError)
    parts = [*Input.of(b"\x08\1" + FRAME).slices()]
    assert len(parts) > 1
    assert b"".join(parts) == FRAME
    assert [*Input.of(b"\0\1" + FRAME).slices()] == [FRAME]
    assert Input.of(b"\4").legacy
    assert Input.of(b"\1").variant is Crc32Variant.CASTAGNOLI
