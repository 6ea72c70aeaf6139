"""What can go wrong while a server changes its transport."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from tests.platforms import KEPT_BY_WINE, exists, open_handles
from tests.support import (
    MemoryEndpoint,
    forget_libraries,
    hang,
    serving,
    succeed,
    success,
    task,
)
from tests.switching import (
    INTERPROCESS,
    LEGACY,
    other,
)
from trio_ipc import (
    Call,
    Channel,
    ConfigError,
    Crc32Variant,
    EndpointError,
    IpcConfig,
    TransportType,
    open_client,
    opening,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.opening import EndpointListener, open_channel, open_channel_listener
from trio_ipc.transports import PeerPolicy


@pytest.mark.parametrize("failure", [ImportError("no module named x"), OSError(errno.ENOMEM, "no memory")])
@pytest.mark.parametrize("when", ["loading", "taking over"])
async def test_a_switch_that_fails_leaves_the_old_transport_serving(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, failure: Exception, when: str
) -> None:
    real = opening._load
    wanted = other(config.transport)

    def adopt(*_: object) -> None:
        raise failure

    def load(transport: TransportType) -> object:
        if transport is not wanted:
            return real(transport)
        if when == "loading":
            raise failure
        return type("Broken", (), {"adopt": staticmethod(adopt)})

    async with serving(succeed, config) as server, open_client(DETECTION, config) as old:
        await old.call(task())
        handles = open_handles()
        monkeypatch.setattr(opening, "_load", load)
        for _ in range(3):
            with pytest.raises(EndpointError, match="goes on serving; nothing was lost") as caught:
                await server.switch_transport(wanted)
            assert caught.value.__cause__ is failure
            assert str(config.transport) in str(caught.value)
        assert open_handles() <= handles + KEPT_BY_WINE
        assert server.snapshot().transport == config.transport
        assert await old.call(task()) == success()
        async with open_client(DETECTION, config) as new:
            assert await new.call(task()) == success()
        monkeypatch.undo()
        await server.switch_transport(wanted)
        async with open_client(DETECTION, config) as new:
            assert await new.call(task()) == success()


@pytest.mark.parametrize("wanted", TransportType, ids=str)
async def test_a_transport_works_without_the_libraries_of_the_checksums(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, wanted: TransportType
) -> None:
    for library in ("google_crc32c", "fastcrc.crc32"):
        monkeypatch.setitem(sys.modules, library, None)
    forget_libraries()
    try:
        config = config.replace(crc32_variant="auto", transport=other(wanted))
        with pytest.warns(RuntimeWarning, match="CRC-32C is computed in Python"):  # noqa: PT031 - the server is to warn
            async with serving(succeed, config) as server:
                await server.switch_transport(wanted)
                for variant in Crc32Variant:
                    await call_once(config.replace(crc32_variant=variant))
    finally:
        forget_libraries()


async def test_a_name_that_is_no_transport_is_refused(config: IpcConfig) -> None:
    async with serving(succeed, config) as server:
        with pytest.raises(ConfigError, match='transport is \'pigeon\', must be "interprocess" or "legacy"'):
            await server.switch_transport("pigeon")


async def test_a_listener_of_the_callers_own_is_the_callers_own() -> None:
    endpoint = MemoryEndpoint(IpcConfig())
    async with serving(succeed, endpoint) as server:
        with pytest.raises(EndpointError, match="made by the caller of serve_listener.*use serve"):
            await server.switch_transport("legacy")
        assert server.snapshot().transport == "interprocess"


async def test_a_server_that_stops_is_not_switched(config: IpcConfig) -> None:
    begun = trio.Event()

    async def begin_and_hang(request: DetectionTask, call: Call) -> DetectionResult:
        begun.set()
        return await hang(request, call)

    async with (
        serving(begin_and_hang, config) as server,
        open_client(DETECTION, config) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.call, task())
        await begun.wait()  # where a thread waits for a pipe, tasks that all wait tell nothing
        server.stop()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(EndpointError, match="the server is stopping"):
            await server.switch_transport(other(config.transport))
        assert server.snapshot().transport == config.transport
        nursery.cancel_scope.cancel()


async def test_a_stop_in_the_moment_of_a_switch_ends_all_of_it(config: IpcConfig) -> None:
    for order in ("stop first", "switch first"):
        async with serving(succeed, config) as server:
            async with trio.open_nursery() as nursery:

                async def switch() -> None:
                    with contextlib.suppress(EndpointError):  # it may have come too late
                        await server.switch_transport(other(config.transport))

                if order == "stop first":
                    server.stop()
                nursery.start_soon(switch)
                if order == "switch first":
                    while not nursery.child_tasks:
                        await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                    server.stop()
            await server.wait_stopped()
        assert not exists(config.endpoint_path)


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_switch_has_happened_or_not(config: IpcConfig, steps: int) -> None:
    """The cancellation comes after any number of steps; both outcomes leave a server that serves."""
    async with serving(succeed, config) as server:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.switch_transport, other(TransportType(server.snapshot().transport)))
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            listener = server._listener
            assert isinstance(listener, EndpointListener)
            assert listener._switch_wanted is None
            assert server.snapshot().transport == listener.transport
            async with open_client(DETECTION, config) as client:
                assert await client.call(task()) == success()
    assert not exists(config.endpoint_path)


async def test_switches_at_the_same_time_take_turns(config: IpcConfig) -> None:
    async with serving(succeed, config) as server:
        async with trio.open_nursery() as nursery:
            for number in range(11):
                kind = other(config.transport) if number % 2 == 0 else config.transport
                nursery.start_soon(server.switch_transport, kind)
            nursery.start_soon(partial(call_once, config))
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()


async def call_once(config: IpcConfig) -> None:
    async with open_client(DETECTION, config) as client:
        assert await client.call(task()) == success()


async def test_a_system_out_of_descriptors_does_not_keep_a_switch_waiting(
    config: IpcConfig, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def accept() -> Channel:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, "Too many open files")

    async with serving(succeed, config) as server:
        listener = server._listener
        assert isinstance(listener, EndpointListener)
        old = listener._listener
        monkeypatch.setattr(old, "accept", accept)
        async with open_client(DETECTION, config):  # makes the listener leave its first accept()
            pass
        await trio.sleep(0.15)
        await server.switch_transport(other(config.transport))
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()


async def test_a_second_task_that_accepts_is_told_so(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await listener.accept()
            nursery.cancel_scope.cancel()


async def test_what_was_handed_over_is_no_longer_the_old_listeners(config: IpcConfig) -> None:
    listener = await open_channel_listener(config, PeerPolicy.own_user_and_root())
    old = listener._listener
    await listener.switch(other(config.transport))
    operations: list[Callable[[], Awaitable[object]]] = [old.accept]
    for operation in operations:
        with pytest.raises(trio.ClosedResourceError):
            await operation()
    with pytest.raises(trio.ClosedResourceError):
        old.detach()
    await old.aclose()
    async with await open_channel(config), await listener.accept():
        pass
    await listener.aclose()
    assert not exists(config.endpoint_path)
    with pytest.raises(trio.ClosedResourceError):
        await listener.switch(config.transport)
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


@pytest.mark.parametrize("kind", TransportType)
async def test_the_environment_alone_chooses(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, kind: TransportType
) -> None:
    monkeypatch.setenv("TRIO_IPC_ENDPOINT_PATH", config.endpoint_path)
    monkeypatch.setenv("TRIO_IPC_TRANSPORT", str(kind))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, succeed, DETECTION)
        async with open_client(DETECTION) as client:
            assert await client.call(task()) == success()
            assert server.snapshot().transport == client.snapshot().transport == kind
        nursery.cancel_scope.cancel()


#: Runs a server and a client with the other transport's modules out of reach.
ALONE = """
import sys, trio
for name in sys.argv[2:]:
    sys.modules[name] = None
from trio_ipc import IpcConfig, open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

async def answer(task, call):
    return DetectionResult(task_id=task.task_id, success=True)

async def main():
    config = IpcConfig.load(endpoint_path=sys.argv[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, answer, DETECTION, config)
        async with open_client(DETECTION, config) as client:
            assert (await client.call(DetectionTask(task_id="t"))).success
        nursery.cancel_scope.cancel()

trio.run(main)
"""

STREAMS = "windows.pipe" if sys.platform == "win32" else "unix"


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        (
            LEGACY,
            [f"trio_ipc.transports.{STREAMS}", "trio_ipc.channel.interprocess", "fastcrc", "fastcrc.crc32"],
        ),
        (INTERPROCESS, ["trio_ipc.legacy"]),
    ],
)
async def test_the_transport_that_is_not_chosen_is_not_needed(
    config: IpcConfig, kind: TransportType, absent: list[str]
) -> None:
    await trio.run_process(
        [sys.executable, "-c", ALONE, config.endpoint_path, *absent],
        env={**os.environ, "TRIO_IPC_TRANSPORT": str(kind)},
    )
