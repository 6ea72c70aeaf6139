"""Endpoints in memory: listening, connecting and names."""

from __future__ import annotations

import errno
import sys

import pytest
import trio
import trio.testing

from tests.platforms import unix_only
from tests.support import succeed, success, task
from trio_ipc import (
    ConnectError,
    ConnectTimeoutError,
    EndpointInUseError,
    EndpointPermissionError,
    PeerCredentials,
    PeerNotAllowedError,
    PeerPolicy,
    ServerNotFoundError,
    ServerRefusedError,
    WriteTimeoutError,
    open_resilient_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionTask
from trio_ipc.resilient import Endpoint
from trio_ipc.testing import (
    IpcEndpoint,
    MemoryEndpoint,
    MemoryNetwork,
    MemoryStream,
    open_client_at,
    open_pair,
    open_server,
    temporary_endpoint,
)
from trio_ipc.transports import LocalStream

from .outcomes import outcome

SOMEBODY = PeerCredentials(pid=17, uid=4711, gid=4711, sid="S-1-5-21-17")


# --- Listening and connecting -------------------------------------------------------------------------------


async def test_a_client_may_send_before_it_is_accepted() -> None:
    endpoint = MemoryEndpoint("e")
    listener = await endpoint.listen_streams()
    client = await endpoint.connect()
    await client.send_all(b"early")
    server = await listener.accept()
    assert await server.receive_some() == b"early"
    assert isinstance(server, LocalStream)
    assert client.endpoint == server.endpoint == endpoint.path


async def test_nobody_listening_is_no_server() -> None:
    endpoint = MemoryEndpoint("e")
    with pytest.raises(ServerNotFoundError, match="nobody listens"):
        await endpoint.connect()
    listener = await endpoint.listen_streams()
    await listener.aclose()
    await listener.aclose()
    with pytest.raises(ServerNotFoundError):
        await endpoint.connect()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()
    async with await endpoint.listen_streams():
        pass


async def test_a_second_listener_is_refused() -> None:
    endpoint = MemoryEndpoint("e")
    async with await endpoint.listen_streams():
        with pytest.raises(EndpointInUseError):
            await endpoint.listen_streams()


async def test_who_was_not_accepted_is_closed_with_the_listener() -> None:
    endpoint = MemoryEndpoint("e")
    listener = await endpoint.listen_streams()
    client = await endpoint.connect()
    await client.send_all(b"unread")
    await listener.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


@pytest.mark.skipif(sys.platform != "linux", reason="what a close does to a backlog differs on other systems")
@pytest.mark.parametrize("sends", [False, True])
@pytest.mark.parametrize("first", ["receive", "send", "state"])
async def test_who_was_not_accepted_sees_what_a_unix_socket_shows(sends: bool, first: str) -> None:
    async def seen(endpoint: IpcEndpoint) -> list[object]:
        listener = await endpoint.listen_streams()
        client = await endpoint.connect()
        if sends:
            await client.send_all(b"unread")
        await listener.aclose()
        operations = [first, "receive", "receive", "send", "state"]
        found = [await outcome(operation, client) for operation in operations]
        await client.aclose()
        return found

    with temporary_endpoint() as socket:
        assert await seen(MemoryEndpoint()) == await seen(socket)


async def test_a_listener_that_is_closed_wakes_its_acceptor() -> None:
    listener = await MemoryEndpoint().listen_streams()
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def test_a_full_backlog_lets_clients_wait_for_their_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    endpoint = MemoryEndpoint(backlog=1)
    listener = await endpoint.listen_streams()
    await endpoint.connect()
    connected: list[MemoryStream] = []

    async def connect() -> None:
        connected.append(await endpoint.connect())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.sleep(100)
        assert connected == []
        await listener.accept()
        await trio.sleep(1)
        assert len(connected) == 1


async def test_connecting_can_be_refused_and_allowed_again() -> None:
    endpoint = MemoryEndpoint()
    async with open_server(succeed, DETECTION, endpoint):
        endpoint.refuse()
        with pytest.raises(ServerRefusedError, match=endpoint.path):
            await endpoint.connect()
        endpoint.refuse(EndpointPermissionError("not you", endpoint=endpoint.path, hint="ask"))
        errors = []
        for _ in range(2):
            with pytest.raises(EndpointPermissionError, match="not you; ask") as caught:
                await endpoint.connect()
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        endpoint.admit()
        async with open_client_at(DETECTION, endpoint) as client:
            assert await client.call(task()) == success()
    assert endpoint.tries == 4


class OwnError(ConnectError):
    """One that is not made of what it keeps as its arguments."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host} refuses", endpoint=host, hint="ask")
        self.port = port


async def test_connecting_can_be_refused_by_an_error_of_any_form() -> None:
    endpoint = MemoryEndpoint()
    await endpoint.listen_streams()
    error = OwnError("there", 7)
    error.add_note("noted before")
    endpoint.refuse(error)
    for _ in range(2):
        with pytest.raises(OwnError, match="there: there refuses; ask") as caught:
            await endpoint.connect()
        assert caught.value is not error
        assert caught.value.port == 7
        assert caught.value.args == error.args
        assert caught.value.__notes__ == ["noted before"]
        caught.value.add_note("of this one")


async def test_an_error_that_cannot_be_made_again_is_refused_at_once() -> None:
    class PickyError(ConnectError):
        def __new__(cls, *, reason: str) -> PickyError:
            return super().__new__(cls, reason)

        def __init__(self, *, reason: str) -> None:
            super().__init__(reason)

    with pytest.raises(TypeError, match="__new__"):
        MemoryEndpoint().refuse(PickyError(reason="none"))


async def test_connecting_can_hang_under_the_mock_clock(autojump_clock: trio.testing.MockClock) -> None:
    endpoint = MemoryEndpoint()
    async with open_server(succeed, DETECTION, endpoint):
        endpoint.hang()
        began = trio.current_time()
        with pytest.raises(ConnectTimeoutError, match="accept_timeout_ms is 3000"):
            async with open_client_at(DETECTION, endpoint, accept_timeout_ms=3_000):
                raise AssertionError("it connected")
        assert trio.current_time() - began == pytest.approx(3)

        async def admit_later() -> None:
            await trio.sleep(2)
            endpoint.admit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(admit_later)
            async with open_client_at(DETECTION, endpoint) as client:
                assert await client.call(task()) == success()


async def test_the_server_outlives_an_accept_without_descriptors(
    autojump_clock: trio.testing.MockClock,
) -> None:
    endpoint = MemoryEndpoint()
    with pytest.raises(ServerNotFoundError):
        endpoint.fail_accept(OSError(errno.EMFILE, "Too many open files"))
    async with open_server(succeed, DETECTION, endpoint):
        endpoint.fail_accept(OSError(errno.EMFILE, "Too many open files"))
        async with open_client_at(DETECTION, endpoint) as client:
            assert await client.call(task()) == success()


async def test_an_accept_that_fails_is_the_next_one_and_costs_nobody_the_place() -> None:
    endpoint = MemoryEndpoint(backlog=2)
    async with await endpoint.listen_streams() as listener:
        clients = [await endpoint.connect() for _ in range(2)]
        for number in 1, 2:
            endpoint.fail_accept(OSError(number, "no descriptor"))
        for number in 1, 2:
            with pytest.raises(OSError, match=f"{number}. no descriptor"):
                await listener.accept()
        for client in clients:
            server = await listener.accept()
            await client.send_all(b"x")
            assert await server.receive_some() == b"x"
        outcomes: list[object] = []

        async def accept() -> None:
            try:
                outcomes.append(await listener.accept())
            except OSError as exc:
                outcomes.append(exc.errno)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            endpoint.fail_accept(OSError(3, "no descriptor"))
        assert outcomes == [3]


async def test_a_peer_can_be_another_user_on_either_side() -> None:
    endpoint = MemoryEndpoint(client=SOMEBODY)
    async with open_server(succeed, DETECTION, endpoint) as server:
        stream = await endpoint.connect()
        assert await stream.receive_some() == b""
        assert server.snapshot().connections_refused["credentials"] == 1
        endpoint.client, endpoint.server = endpoint.server, SOMEBODY
        with pytest.raises(PeerNotAllowedError):
            async with open_client_at(DETECTION, endpoint):
                raise AssertionError("it was trusted")
        async with open_client_at(DETECTION, endpoint, peers=PeerPolicy.anyone()) as client:
            assert client.peer == SOMEBODY
            assert await client.call(task()) == success()


def test_this_process_is_one_that_its_own_policy_allows() -> None:
    assert PeerPolicy.own_user_and_root().allows(PeerCredentials.of_this_process())


async def test_write_deadlines_can_be_provoked(autojump_clock: trio.testing.MockClock) -> None:
    endpoint = MemoryEndpoint(buffer_bytes=100)
    async with await endpoint.listen_streams(), open_client_at(DETECTION, endpoint) as client:
        with pytest.raises(WriteTimeoutError, match="write_timeout_ms"):
            await client.call(DetectionTask(task_id="x" * 1000))


# --- Names --------------------------------------------------------------------------------------------------


@unix_only
def test_a_bare_name_becomes_a_path_that_settings_take() -> None:
    assert MemoryEndpoint("a").path == "/a"
    assert MemoryEndpoint("/a").path == "/a"
    assert MemoryEndpoint("a").config(read_timeout_ms=5).read_timeout_ms == 5
    assert repr(MemoryEndpoint("a")) == "MemoryEndpoint('/a')"


async def test_a_resilient_client_reaches_several_by_their_names() -> None:
    network = MemoryNetwork()
    network.add(MemoryEndpoint("b", buffer_bytes=10))
    with pytest.raises(ValueError, match="there is an endpoint .*b already"):
        network.add(MemoryEndpoint("b"))
    first, second = network.endpoint("a"), network.endpoint("b")
    assert network.endpoint("a") is first
    async with (
        open_server(succeed, DETECTION, first),
        open_server(succeed, DETECTION, second),
        open_resilient_client(
            DETECTION,
            [Endpoint(first.config(), id="a"), Endpoint(second.config(), id="b")],
            connect=network.open_channel,
        ) as client,
    ):
        answers = [await client.ask(task(str(number))) for number in range(2)]
    assert {answer.endpoint_id for answer in answers} == {"a", "b"}


async def test_thousands_of_bytes_go_through_a_small_buffer_in_frames() -> None:
    endpoint = MemoryEndpoint(buffer_bytes=13)
    async with open_pair(succeed, DETECTION, over=endpoint) as (client, _):
        long = "x" * 5_000
        assert await client.call(task(long)) == success(long)


async def test_the_last_word_about_connecting_holds(autojump_clock: trio.testing.MockClock) -> None:
    endpoint = MemoryEndpoint()
    refused = []

    async def connect() -> None:
        with pytest.raises(ServerRefusedError):
            await endpoint.connect()
        refused.append(trio.current_time())

    async with await endpoint.listen_streams():
        endpoint.hang()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            await trio.testing.wait_all_tasks_blocked()
            endpoint.refuse()  # for those who wait, too
            await trio.testing.wait_all_tasks_blocked()
            assert len(refused) == 1
        await connect()
        endpoint.hang()
        with trio.move_on_after(5) as deadline:
            await endpoint.connect()
        assert deadline.cancelled_caught
        endpoint.admit()
        await endpoint.connect()
