"""What the tests of named pipes share."""

from __future__ import annotations

import re
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402
from ctypes import wintypes  # noqa: E402

from tests.platforms import open_handles  # noqa: E402
from tests.transports.conftest import DEADLINE  # noqa: E402
from trio_ipc.transports import credentials  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    NamedPipeListener,
    NamedPipeStream,
    open_named_pipe,
    open_named_pipe_listener,
)

Pair = tuple[NamedPipeStream, NamedPipeStream]


async def connected_to(listener: NamedPipeListener) -> Pair:
    client = await open_named_pipe(listener.endpoint)
    return client, await listener.accept()


async def new_pair() -> Pair:
    async with await open_named_pipe_listener(uuid.uuid4().hex) as listener:
        return await connected_to(listener)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    with trio.fail_after(DEADLINE):
        client, server = await new_pair()
        async with client, server:
            yield client, server


@asynccontextmanager
async def no_handle_left(*, threads: int = 4) -> AsyncIterator[None]:
    # Trio's worker threads live on for a while and hold handles of their own: they are made beforehand.
    all_here = threading.Barrier(threads)
    limiter = trio.CapacityLimiter(threads)
    async with trio.open_nursery() as nursery:
        for _ in range(threads):
            nursery.start_soon(lambda: trio.to_thread.run_sync(all_here.wait, limiter=limiter))
    before = open_handles()
    yield
    assert open_handles() <= before


async def blocked(task: Callable[[], Awaitable[object]], nursery: trio.Nursery) -> None:
    nursery.start_soon(task)
    await trio.testing.wait_all_tasks_blocked(0.02)


def dacl_of(stream: NamedPipeStream) -> str:
    """Read the access list back from the pipe itself (GetSecurityInfo)."""
    advapi32 = ctypes.WinDLL("advapi32")
    dacl_information, kernel_object = 4, 6
    descriptor, text = ctypes.c_void_p(), wintypes.LPWSTR()
    with stream._end.in_use() as handle:
        error = advapi32.GetSecurityInfo(
            wintypes.HANDLE(handle),
            kernel_object,
            dacl_information,
            None,
            None,
            None,
            None,
            ctypes.byref(descriptor),
        )
    assert error == 0
    assert advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW(
        descriptor, 1, dacl_information, ctypes.byref(text), None
    )
    assert text.value is not None
    return text.value


def entries_of(dacl: str) -> dict[str, str]:
    """The rights that an access list allows, by security identifier; their usual spellings undone."""
    rights = {}
    for entry in re.findall(r"\(([^)]*)\)", dacl):
        kind, flags, right, *_, trustee = entry.split(";")
        assert (kind, flags) == ("A", "")
        if not trustee.startswith("S-"):
            trustee = sid_of_alias(trustee)
        rights[trustee] = {"GA": "FA", "0x1f01ff": "FA"}.get(right, right)
    return rights


def sid_of_alias(alias: str) -> str:
    known = ["S-1-5-18", "S-1-5-11", credentials.user_of(win32.current_process())]
    [sid] = {
        sid
        for sid in known
        if win32.security_descriptor(f"O:{sid}") == win32.security_descriptor(f"O:{alias}")
    }
    return sid


def refuse_all(monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
    def refuse(*_: object) -> int:
        raise ctypes.WinError(win32.ERROR_ACCESS_DENIED)

    for call in calls:
        monkeypatch.setattr(win32, call, refuse)
