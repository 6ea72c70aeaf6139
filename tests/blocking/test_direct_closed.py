"""A connection that is closed while a thread is at it: that thread closes its descriptor."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.adapters import DEADLINE, OF_DIRECT_CALLS, served
from tests.support import task
from trio_ipc import ChannelClosedError, IpcConfig
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION

pytestmark = OF_DIRECT_CALLS


def descriptor_of(client: Any) -> int:
    number: int = client._direct._channel._duplex._sock.fileno()
    return number


def is_open(number: int, inode: int) -> bool:
    """Whether a descriptor is still what it was."""
    try:
        return os.fstat(number).st_ino == inode
    except OSError:
        return False


def test_the_thread_that_is_at_it_closes_the_descriptor(config: IpcConfig) -> None:
    with served(config), ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1) as client:
            direct: Any = client._direct
            number = descriptor_of(client)
            inode, receive = os.fstat(number).st_ino, direct._receive

            def closed_meanwhile(until: float) -> bytes | None:
                thread.submit(client.close).result(DEADLINE)
                assert is_open(number, inode)
                payload: bytes | None = receive(until)
                return payload

            direct._receive = closed_meanwhile
            with pytest.raises(ChannelClosedError):
                client.call(task())
            assert not is_open(number, inode)


def test_where_nobody_is_at_it_it_is_closed_at_once(config: IpcConfig) -> None:
    with served(config), open_client(DETECTION, config, max_in_flight=1) as client:
        client.call(task())
        number = descriptor_of(client)
        inode = os.fstat(number).st_ino
        client.close()
        assert not is_open(number, inode)
