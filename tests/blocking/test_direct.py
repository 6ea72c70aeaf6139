"""Calls that are made in their callers' own threads: what they share with all others, and what is theirs."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest.mock import Mock

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from tests.adapters import (
    DEADLINE,
    OF_DIRECT_CALLS,
    Gate,
    Held,
    check_counts,
    served,
    stop_at_the_end_of_a_wait_for_a_turn,
    until_sent_no_time_passes,
)
from tests.support import MIB, frame, success, task
from trio_ipc import (
    Call,
    CallTimeoutError,
    ChannelClosedError,
    ChecksumMismatchError,
    ClientSnapshot,
    IpcConfig,
    MessageEmptyError,
    MessageTooLargeError,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    TurnTimeoutError,
)
from trio_ipc.blocking import Client, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

pytestmark = OF_DIRECT_CALLS


def test_it_is_for_one_call_at_a_time_of_the_default_transport(config: IpcConfig) -> None:
    legacy = config.replace(endpoint_path=config.endpoint_path + "2", transport="legacy")
    auto = config.replace(crc32_variant="auto")
    with served(config), served(legacy):
        with open_client(DETECTION, config, max_in_flight=1) as client:
            assert client._direct is not None
        for settings, max_in_flight in ((config, 2), (legacy, 1), (auto, 1)):
            with open_client(DETECTION, settings, max_in_flight=max_in_flight) as client:
                assert client._direct is None
                assert client.call(task("1")) == success("1")


def test_it_does_not_wait_for_the_trio_thread(config: IpcConfig) -> None:
    with served(config), start_blocking_portal("trio") as portal:
        with open_client(DETECTION, config, max_in_flight=1, portal=portal) as client:
            with Held(portal):
                for number in range(10):
                    assert client.call(task(str(number)), timeout=DEADLINE) == success(str(number))
            check_counts(client)


def test_messages_that_do_not_come_or_go_at_once_are_whole(config: IpcConfig) -> None:
    config = config.replace(max_frame_bytes=8 * MIB)

    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=request.task_id, success=True, error_message=request.metadata * 2)

    with served(config, handle), open_client(DETECTION, config, max_in_flight=1) as client:
        for size in (1, 100, 70_000, 3 * MIB, 1):
            request = DetectionTask(task_id=str(size), metadata="x" * size)
            assert len(client.call(request, timeout=DEADLINE).error_message) == 2 * size
        answers = client.call_many([task("1"), task("2")])
        assert [answer.task_id for answer in answers] == ["1", "2"]
        check_counts(client)


def test_what_cannot_be_sent_leaves_the_client_good(config: IpcConfig) -> None:
    with served(config), open_client(DETECTION, config, max_in_flight=1) as client:
        with pytest.raises(MessageEmptyError):
            client.call(DetectionTask())
        with pytest.raises(MessageTooLargeError):
            client.call(DetectionTask(task_id="x" * 2 * MIB))
        with pytest.raises(CallTimeoutError, match="before anything was sent; the limit timeout is 0 s"):
            client.call(task(), timeout=0)
        assert client.call(task("1")) == success("1")
        check_counts(client, request_unsendable=2, call_timeout=1)


# --- Failures -----------------------------------------------------------------------------------------------


def expect_closed_by(client: Client[DetectionTask, DetectionResult], kind: type[BaseException]) -> None:
    with pytest.raises(ChannelClosedError, match="broken by an earlier call: .*open a new client") as caught:
        client.call(task())
    assert isinstance(caught.value.__cause__, kind)
    assert client.is_broken


def test_a_response_that_does_not_come_is_a_read_timeout(config: IpcConfig) -> None:
    config = config.replace(read_timeout_ms=30)
    with served(config.replace(read_timeout_ms=60_000), Gate()):
        with open_client(DETECTION, config, max_in_flight=1) as client:
            with pytest.raises(ReadTimeoutError, match="frame to begin, the limit read_timeout_ms is 30"):
                client.call(task("wait"))
            expect_closed_by(client, ReadTimeoutError)


def test_the_callers_own_limit_is_told(config: IpcConfig) -> None:
    with served(config, Gate()), open_client(DETECTION, config, max_in_flight=1) as client:
        until_sent_no_time_passes(client._direct)
        with pytest.raises(
            CallTimeoutError, match=r"waiting for the response; .* the limit timeout is 0\.02 s"
        ):
            client.call(task("wait"), timeout=0.02)
        expect_closed_by(client, CallTimeoutError)


def test_a_server_that_goes_is_told(config: IpcConfig) -> None:
    gate = Gate()
    with served(config.replace(shutdown_grace_ms=1), gate) as server, ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1) as client:
            call = thread.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
            server.stop()
            with pytest.raises(PeerClosedError):
                call.result(DEADLINE)
            expect_closed_by(client, PeerClosedError)


def test_a_server_that_refuses_half_a_request_is_heard(config: IpcConfig) -> None:
    large = config.replace(max_frame_bytes=8 * MIB)
    with (
        served(config.replace(max_frame_bytes=MIB)),
        open_client(DETECTION, large, max_in_flight=1) as client,
    ):
        with pytest.raises(PeerClosedError, match=f"too large, the limit max_frame_bytes is {MIB}"):
            client.call(DetectionTask(task_id="1", metadata="x" * 3 * MIB))
        expect_closed_by(client, PeerClosedError)


def test_a_response_to_another_request_is_refused(config: IpcConfig) -> None:
    async def handle(_: DetectionTask, __: Call) -> DetectionResult:
        return success("another")

    with served(config, handle), open_client(DETECTION, config, max_in_flight=1) as client:
        with pytest.raises(ResponseMismatchError) as caught:
            client.call(task("1"))
        assert caught.value.endpoint == config.endpoint_path
        expect_closed_by(client, ResponseMismatchError)


def test_checksums_are_looked_at(config: IpcConfig) -> None:
    def answer_wrongly() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1000)
            connection.sendall(frame(success("1"))[:-1] + b"!")
            assert connection.recv(1000) == b"", "and it closes"

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as thread:
        listener.bind(config.endpoint_path)
        listener.listen()
        serving = thread.submit(answer_wrongly)
        with open_client(DETECTION, config, max_in_flight=1) as client:
            with pytest.raises(ChecksumMismatchError) as caught:
                client.call(task("1"))
            assert caught.value.endpoint == config.endpoint_path
            serving.result(DEADLINE)
            expect_closed_by(client, ChecksumMismatchError)


def test_what_a_contract_raises_comes_out_and_closes(config: IpcConfig) -> None:
    def mismatch(_: DetectionTask, __: DetectionResult) -> str | None:
        raise ZeroDivisionError

    contract = attrs.evolve(DETECTION, mismatch=mismatch)
    with served(config), open_client(contract, config, max_in_flight=1) as client:
        with pytest.raises(ZeroDivisionError):
            client.call(task("1"))
        expect_closed_by(client, ZeroDivisionError)


def test_threads_wait_for_their_turn_no_longer_than_they_have_time(config: IpcConfig) -> None:
    gate = Gate()
    with served(config, gate) as server, ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1) as client:
            call = thread.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
            with pytest.raises(
                CallTimeoutError, match="for a turn behind other threads' calls; nothing was sent"
            ):
                client.call(task(), timeout=0.01)
            with pytest.raises(
                CallTimeoutError, match=r"turn .*; nothing was sent; the limit timeout is 0\.02 s"
            ):
                client.call_many([task(), task()], timeout=0.02)
            client._direct._channel.read_timeout = 0.01  # type: ignore[union-attr]
            with pytest.raises(TurnTimeoutError, match="the limit read_timeout_ms is 10"):
                client.call_many([task()])
            client._direct._channel.read_timeout = DEADLINE  # type: ignore[union-attr]
            server.portal.call(gate.open)
            assert call.result(DEADLINE) == success("wait")
            assert client.call(task("after")) == success("after")
            check_counts(client, call_timeout=3, turn_timeout=1)


def test_no_requests_need_no_turn(config: IpcConfig) -> None:
    gate = Gate()
    with served(config, gate) as server, ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1) as client:
            call = thread.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
            assert client.call_many([], timeout=0.01) == []
            server.portal.call(gate.open)
            assert call.result(DEADLINE) == success("wait")


def test_who_waits_for_a_turn_in_a_process_that_was_stopped_waits_on(config: IpcConfig) -> None:
    gate = Gate()
    with served(config, gate) as server, ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1) as client:
            assert client._direct is not None
            call = thread.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
            stop_at_the_end_of_a_wait_for_a_turn(client._direct, partial(server.portal.call, gate.open))
            assert client.call(task("after")) == success("after")
            assert call.result(DEADLINE) == success("wait")


def test_the_time_of_several_calls_includes_the_wait_for_their_turn(config: IpcConfig) -> None:
    with served(config, Gate()), open_client(DETECTION, config, max_in_flight=1) as client:
        assert client._direct is not None
        telemetry, turn = client._direct._telemetry, client._direct._turn
        clock = telemetry.now
        telemetry.now = lambda: clock() - DEADLINE  # so long ago, once the turn has come

        def acquire(timeout: float) -> bool:
            telemetry.now = clock
            return turn.acquire(timeout=timeout)

        client._direct._turn = Mock(acquire=acquire, release=turn.release)
        with pytest.raises(CallTimeoutError, match=r"for response 1 of 1;.* timeout is 60\.02 s"):
            client.call_many([task("wait")], timeout=DEADLINE + 0.02)


def noted_at_turns(
    client: Client[DetectionTask, DetectionResult], *, refused: int = 0
) -> list[ClientSnapshot]:
    """What a client says each time that it asks for a turn from now on; so many are refused at first."""
    assert client._direct is not None
    turn, said = client._direct._turn, list[ClientSnapshot]()

    def acquire(timeout: float) -> bool:
        said.append(client.snapshot())
        return len(said) > refused and turn.acquire(timeout=timeout)

    client._direct._turn = Mock(acquire=acquire, release=turn.release)
    return said


def test_what_waits_for_its_turn_is_in_flight(config: IpcConfig) -> None:
    with served(config), open_client(DETECTION, config, max_in_flight=1) as client:
        said = noted_at_turns(client)
        client.call(task())
        assert [(one.calls, one.calls_in_flight) for one in said] == [(1, 1)]
        check_counts(client)


def test_several_calls_that_wait_for_their_turn_are_in_flight(config: IpcConfig) -> None:
    with served(config), open_client(DETECTION, config, max_in_flight=1) as client:
        said = noted_at_turns(client, refused=1)
        assert client.call_many([task("1"), task("2")]) == [success("1"), success("2")]
        assert [(one.calls, one.calls_in_flight) for one in said] == [(0, 0), (2, 2)]
        check_counts(client)


def test_what_cannot_be_sent_is_told_before_a_turn_is_waited_for(config: IpcConfig) -> None:
    gate = Gate()
    with served(config, gate) as server, ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1) as client:
            call = thread.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
            with pytest.raises(MessageEmptyError):
                client.call_many([task("1"), DetectionTask()])
            assert client.snapshot().calls == 1, "as on Trio"
            server.portal.call(gate.open)
            assert call.result(DEADLINE) == success("wait")
