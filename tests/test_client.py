from __future__ import annotations

import os
import socket
import sys

import pytest
import trio
from google.protobuf.descriptor_pb2 import UninterpretedOption
from trio.testing import MockClock, lockstep_stream_pair

from tests.platforms import unix_only
from tests.support import (
    IN_MEMORY,
    ME,
    MIB,
    UNPRINTABLE,
    DetectionClient,
    Ends,
    MemoryEndpoint,
    frame,
    hang,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Channel,
    ChannelClosedError,
    ChecksumMismatchError,
    Client,
    ConnectTimeoutError,
    Contract,
    Crc32Variant,
    FramedChannel,
    FrameTooLargeError,
    IpcConfig,
    MessageEmptyError,
    MessageError,
    MessageTooLargeError,
    PeerClosedError,
    PeerNotAllowedError,
    PeerPolicy,
    ReadTimeoutError,
    ResponseMismatchError,
    ServerNotFoundError,
    ServerRefusedError,
    TruncatedFrameError,
    TurnTimeoutError,
    UndecodableMessageError,
    WriteTimeoutError,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.wire import FrameEncoder

CONFIG = IpcConfig(endpoint_path=IN_MEMORY)


def client_over(connection: trio.abc.Stream | Channel) -> DetectionClient:
    if isinstance(connection, trio.abc.Stream):
        connection = FramedChannel(connection, CONFIG, endpoint="memory", peer=ME)
    return Client(connection, CONFIG, contract=DETECTION)


async def expect_broken_by(client: DetectionClient, exc: type[BaseException], said: str = "") -> None:
    """After a failure part-way, the next call says so and what it was."""
    match = f"broken by an earlier call: .*{said}.*; open a new client"
    for _ in range(2):
        with pytest.raises(ChannelClosedError, match=match) as caught:
            await client.call(task())
        assert isinstance(caught.value.__cause__, exc)


# --- Calling ----------------------------------------------------------------------


async def test_a_failed_result_is_returned_not_raised(ends: Ends) -> None:
    far, near = ends.raw(CONFIG)
    await far.send_all(frame(DetectionResult(task_id="t", error_message="no such process")))
    result = await client_over(near).call(task())
    assert (result.success, result.error_message) == (False, "no such process")


async def test_concurrent_calls_take_turns_and_each_gets_its_own_answer(config: IpcConfig) -> None:
    inside = 0

    async def one_at_a_time(task: DetectionTask, _: object) -> DetectionResult:
        nonlocal inside
        inside += 1
        assert inside == 1
        await trio.lowlevel.checkpoint()
        inside -= 1
        return success(task.task_id)

    async with serving(one_at_a_time, config), open_client(config) as client:

        async def call(task_id: str) -> None:
            assert await client.call(task(task_id)) == success(task_id)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(call, str(number))
        assert client.snapshot().calls == 30


async def test_the_wait_for_a_turn_has_a_deadline_and_sends_nothing(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    client = client_over(near)

    async def answer_late() -> None:
        await trio.sleep(25)
        await far.send_all(frame(success("first"))[:5])
        await trio.sleep(25)
        await far.send_all(frame(success("first"))[5:])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_late)
        nursery.start_soon(client.call, task("first"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TurnTimeoutError, match="memory: timed out waiting for a turn behind 1 calls, "):
            await client.call(task("second"))
        assert trio.current_time() == pytest.approx(30)
    await far.send_all(frame(success("third")))
    assert await client.call(task("third")) == success("third")
    assert await far.receive_some() == frame(task("first")) + frame(task("third"))


@pytest.mark.parametrize(
    ("request_", "error"),
    [(DetectionTask(), MessageEmptyError), (DetectionTask(task_id="x" * MIB), MessageTooLargeError)],
)
async def test_a_request_that_cannot_be_sent_leaves_the_client_good(
    ends: Ends, request_: DetectionTask, error: type[Exception]
) -> None:
    far, near = ends.raw(CONFIG)
    client = client_over(near)
    with pytest.raises(error, match="^memory: "):
        await client.call(request_)
    await far.send_all(frame(success()))
    assert await client.call(task()) == success()
    assert await far.receive_some() == frame(task())


async def test_a_request_of_another_type_is_a_type_error(ends: Ends) -> None:
    client = client_over(ends.raw(CONFIG)[1])
    with pytest.raises(TypeError, match="the request is a DetectionResult, must be a DetectionTask"):
        await client.call(DetectionResult())  # type: ignore[arg-type]


async def test_a_request_that_lacks_a_required_field_is_not_sent(ends: Ends) -> None:
    _, near = ends.raw(CONFIG)
    part = UninterpretedOption.NamePart
    contract = Contract(name="proto2", request_type=part, response_type=part)
    client = Client(near, CONFIG, contract=contract)
    for _ in range(2):
        with pytest.raises(MessageError, match="memory: the NamePart cannot be encoded: .*set the missing"):
            await client.call(part(name_part="x"))


async def test_a_call_is_a_checkpoint_and_can_be_cancelled_before_it_sends(ends: Ends) -> None:
    far, near = ends.raw(CONFIG)
    client = client_over(near)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.call(task())
    assert scope.cancelled_caught
    await far.send_all(frame(success()))
    with trio.testing.assert_checkpoints():
        assert await client.call(task()) == success()


# --- What breaks a client -----------------------------------------------------------


async def test_a_server_that_does_not_answer_is_timed_out(ends: Ends, autojump_clock: MockClock) -> None:
    _, near = ends.raw(CONFIG)
    client = client_over(near)
    with pytest.raises(ReadTimeoutError, match="memory: timed out .* the limit read_timeout_ms is 30000"):
        await client.call(task())
    assert trio.current_time() == pytest.approx(30)
    await expect_broken_by(client, ReadTimeoutError)


async def test_a_server_that_does_not_read_is_timed_out(autojump_clock: MockClock) -> None:
    client = client_over(lockstep_stream_pair()[0])
    with pytest.raises(WriteTimeoutError, match="the limit write_timeout_ms is 10000"):
        await client.call(task())
    assert trio.current_time() == pytest.approx(10)
    await expect_broken_by(client, WriteTimeoutError)


async def test_a_call_cancelled_part_way_closes_the_connection_and_the_next_says_so(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    client = client_over(near)
    with trio.move_on_after(1):
        await client.call(task("mine"))
    await expect_broken_by(client, trio.Cancelled, "it was cancelled")
    assert await far.receive_some() == frame(task("mine"))
    assert await far.receive_some() == b""


castagnoli = FrameEncoder(MIB, Crc32Variant.CASTAGNOLI).encode(success().SerializeToString())


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"", PeerClosedError, "the peer closed the connection; it may be over .*compare crc32_variant"),
        (frame(success())[:-1], TruncatedFrameError, "4 of 5 bytes of payload came"),
        (b"\xff" * 8, FrameTooLargeError, f"4294967295 bytes is too large, the limit .* is {MIB}"),
        (castagnoli, ChecksumMismatchError, "the peer uses the castagnoli variant"),
        (
            bytes.fromhex("040000007fc95c840a02fffe"),
            UndecodableMessageError,
            "does not decode as .*DetectionResult",
        ),
        (frame(success("other")), ResponseMismatchError, "has task_id 'other', the request had 't'"),
        (
            frame(DetectionResult(error_message="protocol violation: x")),
            ResponseMismatchError,
            "the peer says: 'protocol violation: x'",
        ),
    ],
)
async def test_an_answer_that_cannot_be_trusted_is_a_precise_error_and_breaks_the_client(
    half_closing_ends: Ends, answer: bytes, error: type[Exception], said: str
) -> None:
    far, near = half_closing_ends.raw(CONFIG)
    client = client_over(near)
    await far.send_all(answer)
    await far.send_eof()
    with pytest.raises(error, match=f"^memory: .*{said}"):
        await client.call(task())
    await expect_broken_by(client, error)
    assert sum(client.snapshot().calls_failed.values()) == 3


async def test_a_server_that_closes_later_is_probably_stopping_or_tired_of_waiting(
    half_closing_ends: Ends,
) -> None:
    far, near = half_closing_ends.raw(CONFIG)
    client = client_over(near)
    await far.send_all(frame(success()))
    assert await client.call(task()) == success()
    await far.send_eof()
    with pytest.raises(PeerClosedError, match="it may be stopping or gone, or this client was idle"):
        await client.call(task())


async def test_a_peers_own_words_are_cut_and_made_harmless(ends: Ends) -> None:
    far, near = ends.raw(CONFIG)
    await far.send_all(frame(DetectionResult(task_id="x" * 5_000, error_message="\x1b[2J\n" * 5_000)))
    with pytest.raises(ResponseMismatchError) as caught:
        await client_over(near).call(task())
    assert len(str(caught.value)) < 5_000
    assert str(caught.value).isprintable()


async def test_a_turn_that_comes_with_a_cancellation_breaks_nothing(ends: Ends) -> None:
    far, near = ends.raw(CONFIG)
    client = client_over(near)
    second_scope = trio.CancelScope()

    async def first() -> None:
        await client.call(task("first"))
        second_scope.cancel()  # the lock is handed over, but its new holder has not run

    async def second() -> None:
        with second_scope:
            await client.call(task("second"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        await far.send_all(frame(success("first")))
    assert second_scope.cancelled_caught
    await far.send_all(frame(success("third")))
    assert await client.call(task("third")) == success("third")
    assert await far.receive_some() == frame(task("first")) + frame(task("third"))


@unix_only
async def test_a_server_that_dies_in_mid_answer_is_told_from_one_that_closed(config: IpcConfig) -> None:
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(config.endpoint_path)
        server.listen()
        async with open_client(config) as client:
            served, _ = server.accept()
            served.sendall(frame(success())[:10])
            served.close()
            with pytest.raises((TruncatedFrameError, PeerClosedError)):
                await client.call(task())


async def test_a_closed_client_says_so(config: IpcConfig) -> None:
    async with serving(succeed, config), open_client(config) as client:
        await client.aclose()
        with pytest.raises(ChannelClosedError, match="this client was closed; open a new one"):
            await client.call(task())


async def test_closing_wakes_the_call_in_progress(config: IpcConfig) -> None:
    async with serving(hang, config), open_client(config) as client:

        async def call() -> None:
            with pytest.raises(ChannelClosedError, match="this connection was closed"):
                await client.call(task())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()
        with pytest.raises(ChannelClosedError, match="this client was closed; open a new one"):
            await client.call(task())


# --- A server that says why it closes -------------------------------------------------


async def test_a_request_too_large_for_the_server_is_answered_by_its_reason(config: IpcConfig) -> None:
    """The server judges the header and closes while the client still sends."""
    async with serving(succeed, config.replace(max_frame_bytes=1_000)), open_client(config) as client:
        with pytest.raises(PeerClosedError, match="it said: .*too large, the limit max_frame_bytes is 1000"):
            await client.call(DetectionTask(task_id="x" * (MIB - 100)))
        await expect_broken_by(client, PeerClosedError)


async def test_a_servers_last_words_cannot_steer_a_terminal(ends: Ends) -> None:
    far, near = ends.raw(CONFIG)
    client = client_over(near)
    await far.send_all(frame(DetectionResult(error_message=UNPRINTABLE)))
    await far.aclose()
    with pytest.raises(PeerClosedError, match="it said: error_message: ") as raised:
        await client.call(task())
    assert str(raised.value).isprintable()
    assert r"[31m\u202eé\n" in str(raised.value)


async def test_a_request_a_little_too_large_is_answered_by_the_reason_too(config: IpcConfig) -> None:
    async with serving(succeed, config.replace(max_frame_bytes=100)), open_client(config) as client:
        with pytest.raises(ResponseMismatchError, match="the peer says: 'protocol violation: a frame of 2"):
            await client.call(DetectionTask(task_id="x" * 200))


async def test_a_server_over_its_limit_closes_and_the_client_sees_that(config: IpcConfig) -> None:
    crowded = config.replace(max_connections=1, accept_timeout_ms=1)
    async with serving(succeed, crowded), open_client(config) as first:
        await first.call(task())
        async with open_client(config) as second:
            with pytest.raises(PeerClosedError, match="over its connection limit"):
                await second.call(task())


# --- Connecting -------------------------------------------------------------------------


@unix_only
async def test_no_server_and_a_dead_one_are_told_apart(config: IpcConfig) -> None:
    with pytest.raises(ServerNotFoundError):
        async with open_client(config):
            raise AssertionError("unreachable")
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(config.endpoint_path)
    with pytest.raises(ServerRefusedError):
        async with open_client(config):
            raise AssertionError("unreachable")


@unix_only
async def test_connecting_has_a_deadline(config: IpcConfig, autojump_clock: MockClock) -> None:
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(config.endpoint_path)
        server.listen(0)
        async with open_client(config):
            with pytest.raises(
                ConnectTimeoutError, match="did not take the connection.*accept_timeout_ms is 5000"
            ):
                async with open_client(config):
                    raise AssertionError("unreachable")
    assert trio.current_time() == pytest.approx(5)


async def test_the_client_checks_the_server_too(config: IpcConfig) -> None:
    async with serving(succeed, config):
        with pytest.raises(
            PeerNotAllowedError, match=f"not trusted .process {os.getpid()}.*allowed is user 54321"
        ):
            async with open_client(config, peers=PeerPolicy.users([54321])):
                raise AssertionError("unreachable")


async def test_a_policy_that_is_none_is_refused_before_anything_happens(config: IpcConfig) -> None:
    with pytest.raises(TypeError, match="peers is a set, must be a PeerPolicy"):
        async with open_client(config, peers={0}):  # type: ignore[call-overload]
            raise AssertionError("unreachable")


async def test_an_error_of_the_block_comes_out_as_it_is(config: IpcConfig) -> None:
    async with serving(succeed, config):
        with pytest.raises(ZeroDivisionError):
            async with open_client(config):
                raise ZeroDivisionError


async def test_the_client_knows_where_it_leads_and_to_whom(config: IpcConfig) -> None:
    async with serving(succeed, config), open_client(config) as client:
        assert (client.endpoint, client.peer) == (config.endpoint_path, ME)
        assert client.snapshot().transport == config.transport


async def test_a_memory_endpoint_serves_clients_without_a_file() -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(succeed, endpoint):
        assert await endpoint.client().call(task()) == success()
