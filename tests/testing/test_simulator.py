"""A simulated collector does to clients what its script says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support import frame, success, task
from trio_ipc import (
    RESPONSE_TOO_LARGE,
    Call,
    ChecksumMismatchError,
    Client,
    Contract,
    FrameTooLargeError,
    IpcError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    ResponseMismatchError,
    TruncatedFrameError,
    UndecodableMessageError,
    UnsolicitedResponseError,
)
from trio_ipc.daemoneye import (
    DETECTION,
    DetectionResult,
    DetectionTask,
    HashCheck,
    HashResult,
)
from trio_ipc.testing import (
    Behaviour,
    Reply,
    answer,
    bad_checksum,
    close_instead,
    close_mid_frame,
    drip,
    fail,
    garbage,
    hang,
    open_client_at,
    simulate_collector,
    simulate_server,
    slow,
    too_large,
    undecodable,
    unsolicited_response,
    wrong_task_id,
)
from trio_ipc.testing.pair import an_endpoint


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (hang(), ReadTimeoutError),
        (slow(100), ReadTimeoutError),
        (drip(20), ReadTimeoutError),
        (wrong_task_id(), ResponseMismatchError),
        (garbage(), ProtocolError),
        (garbage(bytes(8)), ProtocolError),
        (bad_checksum(), ChecksumMismatchError),
        (too_large(), FrameTooLargeError),
        (undecodable(), UndecodableMessageError),
        (close_instead(), PeerClosedError),
        (close_mid_frame(), TruncatedFrameError),
        (close_mid_frame(3), TruncatedFrameError),
        (close_mid_frame(0), PeerClosedError),
    ],
    ids=lambda value: getattr(value, "__qualname__", str(value)).partition(".")[0],
)
async def test_each_behaviour_is_the_error_that_it_should_be_and_the_next_task_is_answered(
    behaviour: Behaviour, error: type[IpcError], autojump_clock: trio.testing.MockClock
) -> None:
    async with simulate_collector(behaviour) as collector:
        async with open_client_at(DETECTION, collector.endpoint) as client:
            with pytest.raises(error):
                await client.call(task("1"))
        async with open_client_at(DETECTION, collector.endpoint) as client:
            assert await client.call(task("2")) == success("2")
        assert [one.task_id for one in collector.asked] == ["1", "2"]
        assert collector.connections == 2


async def test_slowness_within_the_deadline_is_a_response(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        simulate_collector(slow(20), drip(0.1, 2), slow(1, fail("late and failed"))) as collector,
        open_client_at(DETECTION, collector.endpoint) as client,
    ):
        began = trio.current_time()
        assert await client.call(task()) == success()
        assert trio.current_time() - began == pytest.approx(20)
        assert await client.call(task()) == success()
        assert (await client.call(task())).error_message == "late and failed"


async def test_a_response_that_nobody_asked_for_spoils_the_connection() -> None:
    async with (
        simulate_collector(unsolicited_response()) as collector,
        open_client_at(DETECTION, collector.endpoint) as client,
    ):
        assert await client.call(task("1")) == success("1")
        assert not client.is_reusable()
        with pytest.raises(UnsolicitedResponseError):
            await client.call(task("2"))


async def test_after_its_script_it_does_what_is_its_default() -> None:
    async def find(task: DetectionTask, _call: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=True, error_message="found")

    async with (
        simulate_collector(fail("first"), handler=find) as collector,
        open_client_at(DETECTION, collector.endpoint) as client,
    ):
        said = [(await client.call(task())).error_message for _ in range(2)]
        collector.default = fail("from now on")
        collector.script(fail("once"))
        said += [(await client.call(task())).error_message for _ in range(2)]
        assert said == ["first", "found", "once", "from now on"]


async def test_a_behaviour_of_ones_own_may_send_any_bytes() -> None:
    async def answer_in_two_pieces(task: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        whole = reply.frame(success(task.task_id))
        await reply.send_bytes(whole[:5])
        await trio.testing.wait_all_tasks_blocked()
        await reply.send_bytes(whole[5:])

    async with (
        simulate_collector(answer_in_two_pieces) as collector,
        open_client_at(DETECTION, collector.endpoint) as client,
    ):
        assert await client.call(task()) == success()


# --- What fails, and whom it fails --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("in the test's own code"),
        AssertionError("in the test's own code"),
        trio.BrokenResourceError("in the test's own code"),
        trio.ClosedResourceError("in the test's own code"),
        ProtocolError("in the test's own code"),
        PeerClosedError("in the test's own code"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_behaviour_that_fails_is_the_tests_failure(error: Exception) -> None:
    async def broken(_task: DetectionTask, _reply: Reply[DetectionTask, DetectionResult]) -> None:
        raise error

    with pytest.raises(type(error), match="own code") as caught:
        async with (
            simulate_collector(broken) as collector,
            open_client_at(DETECTION, collector.endpoint) as client,
        ):
            await client.call(task())
    assert caught.value is error


async def test_what_the_test_makes_of_a_behaviours_failure_is_told_with_it() -> None:
    async def broken(_task: DetectionTask, _reply: Reply[DetectionTask, DetectionResult]) -> None:
        raise ZeroDivisionError("in the test's own code")

    async def call_and_assert(client: Client[DetectionTask, DetectionResult]) -> None:
        with trio.CancelScope(shield=True):
            with pytest.raises(PeerClosedError):
                await client.call(task())
        raise AssertionError("no response")

    with pytest.raises(ZeroDivisionError) as caught:
        async with (
            simulate_collector(broken) as collector,
            open_client_at(DETECTION, collector.endpoint) as client,
        ):
            await call_and_assert(client)
    assert caught.value.__notes__ == ["afterwards failed: AssertionError: no response"]


async def test_what_a_test_asserts_is_not_replaced_by_what_fails_as_it_is_cleaned_up() -> None:
    began = trio.Event()

    async def fails_at_the_end(_: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        try:
            began.set()
            await trio.sleep_forever()
        finally:
            raise KeyError("clean-up")

    async def fails() -> None:
        async with (
            simulate_collector(fails_at_the_end) as collector,
            open_client_at(DETECTION, collector.endpoint) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(client.call, task())
            await began.wait()
            nursery.cancel_scope.cancel()
        raise AssertionError("not reached")

    async def asserts() -> None:
        async with simulate_collector(fails_at_the_end) as collector:
            stream = await collector.endpoint.connect()
            await stream.send_all(frame(task()))
            await began.wait()
            raise AssertionError("the test's own")

    with pytest.raises(KeyError, match="clean-up"):
        await fails()
    began = trio.Event()
    with pytest.raises(AssertionError, match="the test's own") as caught:
        await asserts()
    assert caught.value.__notes__ == ["afterwards failed: KeyError: 'clean-up'"]


async def test_a_client_that_leaves_while_it_is_answered_is_no_failure() -> None:
    sending = trio.Event()

    async def send_much(_: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reply.send_bytes, bytes(1024 * 1024))
            await trio.testing.wait_all_tasks_blocked()
            sending.set()

    async with simulate_collector(send_much) as collector:
        stream = await collector.endpoint.connect()
        await stream.send_all(frame(task()))
        await sending.wait()
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert collector.open_connections == 0
        async with open_client_at(DETECTION, collector.endpoint) as client:
            assert await client.call(task()) == success()


@pytest.mark.parametrize("kind", ["memory", "interprocess"])
async def test_one_that_hangs_sees_its_client_leave(kind: str) -> None:
    with an_endpoint(kind) as endpoint, trio.fail_after(10):
        async with simulate_collector(hang(), endpoint=endpoint) as collector:
            stream = await endpoint.connect()
            await stream.send_all(frame(task()))
            await collector.wait_asked(1)
            await trio.testing.wait_all_tasks_blocked()
            assert collector.open_connections == 1
            await stream.aclose()
            while collector.open_connections:  # noqa: ASYNC110 - nothing tells of that
                await trio.sleep(0.001)


async def test_a_script_that_was_not_used_up_can_be_asked_about_and_fails_the_block_if_wanted() -> None:
    async def call_once(*, use_all: bool) -> None:
        async with (
            simulate_collector(fail("a"), hang(), slow(1), use_all=use_all) as collector,
            open_client_at(DETECTION, collector.endpoint) as client,
        ):
            assert len(collector.unused) == 3
            await client.call(task())
            assert len(collector.unused) == 2

    await call_once(use_all=False)
    with pytest.raises(AssertionError, match="of the script, hang, slow were not used"):
        await call_once(use_all=True)
    with pytest.raises(ZeroDivisionError):
        async with simulate_collector(fail("a"), use_all=True):
            _ = 1 / 0


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (slow, (-1,), "seconds is -1"),
        (slow, ("1",), "seconds is '1'"),
        (drip, (1, 0), "size is 0"),
        (drip, (1, 1.5), "size is 1.5"),
        (close_mid_frame, (-1,), "after is -1"),
        (close_mid_frame, (True,), "after is True"),
        (garbage, (b"",), "data is empty"),
        (garbage, (memoryview(b""),), "data is empty"),
        (fail, (None,), "message is None"),
        (wrong_task_id, (3,), "task_id is 3"),
        (answer, (len,), "handler is .*, which is not async"),
        (simulate_collector, (hang,), "the script has <function hang"),
        (simulate_collector, (None,), "the script has None"),
    ],
)
async def test_what_can_only_fail_later_is_refused_at_once(
    make: Callable[..., Any], arguments: tuple[object, ...], message: str
) -> None:
    async def run() -> None:
        async with make(*arguments):
            raise AssertionError("it listened")

    with pytest.raises((ValueError, TypeError), match=message):
        await run()


@pytest.mark.parametrize("beyond", [0, 1, 1_000])
async def test_a_response_that_is_too_short_to_be_cut_there_fails_the_block(beyond: int) -> None:
    whole = 8 + len(success("t1").SerializeToString())

    async def call(after: int) -> None:
        async with simulate_collector(close_mid_frame(after)) as collector:
            async with open_client_at(DETECTION, collector.endpoint) as client:
                await client.call(task("t1"))

    with pytest.raises(ValueError, match=rf"after is {whole + beyond}, must be less than the {whole} bytes"):
        await call(whole + beyond)
    with pytest.raises(TruncatedFrameError):
        await call(whole - 1)


# --- Of any contract ----------------------------------------------------------------------------------------


async def hash_it(request: HashCheck, _call: Call) -> HashResult:
    return HashResult(file_path=request.executable_path, success=True)


def hash_failed(request: HashCheck | None, message: str) -> HashResult:
    return HashResult(file_path="" if request is None else request.executable_path, error_message=message)


HASHES = Contract(name="hashes", request_type=HashCheck, response_type=HashResult, failure=hash_failed)

ASKED = HashCheck(executable_path="/bin/true")


async def test_a_server_of_any_contract_is_simulated() -> None:
    async with simulate_server(hash_it, HASHES, fail("no disk"), bad_checksum(), answer(), drip(0)) as server:
        async with open_client_at(HASHES, server.endpoint) as client:
            assert (await client.call(ASKED)).error_message == "no disk"
            with pytest.raises(ChecksumMismatchError):
                await client.call(ASKED)
        async with open_client_at(HASHES, server.endpoint) as client:
            for _ in range(3):
                assert (await client.call(ASKED)).file_path == "/bin/true"
        assert server.asked == [ASKED] * 5


async def test_where_a_contract_has_no_failed_response_failing_is_closing() -> None:
    async with simulate_server(hash_it, attrs.evolve(HASHES, failure=None), fail("no disk")) as server:
        async with open_client_at(HASHES, server.endpoint) as client:
            with pytest.raises(PeerClosedError):
                await client.call(ASKED)


async def test_a_result_too_large_for_a_frame_fails_as_that_of_a_real_collector() -> None:
    async def find_much(task: DetectionTask, _call: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=True, error_message="x" * 5_000)

    async with (
        simulate_collector(handler=find_much, max_frame_bytes=4_096) as collector,
        open_client_at(DETECTION, collector.endpoint, collector.config) as client,
    ):
        assert (await client.call(task())).error_message.startswith(RESPONSE_TOO_LARGE)


@pytest.mark.parametrize("data", [b"\xff" * 8, frame(task())[:5], b"\3\0\0\0\0\0\0\0abc"])
async def test_a_client_that_breaks_the_protocol_is_let_go_and_others_served(data: bytes) -> None:
    async with simulate_collector() as collector:
        stream = await collector.endpoint.connect()
        await stream.send_all(data)
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        await stream.send_eof()
        assert await stream.receive_some() == b""
        async with open_client_at(DETECTION, collector.endpoint) as client:
            assert await client.call(task()) == success()
