"""Of each peer that uses the other checksum variant there is one line."""

from __future__ import annotations

import pytest

from trio_ipc.server.variants import VariantLog


def test_a_peer_is_told_of_once_and_the_last_256_are_remembered(caplog: pytest.LogCaptureFixture) -> None:
    log = VariantLog()

    def is_told_of(peer: str) -> bool:
        caplog.clear()
        log.tell("castagnoli", "ieee", {"peer": peer})
        assert all(record.getMessage().startswith(f"{peer} sends frames of") for record in caplog.records)
        return bool(caplog.records)

    assert all(is_told_of(f"pid {number}") for number in range(256))
    assert not any(is_told_of(f"pid {number}") for number in range(256))
    assert is_told_of("pid 256"), "in the place of the first"
    assert not is_told_of("pid 1")
    assert is_told_of("pid 0")
    assert is_told_of("pid 1"), "which went for it"
