"""What the tests of both of legacy's platforms share."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator

import pytest
import trio

from trio_ipc import IpcConfig

if sys.platform == "win32":

    @pytest.fixture
    async def deadline() -> AsyncIterator[None]:
        # A test that waits for ever should fail as itself, and not as the whole run.
        with trio.fail_after(120):
            yield

    @pytest.fixture
    def config(
        deadline: None,
    ) -> IpcConfig:  # pytest-trio forgets one that none asks for
        name = f"trio-ipc-test-{uuid.uuid4().hex}"
        return IpcConfig(endpoint_path=name, transport="legacy", max_frame_bytes=4_000_000)

else:

    @pytest.fixture
    def config(directory: str) -> IpcConfig:
        return IpcConfig(
            endpoint_path=f"{directory}/test.sock", transport="legacy", max_frame_bytes=4_000_000
        )
