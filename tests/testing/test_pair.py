"""A pair is a server and a client as programs have them, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from tests.platforms import exists
from tests.support import Handler, succeed, success, task
from trio_ipc import (
    Call,
    ConfigError,
    ConnectTimeoutError,
    Contract,
    EndpointError,
    IpcConfig,
    MessageTooLargeError,
    PeerClosedError,
    PeerPolicy,
    TransportType,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, HashCheck, HashResult
from trio_ipc.errors import leaves
from trio_ipc.testing import (
    Faults,
    IpcEndpoint,
    MemoryEndpoint,
    OpenClient,
    StartServer,
    SystemEndpoint,
    open_client_at,
    open_pair,
    open_server,
    temporary_endpoint,
)
from trio_ipc.transports import LocalStream


def has(transport: str) -> bool:
    try:
        IpcConfig(transport=transport)
    except ConfigError:
        return False
    return True


OVER = ["memory", *(str(transport) for transport in TransportType if has(transport))]


@pytest.mark.parametrize("over", OVER)
async def test_it_answers_over_every_kind_of_endpoint_there_is(over: str) -> None:
    async with open_pair(succeed, DETECTION, over=over) as (client, server):
        assert await client.call(task("1")) == success("1")
        assert server.snapshot().requests == 1
        path = server.endpoint
    assert over == "memory" or not exists(path)


@pytest.mark.ipc_transport("memory", "interprocess", "legacy")
async def test_the_fixtures_give_the_same(
    ipc_endpoint: IpcEndpoint, ipc_server: StartServer, ipc_client: OpenClient
) -> None:
    server = await ipc_server(succeed, DETECTION, read_timeout_ms=1_000)
    clients = [await ipc_client(DETECTION), await ipc_client(DETECTION, read_timeout_ms=2_000)]
    for client in clients:
        assert await client.call(task()) == success()
    assert server.snapshot().connections_active == 2
    assert client.endpoint == server.endpoint == ipc_endpoint.path


async def test_settings_are_those_of_both_sides() -> None:
    base = IpcConfig(max_frame_bytes=500, endpoint_path=MemoryEndpoint("ignored").path)
    async with open_pair(succeed, DETECTION, base, read_timeout_ms=123) as (client, server):
        assert server.endpoint == MemoryEndpoint().path
        with pytest.raises(MessageTooLargeError, match="max_frame_bytes is 500"):
            await client.call(task("x" * 501))
        assert server._config.read_timeout_ms == client._config.read_timeout_ms == 123
    with pytest.raises(ConfigError, match="there is no setting 'read_timeout'"):
        async with open_pair(succeed, DETECTION, read_timeout=1):
            raise AssertionError("it opened")


async def test_it_speaks_any_contract() -> None:
    contract = Contract(name="hashes", request_type=HashCheck, response_type=HashResult)

    async def hash_it(request: HashCheck, _: Call) -> HashResult:
        return HashResult(file_path=request.executable_path, success=True)

    async with open_pair(hash_it, contract) as (client, _):
        result = await client.call(HashCheck(executable_path="/bin/true"))
        assert result.file_path == "/bin/true"


@pytest.mark.parametrize("over", ["memory", "interprocess"])
async def test_an_exception_of_the_block_comes_out_as_it_is(over: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_pair(succeed, DETECTION, over=over):
            _ = 1 / 0


async def test_several_exceptions_come_out_together() -> None:
    async def fail_twice() -> None:
        async with open_server(succeed, DETECTION, MemoryEndpoint()):
            async with trio.open_nursery() as nursery:
                for error in (KeyError("a"), ValueError("b")):
                    nursery.start_soon(raise_it, error)

    async def raise_it(error: Exception) -> None:
        raise error

    with pytest.raises(ExceptionGroup) as caught:
        await fail_twice()
    assert caught.group_contains(KeyError)
    assert caught.group_contains(ValueError)


async def test_a_cancellation_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(5) as scope:
        async with open_pair(succeed, DETECTION):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_server_that_stops_working_ends_the_block() -> None:
    endpoint = MemoryEndpoint()
    with pytest.raises(EndpointError, match="the listener failed"):  # noqa: PT012 - a block
        async with open_server(succeed, DETECTION, endpoint):
            endpoint.fail_accept(OSError(5, "Input/output error"))
            await trio.sleep_forever()


@pytest.mark.parametrize("over", ["pigeon", "Memory", ""])
async def test_what_is_no_transport_is_refused(over: str) -> None:
    with pytest.raises(ConfigError, match="transport is"):
        async with open_pair(succeed, DETECTION, over=over):
            raise AssertionError("it opened")


async def test_policies_hold_on_both_sides() -> None:
    async with open_pair(succeed, DETECTION, peers=PeerPolicy.anyone()) as (client, _):
        assert await client.call(task()) == success()


def test_a_temporary_endpoint_is_nobody_elses_and_leaves_nothing() -> None:
    with temporary_endpoint() as one, temporary_endpoint() as other:
        assert one.path != other.path
        directory = os.path.dirname(one.path)
        assert repr(one) == f"SystemEndpoint({one.path!r}, 'interprocess')"
    assert sys.platform == "win32" or not os.path.exists(directory)


@pytest.mark.skipif(sys.platform == "win32", reason="speaks of a socket's path")
def test_a_temporary_directory_that_leaves_no_room_is_told(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    deep = tmp_path_factory.mktemp("x" * 100)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigError, match="set TMPDIR to a shorter path"), temporary_endpoint():
        raise AssertionError("it was made")
    assert list(deep.iterdir()) == []


async def test_a_transport_without_streams_is_not_wrapped() -> None:
    with temporary_endpoint() as endpoint:
        config = attrs.evolve(endpoint.config())
        object.__setattr__(config, "transport", TransportType.LEGACY)
        with pytest.raises(ValueError, match="put a relay in between"):
            await endpoint.open_channel(config, wrap=Faults().wrap)


async def test_a_wrapped_client_of_a_real_endpoint_is_told_when_nobody_takes_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class HangingEndpoint(SystemEndpoint):
        async def connect(self) -> LocalStream:
            await trio.sleep_forever()
            raise AssertionError("unreachable")

    endpoint = HangingEndpoint(MemoryEndpoint("nowhere").path)
    with pytest.raises(ConnectTimeoutError, match="accept_timeout_ms is 50"):
        async with open_client_at(DETECTION, endpoint, wrap=Faults().wrap, accept_timeout_ms=50):
            raise AssertionError("it connected")


# --- What a handler asserts ---------------------------------------------------------------------------------


async def asserts(request: DetectionTask, _: Call) -> DetectionResult:
    assert request.task_id == "expected"
    return success(request.task_id)


async def asserts_in_a_nursery(request: DetectionTask, call: Call) -> DetectionResult:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asserts, request, call)
    return success(request.task_id)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("handler", [asserts, asserts_in_a_nursery])
async def test_what_a_handler_asserts_is_the_tests_failure(handler: Handler, over: str) -> None:
    went_on = False

    async def run() -> None:
        nonlocal went_on
        async with open_pair(handler, DETECTION, over=over) as (client, _):
            assert (await client.call(task("expected"))).success
            await client.call(task("another"))
            await trio.sleep(60)
            went_on = True

    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        await run()
    assert not went_on
    assert [type(leaf) for leaf in leaves(caught.value)] == [AssertionError]


async def test_a_handler_that_fails_otherwise_is_a_failed_response_as_ever() -> None:
    async def fails(_: DetectionTask, _call: Call) -> DetectionResult:
        raise ZeroDivisionError("no")

    async with open_pair(fails, DETECTION) as (client, _):
        assert "ZeroDivisionError" in (await client.call(task())).error_message


async def test_what_a_test_asserts_after_a_handler_did_is_told_with_it() -> None:
    async def run() -> None:
        async with open_pair(asserts, DETECTION) as (client, _):
            with trio.CancelScope(shield=True), pytest.raises(PeerClosedError):
                await client.call(task("another"))
            raise AssertionError("not a success")

    with pytest.raises(AssertionError) as caught:
        await run()
    assert "'another'" in str(caught.value)
    [note] = caught.value.__notes__
    assert note.startswith("afterwards failed: AssertionError: not a success")


async def test_a_handler_that_is_not_async_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="handler is .*, which is not async"):
        async with open_server(len, DETECTION, MemoryEndpoint()):  # type: ignore[arg-type]
            raise AssertionError("it listened")


async def test_an_exception_keeps_the_context_that_it_had() -> None:
    async def fail_in_a_handler_of_another() -> None:
        async with open_pair(succeed, DETECTION):
            try:
                _ = 1 / 0
            except ZeroDivisionError:
                raise KeyError("b") from None

    async def fail_while_handling_another() -> None:
        async with open_pair(succeed, DETECTION):
            try:
                _ = 1 / 0
            except ZeroDivisionError:
                raise KeyError("b")  # noqa: B904 - it is about that

    with pytest.raises(KeyError) as caught:
        await fail_while_handling_another()
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert not caught.value.__suppress_context__
    with pytest.raises(KeyError) as caught:
        await fail_in_a_handler_of_another()
    assert caught.value.__suppress_context__


async def test_an_interrupt_goes_before_all_failures() -> None:
    async def fail_twice() -> None:
        async with open_pair(asserts, DETECTION) as (client, _):
            with trio.CancelScope(shield=True), pytest.raises(PeerClosedError):
                await client.call(task("another"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await fail_twice()


@pytest.mark.parametrize("outcome", [pytest.fail, pytest.skip], ids=["fail", "skip"])
async def test_what_pytest_raises_in_a_handler_is_the_tests_outcome_too(
    outcome: Callable[[str], None],
) -> None:
    async def asks_for_it(_: DetectionTask, _call: Call) -> DetectionResult:
        outcome("said in the handler")
        raise AssertionError

    async def run() -> None:
        async with open_pair(asks_for_it, DETECTION) as (client, _):
            with trio.fail_after(10):
                await client.call(task())
                await trio.sleep_forever()

    kind: type[BaseException] = outcome.Exception  # type: ignore[attr-defined]
    with pytest.raises(kind, match="said in the handler"):
        await run()


async def test_a_block_that_pytest_ends_has_a_note_of_what_failed_before() -> None:
    async def run() -> None:
        async with open_pair(asserts, DETECTION) as (client, _):
            with trio.CancelScope(shield=True), pytest.raises(PeerClosedError):
                await client.call(task("another"))
            pytest.fail("not a success")

    with pytest.raises(AssertionError, match="'another'") as caught:
        await run()
    [note] = caught.value.__notes__
    assert "not a success" in note
