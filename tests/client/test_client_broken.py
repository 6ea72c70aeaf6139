"""What breaks a client, and a server that closes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from tests.hardening.record import Attack
from tests.support import (
    MIB,
    UNPRINTABLE,
    Ends,
    frame,
    hang,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Call,
    ChannelClosedError,
    ChecksumMismatchError,
    ContractError,
    Crc32Variant,
    FrameTooLargeError,
    IpcConfig,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    TruncatedFrameError,
    UndecodableMessageError,
    WriteTimeoutError,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import memory_streams
from trio_ipc.wire import FrameEncoder

from .support import (
    BOTH_LINES,
    CONFIG,
    Then,
    answering,
    client_over,
    counts_are_whole,
    expect_broken_by,
)

# --- What breaks a client -----------------------------------------------------------------------------------


@BOTH_LINES
async def test_a_server_that_does_not_answer_is_timed_out(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    _, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        with pytest.raises(
            ReadTimeoutError, match="^memory: timed out .* the limit read_timeout_ms is 30000"
        ):
            await client.call(task())
        assert trio.current_time() == pytest.approx(30)
        await expect_broken_by(client, ReadTimeoutError)
        assert client.snapshot().calls_failed["read_timeout"] == 1


@BOTH_LINES
async def test_a_server_that_does_not_read_is_timed_out(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    async with client_over(lockstep_stream_pair()[0], max_in_flight) as client:
        with pytest.raises(WriteTimeoutError, match="^memory: .* the limit write_timeout_ms is 10000"):
            await client.call(task())
        assert trio.current_time() == pytest.approx(10)
        await expect_broken_by(client, WriteTimeoutError)
        assert client.snapshot().calls_failed["write_timeout"] == 1


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
@BOTH_LINES
async def test_a_response_that_cannot_be_trusted_is_a_precise_error_and_breaks_the_client(
    half_closing_ends: Ends, answer: bytes, error: type[Exception], said: str, max_in_flight: int
) -> None:
    far, near = half_closing_ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        async with answering(far, (answer, Then.END)):
            with pytest.raises(error, match=f"^memory: .*{said}"):
                await client.call(task())
        await expect_broken_by(client, error)


@BOTH_LINES
async def test_a_peers_own_words_are_cut_and_made_harmless(ends: Ends, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    answer = frame(DetectionResult(task_id="x" * 5_000, error_message="\x1b[2J\n" * 5_000))
    async with client_over(near, max_in_flight) as client, answering(far, answer):
        with pytest.raises(ResponseMismatchError) as caught:
            await client.call(task())
    assert len(str(caught.value)) < 5_000
    assert str(caught.value).isprintable()


@BOTH_LINES
@pytest.mark.parametrize("kind", [ZeroDivisionError, BaseException, GeneratorExit, asyncio.CancelledError])
async def test_whatever_the_contracts_own_functions_raise_comes_out_and_breaks_the_client(
    kind: type[BaseException], max_in_flight: int
) -> None:
    def fail(_request: DetectionTask, _response: DetectionResult) -> str | None:
        raise kind("mine")

    near, far = memory_streams()
    contract = attrs.evolve(DETECTION, mismatch=fail)
    async with client_over(near, max_in_flight, contract=contract) as client:
        async with answering(far, frame(success())):
            with pytest.raises(kind, match="mine"):
                await client.call(task())
        await expect_broken_by(client, kind)
        assert client.snapshot().calls_failed["other"] == 1


@BOTH_LINES
@pytest.mark.parametrize("many", [False, True])
async def test_a_mismatch_that_is_no_text_is_the_contracts_error_and_breaks_the_client(
    max_in_flight: int, many: bool, attack: Attack
) -> None:
    near, far = memory_streams()
    contract = attrs.evolve(DETECTION, name="strange", mismatch=cast(Any, lambda *_: False))
    async with client_over(near, max_in_flight, contract=contract) as client:
        async with answering(far, frame(success())):
            with pytest.raises(
                ContractError, match="mismatch of the contract strange returned bool"
            ) as caught:
                await (client.call_many([task()]) if many else client.call(task()))
        assert caught.value.endpoint == client.endpoint
        await expect_broken_by(client, ContractError)
        assert client.snapshot().calls_failed["other"] == 1
    attack(
        "a contract's `mismatch` returns a bool for a right response",
        tried=1,
        outcome="`ContractError` that names the contract; no server blamed",
    )


@BOTH_LINES
@pytest.mark.parametrize("many", [False, True])
async def test_where_the_contract_has_no_failure_the_hint_names_a_failed_handler(
    config: IpcConfig, max_in_flight: int, many: bool
) -> None:
    """Such a server closes the connection instead, and can say no word."""
    silent = attrs.evolve(DETECTION, name="silent", failure=None)

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "bad":
            raise ValueError("its bug")
        return success(request.task_id)

    said = "its handler may have failed, which its log tells: the contract silent has no failure, and so"
    async with serving(handler, config, silent):
        for before, others in (([], "connection limit or stopping"), ([task()], "may be stopping or gone")):
            async with open_client(silent, config, max_in_flight=max_in_flight) as client:
                await client.call_many(before)
                with pytest.raises(PeerClosedError, match=f"; {said} .*; or it .*{others}"):
                    await (client.call_many([task("bad")]) if many else client.call(task("bad")))


@BOTH_LINES
async def test_where_the_contract_has_a_failure_or_nothing_was_asked_the_hint_names_no_handler(
    max_in_flight: int,
) -> None:
    silent = attrs.evolve(DETECTION, name="silent", failure=None)
    near, far = memory_streams()
    async with client_over(near, max_in_flight) as client, answering(far, Then.CLOSE):
        with pytest.raises(PeerClosedError, match="over its connection limit") as caught:
            await client.call(task())
        assert "handler" not in str(caught.value)
    near, far = memory_streams()
    async with client_over(near, max_in_flight, contract=silent) as client:
        far.close()
        with pytest.raises(PeerClosedError, match="over its connection limit") as caught:
            await client.call(task())
        assert "handler" not in str(caught.value)


@BOTH_LINES
async def test_a_closed_client_says_so(ends: Ends, max_in_flight: int) -> None:
    _, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        await client.aclose()
        with pytest.raises(ChannelClosedError, match="this connection was closed; open a new"):
            await client.call(task())
        assert client.is_broken
        await client.aclose()


@BOTH_LINES
async def test_closing_ends_the_calls_in_flight_and_says_so(config: IpcConfig, max_in_flight: int) -> None:
    async with (
        serving(hang, config),
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):

        async def call() -> None:
            with pytest.raises(ChannelClosedError, match="this connection was closed; open a new"):
                await client.call(task())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
            await wait_all_tasks_blocked()
            await client.aclose()
        counts_are_whole(client)
        assert client.snapshot().calls_failed["closed"] == 5


@BOTH_LINES
async def test_the_end_of_the_block_ends_the_calls_of_other_tasks_and_closes(
    config: IpcConfig, max_in_flight: int
) -> None:
    errors: list[Exception] = []
    async with serving(hang, config) as server, trio.open_nursery() as others:
        async with open_client(DETECTION, config, max_in_flight=max_in_flight) as client:

            async def call() -> None:
                try:
                    await client.call(task())
                except ChannelClosedError as exc:
                    errors.append(exc)

            others.start_soon(call)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert len(errors) == 1
        server.stop()
        await server.wait_stopped()
        assert server.snapshot().connections_closed["peer_closed"] == 1


# --- A server that closes -----------------------------------------------------------------------------------


@BOTH_LINES
async def test_a_server_that_closes_says_how_to_go_on_by_whether_it_ever_answered(
    ends: Ends, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client, answering(far, Then.CLOSE):
        with pytest.raises(PeerClosedError, match="refuse this user.*compare crc32_variant"):
            await client.call(task())
        await expect_broken_by(client, PeerClosedError)
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client, answering(far, frame(success()), Then.CLOSE):
        await client.call(task())
        with pytest.raises(PeerClosedError, match="it may be stopping or gone, or this client was idle"):
            await client.call(task())


@BOTH_LINES
async def test_a_request_too_large_for_the_server_is_answered_by_its_reason(
    config: IpcConfig, max_in_flight: int
) -> None:
    """The server judges the header and closes while the client still sends."""
    async with (
        serving(succeed, config.replace(max_frame_bytes=1_000)),
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        with pytest.raises(PeerClosedError, match="it said: .*too large, the limit max_frame_bytes is 1000"):
            await client.call(DetectionTask(task_id="x" * (MIB - 100)))
        await expect_broken_by(client, PeerClosedError)


@BOTH_LINES
async def test_a_request_a_little_too_large_is_answered_by_the_reason_too(
    config: IpcConfig, max_in_flight: int
) -> None:
    async with (
        serving(succeed, config.replace(max_frame_bytes=100)),
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        with pytest.raises(ResponseMismatchError, match="the peer says: 'protocol violation: a frame of 2"):
            await client.call(DetectionTask(task_id="x" * 200))


@BOTH_LINES
async def test_a_servers_failed_response_cannot_steer_a_terminal(ends: Ends, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        await far.send_all(frame(DetectionResult(error_message=UNPRINTABLE)))
        await far.aclose()
        with pytest.raises(PeerClosedError, match="it said: error_message: ") as raised:
            await client.call(task())
        assert str(raised.value).isprintable()
        assert r"[31m\u202eé\n" in str(raised.value)


@BOTH_LINES
async def test_a_server_over_its_limit_closes_and_the_client_sees_that(
    config: IpcConfig, max_in_flight: int
) -> None:
    crowded = config.replace(max_connections=1, accept_timeout_ms=1)
    async with serving(succeed, crowded), open_client(DETECTION, config) as first:
        await first.call(task())
        async with open_client(DETECTION, config, max_in_flight=max_in_flight) as second:
            with pytest.raises(PeerClosedError, match="over its connection limit"):
                await second.call(task())


@BOTH_LINES
async def test_what_ends_the_program_leaves_the_block_plain(max_in_flight: int) -> None:
    """Also where it is raised in a task of the client's own."""

    def leave(_request: DetectionTask, _response: DetectionResult) -> str | None:
        raise SystemExit(7)

    near, far = memory_streams()
    with pytest.raises(SystemExit, match="7"):  # noqa: PT012 - the blocks themselves raise it
        async with client_over(
            near, max_in_flight, contract=attrs.evolve(DETECTION, mismatch=leave)
        ) as client:
            async with answering(far, frame(success())):
                await client.call(task())
