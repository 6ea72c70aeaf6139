"""Readiness, reloading, stopping and the watchdog, with a service manager of our own."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

if sys.platform == "win32":
    pytest.skip("there is no such service manager", allow_module_level=True)
assert sys.platform != "win32"

from tests.platforms import exists  # noqa: E402
from tests.support import succeed  # noqa: E402
from trio_ipc import IpcConfig, serve  # noqa: E402
from trio_ipc.daemoneye import DETECTION  # noqa: E402
from trio_ipc.service.console import Console  # noqa: E402
from trio_ipc.service.notify import Manager  # noqa: E402
from trio_ipc.service.run import _Service  # noqa: E402
from trio_ipc.service.signals import Signals  # noqa: E402

from .support import ask, running  # noqa: E402

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")


class Listening:
    """The service manager's end: it reads what it is told."""

    def __init__(self, sock: trio.socket.SocketType, name: str) -> None:
        self._sock = sock
        self.name = name

    async def told(self) -> dict[str, str]:
        lines = (await self._sock.recv(65_536)).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(params=["path", pytest.param("abstract", marks=linux_only)])
async def manager(request: pytest.FixtureRequest, directory: str) -> AsyncIterator[Listening]:
    name = f"{directory}/notify" if request.param == "path" else f"@{directory}"
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(name.replace("@", "\0"))
        yield Listening(sock, name)


@pytest.fixture
def endpoint(directory: str) -> str:
    return f"{directory}/s"


async def test_a_service_tells_when_it_is_ready_reloads_and_stops(manager: Listening, endpoint: str) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    async with running(endpoint, environ={"NOTIFY_SOCKET": manager.name}) as program:
        assert await manager.told() == {"READY": "1", "STATUS": f"listening on {endpoint}"}
        assert (await ask(endpoint)).success, "it is true"
        await program.signal(signal.SIGHUP)
        reloading = await manager.told()
        assert before < int(reloading.pop("MONOTONIC_USEC"))
        assert reloading == {"RELOADING": "1"}
        assert (await manager.told())["READY"] == "1"
        await program.signal(signal.SIGTERM)
        assert (await manager.told())["STOPPING"] == "1"
        assert await program.end() == 0


async def test_a_reload_that_fails_is_over_all_the_same(manager: Listening, endpoint: str) -> None:
    setup = (
        "calls = []\ndef config():\n    calls.append(1)\n"
        "    return IpcConfig.load(None if len(calls) == 1 else 'no')"
    )
    async with running(endpoint, setup, {"NOTIFY_SOCKET": manager.name}) as program:
        assert (await manager.told())["READY"] == "1"
        await program.signal(signal.SIGHUP)
        assert (await manager.told())["RELOADING"] == "1"
        assert (await manager.told())["READY"] == "1"
        await program.stderr.until(lambda line: line.startswith("svc: not reloaded: cannot read the"))


async def test_the_watchdog_is_told_as_long_as_the_event_loop_runs(manager: Listening, endpoint: str) -> None:
    environ = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "20000"}
    async with running(endpoint, environ=environ) as program:
        told = [await manager.told() for _ in range(6)]
        assert told.count({"WATCHDOG": "1"}) == 5
        await program.signal(signal.SIGTERM)
        while "STOPPING" not in await manager.told():
            pass
        assert await program.end() == 0


async def test_a_watchdog_of_another_process_is_not_told(manager: Listening, endpoint: str) -> None:
    environ = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    async with running(endpoint, environ=environ) as program:
        assert "READY" in await manager.told()
        await program.signal(signal.SIGTERM)
        assert "STOPPING" in await manager.told()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NOTIFY_SOCKET": "/nowhere/at/all"}, "could not be told READY=1: No such file or directory"),
        ({"NOTIFY_SOCKET": f"/{'x' * 200}"}, "could not be told READY=1: AF_UNIX path too long"),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "NOTIFY_SOCKET is 'vsock:2:1', must be a path or @ and a name"),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC is 'soon', must be a number"),
    ],
)
async def test_what_cannot_be_told_is_a_line_and_no_end(
    endpoint: str, environ: dict[str, str], said: str
) -> None:
    async with running(endpoint, environ=environ) as program:
        await program.stderr.until(lambda line: said in line)
        assert (await ask(endpoint)).success
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0
        assert not exists(endpoint)


async def test_a_manager_that_hangs_keeps_nobody_longer_than_its_time(
    directory: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as deaf:
        await deaf.bind(f"{directory}/notify")
        telling = Manager({"NOTIFY_SOCKET": f"{directory}/notify"})
        began = trio.current_time()
        while "did not take it within 5 s" not in caplog.text:
            await telling.ready("again")  # until the system has no more room for what nobody reads
        assert trio.current_time() - began == pytest.approx(5)


async def test_the_second_signal_waits_for_no_manager_that_hangs(
    directory: str, endpoint: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as deaf:
        await deaf.bind(f"{directory}/notify")
        telling = Manager({"NOTIFY_SOCKET": f"{directory}/notify"})
        while "did not take it within 5 s" not in caplog.text:
            await telling.ready("again")
        came, comes = trio.open_memory_channel[None](2)
        config = IpcConfig(endpoint_path=endpoint)
        service = _Service(succeed, DETECTION, lambda: config, None, None, None, Console("svc", "text"))
        began = trio.current_time()
        async with trio.open_nursery() as serving:
            server = await serving.start(serve, succeed, DETECTION, config)
            for _ in range(2):
                came.send_nowait(None)
            await service._stop(Signals(comes, comes, comes), server, telling, serving)
        assert trio.current_time() == began


async def test_the_end_is_told_though_it_comes_at_once(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(f"{directory}/notify")
        telling = Manager({"NOTIFY_SOCKET": f"{directory}/notify"})
        with trio.CancelScope() as scope:
            scope.cancel()
            await telling.stopping("over")
        assert scope.cancelled_caught
        assert b"STOPPING=1" in await sock.recv(65_536)


async def test_without_a_manager_nothing_is_told() -> None:
    telling = Manager({"WATCHDOG_USEC": "1"})
    await telling.ready("ready")
    await telling.keep_alive()
