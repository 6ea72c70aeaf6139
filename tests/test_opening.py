"""A running server changes its transport, and nobody notices but the counters."""

from __future__ import annotations

import logging
import os

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from tests.platforms import exists, open_handles, unix_only
from tests.support import (
    MIB,
    DetectionServer,
    serving,
    succeed,
    success,
    task,
)
from tests.switching import (
    other,
)
from trio_ipc import (
    Call,
    Channel,
    Crc32Variant,
    IpcConfig,
    PeerClosedError,
    TransportType,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.opening import EndpointListener, open_channel, open_channel_listener
from trio_ipc.transports import PeerPolicy


def served_by(server: DetectionServer) -> dict[str, int]:
    """How many connections are served by each transport."""
    parts = server.snapshot().by_transport
    return {name: part.connections_active for name, part in parts.items() if part.connections_active}


def module_of(channel: Channel) -> str:
    return type(channel).__module__


# --- Either talks to either ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", Crc32Variant)
@pytest.mark.parametrize("clients", TransportType)
async def test_client_and_server_need_not_be_of_one_kind(
    config: IpcConfig, clients: TransportType, variant: Crc32Variant
) -> None:
    async def repeat(task: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, error_message=task.metadata)

    config = config.replace(crc32_variant=variant)
    async with serving(repeat, config), open_client(DETECTION, config.replace(transport=clients)) as client:
        for size in (1, 100, 65_535, 65_536, 200_000, MIB - 200):
            request = DetectionTask(task_id="t", metadata="x" * size)
            assert (await client.call(request)).error_message == request.metadata


# --- What a switch does -------------------------------------------------------------------------------------


async def test_new_connections_use_the_new_transport_and_old_ones_finish_on_theirs(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ipc.server")
    entered, go_on = trio.Event(), trio.Event()

    async def slow(task: DetectionTask, _: Call) -> DetectionResult:
        entered.set()
        await go_on.wait()
        return success(task.task_id)

    before, after = config.transport, other(config.transport)
    async with serving(slow, config) as server, open_client(DETECTION, config) as old:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.call, task("old"))
            await entered.wait()
            await server.switch_transport(str(after))
            assert server.snapshot().transport == after
            assert served_by(server) == {before: 1}, "it is still served by the old one"
            async with open_client(DETECTION, config) as new:
                answered = trio.Event()

                async def call_new() -> None:
                    assert await new.call(task("new")) == success("new")
                    answered.set()

                nursery.start_soon(call_new)
                while server.snapshot().connections_active < 2:
                    await trio.lowlevel.checkpoint()
                assert served_by(server) == {before: 1, after: 1}
                go_on.set()
                assert await old.call(task("again")) == success("again")
                await answered.wait()
        assert server.snapshot().connections_served == 2
    assert f"switched from the {before} to the {after} transport" in caplog.text


async def test_sixteen_callers_without_a_pause_notice_nothing_of_ten_switches(config: IpcConfig) -> None:
    config = config.replace(max_connections=64)
    answered = 0
    over = False

    async def keep_calling(number: int, kind: TransportType) -> None:
        nonlocal answered
        async with open_client(DETECTION, config.replace(transport=kind)) as client:
            while not over:
                for _ in range(10):
                    name = f"{number}-{answered}"
                    assert await client.call(task(name)) == success(name)
                    answered += 1

    async def connect_anew(number: int, kind: TransportType) -> None:
        nonlocal answered
        while not over:
            async with open_client(DETECTION, config.replace(transport=kind)) as client:
                assert await client.call(task("new")) == success("new")
                answered += 1

    seen = []
    async with serving(succeed, config) as server:
        async with trio.open_nursery() as callers:
            for number in range(16):
                call = keep_calling if number < 12 else connect_anew
                callers.start_soon(call, number, list(TransportType)[number % 2])
            for _ in range(10):
                enough = answered + 100
                while answered < enough:
                    await trio.lowlevel.checkpoint()
                await server.switch_transport(other(TransportType(server.snapshot().transport)))
                seen.append(server.snapshot().transport)
            over = True
        assert seen == [other(config.transport), config.transport] * 5
        counters = server.snapshot()
        assert counters.requests == answered
        assert counters.connections_refused["limit"] == counters.connections_left == 0
        assert counters.requests_answered == counters.requests
        assert set(counters.by_transport) == {"interprocess", "legacy"}
        assert counters.connections_closed["protocol_error"] == 0


async def test_no_connect_is_refused_meanwhile(config: IpcConfig) -> None:
    """Every client that knocks during a switch is let in, also those that nobody has accepted yet."""
    async with serving(succeed, config) as server:
        connected = 0
        over = False

        async def knock() -> None:
            nonlocal connected
            while not over:
                async with open_client(DETECTION, config) as client:
                    assert await client.call(task()) == success()
                    connected += 1

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(knock)
            for _ in range(40):
                enough = connected + 3
                while connected < enough:
                    await trio.lowlevel.checkpoint()
                await server.switch_transport(other(TransportType(server.snapshot().transport)))
            over = True
        assert server.snapshot().connections_served == connected


async def test_who_waits_at_the_old_listener_is_accepted_by_the_new_one(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await open_channel(config) as early:
            await early.send(b"early")
            await listener.switch(other(config.transport))
            async with await listener.accept() as served:
                assert await served.receive() == b"early"
                await served.send(b"welcome")
                assert await early.receive() == b"welcome"
        async with await open_channel(config) as another, await listener.accept() as of_another:
            assert module_of(served) == module_of(of_another)
            assert (module_of(served) == module_of(another)) == (listener.transport == config.transport)


@unix_only
async def test_the_socket_file_stays_the_same_and_goes_in_the_end(config: IpcConfig) -> None:
    path = config.endpoint_path
    async with serving(succeed, config) as server:
        before = os.lstat(path)
        for _ in range(3):
            await server.switch_transport(other(TransportType(server.snapshot().transport)))
            found = os.lstat(path)
            assert (found.st_ino, found.st_ctime_ns, found.st_mode) == (
                before.st_ino,
                before.st_ctime_ns,
                before.st_mode,
            )
            assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert not os.path.lexists(path)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_stop_after_a_switch_removes_the_endpoint(config: IpcConfig, times: int) -> None:
    async with serving(succeed, config) as server:
        for _ in range(times):
            await server.switch_transport(other(TransportType(server.snapshot().transport)))
        server.stop()
        await server.wait_stopped()
        assert not exists(config.endpoint_path)


async def test_the_active_transport_is_no_switch(config: IpcConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_ipc")
    async with serving(succeed, config) as server:
        listener = server._listener
        assert isinstance(listener, EndpointListener)
        before = listener._listener
        with trio.testing.assert_checkpoints():
            await server.switch_transport(config.transport)
        assert listener._listener is before
    assert "switched" not in caplog.text


async def test_many_switches_leave_no_descriptor(config: IpcConfig) -> None:
    async with serving(succeed, config) as server:

        async def switch_and_call(times: int) -> int:
            for _ in range(times):
                await server.switch_transport(other(TransportType(server.snapshot().transport)))
                async with open_client(DETECTION, config) as client:
                    await client.call(task())
            while server.snapshot().connections_active:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.01)
            return open_handles()

        before = await switch_and_call(4)
        assert await switch_and_call(40) <= before


async def test_the_limit_of_connections_holds_for_both_together(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    config = config.replace(max_connections=1, accept_timeout_ms=1_000)
    async with serving(succeed, config) as server, open_client(DETECTION, config) as first:
        await first.call(task())
        await server.switch_transport(other(config.transport))
        async with open_client(DETECTION, config) as second:
            with pytest.raises(PeerClosedError):
                await second.call(task())
        assert server.snapshot().connections_refused["limit"] == 1
        assert await first.call(task()) == success()
