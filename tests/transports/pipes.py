"""What the tests of named pipes share."""

from __future__ import annotations

import re
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

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
from trio_ipc import EndpointPermissionError, OutOfResourcesError, ServerNotFoundError  # noqa: E402
from trio_ipc.transports import credentials  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    NamedPipeListener,
    NamedPipeStream,
    open_named_pipe,
    open_named_pipe_listener,
)

Pair = tuple[NamedPipeStream, NamedPipeStream]
_T = TypeVar("_T")


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


def refuse_first_instances(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """Let the system say so often that somebody has the name already."""
    create = win32.create_named_pipe
    refused = 0

    def refuse(path: str, open_mode: int, *args: Any, **kwargs: Any) -> int:
        nonlocal refused
        if open_mode & win32.FILE_FLAG_FIRST_PIPE_INSTANCE and refused < times:
            refused += 1
            raise ctypes.WinError(win32.ERROR_ACCESS_DENIED)
        return create(path, open_mode, *args, **kwargs)

    monkeypatch.setattr(win32, "create_named_pipe", refuse)


#: What the system may say to a client, as ``winerror``, and the ``error`` that becomes of it.
each_refusal_of_a_client = pytest.mark.parametrize(
    ("winerror", "error"),
    [
        (win32.ERROR_FILE_NOT_FOUND, ServerNotFoundError),
        (win32.ERROR_ACCESS_DENIED, EndpointPermissionError),
        (win32.ERROR_NO_SYSTEM_RESOURCES, OutOfResourcesError),
    ],
)


def refuse_clients(monkeypatch: pytest.MonkeyPatch, winerror: int) -> None:
    def refuse(*_: object) -> int:
        raise ctypes.WinError(winerror)

    monkeypatch.setattr(win32, "create_file", refuse)


async def accepted_or_kept(
    accept: Callable[[], Awaitable[_T]], connect: Callable[[], Awaitable[_T]]
) -> tuple[_T, _T]:
    """Connect while an accept is cancelled; return the client, and what this accept or the next gives."""
    accepted: list[_T] = []

    async def accept_in(scope: trio.CancelScope) -> None:
        with scope:
            accepted.append(await accept())

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_in, scope)
        await trio.testing.wait_all_tasks_blocked()
        client = await connect()
        scope.cancel()
    return client, accepted[0] if accepted else await accept()
