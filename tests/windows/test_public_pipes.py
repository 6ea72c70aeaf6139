"""The public functions for named pipes among hostile clients. `tests/hardening` has those for Unix."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest
import trio

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

from tests.hardening.record import Attack  # noqa: E402
from tests.platforms import KEPT_BY_WINE, open_handles  # noqa: E402
from tests.support import read_to_end  # noqa: E402
from tests.windows.test_hostile_writer import HOSTILE, LONGEST  # noqa: E402
from trio_ipc.transports import NamedPipeStream, open_named_pipe, serve_named_pipe  # noqa: E402

DEADLINE = 120


@pytest.fixture
def name() -> str:
    return rf"\\.\pipe\trio-ipc-test\{uuid.uuid4().hex}"


async def echo(stream: NamedPipeStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the client's own fault


async def answers(stream: NamedPipeStream) -> bool:
    await stream.send_all(b"hello")
    return await stream.receive_some() == b"hello"


async def leave(name: str, number: int) -> None:
    async with await open_named_pipe(name) as stream:
        if number % 3:
            with trio.move_on_after(0.05):
                await stream.send_all(bytes(100_000))  # whose echo nobody reads


async def test_clients_that_leave_at_once_do_not_end_a_server(name: str, attack: Attack) -> None:
    rounds, clients = 3, 50
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_named_pipe, echo, name)
            async with await open_named_pipe(name) as early:
                counted = []
                for _ in range(rounds):
                    for number in range(clients):
                        await leave(name, number)
                        if number % 10 == 0:
                            assert await answers(early)
                    counted.append(open_handles())
                async with await open_named_pipe(name) as late:
                    assert await answers(early)
                    assert await answers(late)
                assert counted[-1] <= counted[0] + KEPT_BY_WINE
            nursery.cancel_scope.cancel()
    attack(
        "clients of `serve_named_pipe` that leave at once, many with 100 kB whose response they do not read",
        tried=rounds * clients,
        outcome="the server goes on, others are answered meanwhile, and no handle is left",
    )


async def test_a_client_that_takes_back_its_writes_delays_nobody(name: str, attack: Attack) -> None:
    seconds, asked = 3, 0
    over = trio.Event()
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_named_pipe, echo, name)
            hostile = await trio.lowlevel.open_process(
                [sys.executable, "-c", HOSTILE, name, str(seconds)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert hostile.stdout is not None
            assert (await hostile.stdout.receive_some()).startswith(b"ready")

            async def wait() -> None:
                await hostile.wait()
                over.set()

            nursery.start_soon(wait)
            async with await open_named_pipe(name) as honest:
                while not over.is_set():
                    with trio.fail_after(LONGEST):
                        assert await answers(honest)
                    asked += 1
            async with hostile.stdout:
                taken_back = int(await read_to_end(hostile.stdout))
            nursery.cancel_scope.cancel()
    assert taken_back > 10
    assert asked > 10
    attack(
        "a client of `serve_named_pipe` that takes back what it has begun to write, for some seconds",
        tried=1,
        outcome="an honest client is answered throughout, each time within 2 s",
    )
