"""What tests of several modules here ask for. A module may have its own of the same name."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import trio

from trio_ipc import Channel, IpcConfig, PeerPolicy, TransportType, legacy
from trio_ipc.transports import DetachableListener

#: Seconds. A test that waits for ever should fail as itself, and not as the whole run.
DEADLINE = 120


@pytest.fixture
async def deadline() -> AsyncIterator[None]:
    with trio.fail_after(DEADLINE):
        yield


@pytest.fixture
def name(deadline: None) -> str:  # pytest-trio forgets a fixture that nobody asks for
    return f"trio-ipc-test-{uuid.uuid4().hex}"


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


@pytest.fixture
def both(request: pytest.FixtureRequest, transport: TransportType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the legacy transport in the default's place, all that a module calls by name."""

    async def listen(path: str) -> DetachableListener[Channel]:
        return await legacy.listen(IpcConfig(endpoint_path=path), PeerPolicy.own_user_and_root())

    async def connect(path: str) -> Channel:
        return await legacy.connect(IpcConfig(endpoint_path=path))

    if transport is TransportType.LEGACY:
        found = [name for name in ("listen", "connect") if hasattr(request.module, name)]
        assert found, "nothing here is of either transport"
        for name in found:
            monkeypatch.setattr(request.module, name, {"listen": listen, "connect": connect}[name])
