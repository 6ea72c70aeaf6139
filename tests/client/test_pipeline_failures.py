"""A pipeline whose connection fails."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.client.pipelines import CONFIG, line, line_to_its_end
from tests.support import ME, MIB, frame, success, task
from trio_ipc import (
    ChannelClosedError,
    ChecksumMismatchError,
    FramedChannel,
    MessageEmptyError,
    MessageTooLargeError,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    WriteTimeoutError,
)
from trio_ipc.client.pipeline import Pipeline
from trio_ipc.daemoneye import DETECTION, DetectionTask, failed
from trio_ipc.testing import MemoryStream, memory_streams


async def test_a_server_that_does_not_answer_fails_all_who_wait(autojump_clock: MockClock) -> None:
    async with line() as subject:
        subject.call("1", "2")
        await trio.sleep(29)
        assert not subject.answers
        await trio.sleep(2)
        assert isinstance(subject.error("1"), ReadTimeoutError)
        assert isinstance(subject.error("2"), ReadTimeoutError)
        assert subject.error("1") is not subject.error("2"), "each has a traceback of its own"
        assert sorted(name for name, _ in subject.done) == ["1", "2"]
        assert subject.pipeline.is_broken
        assert not subject.pipeline.is_reusable()
        subject.call("3")
        await wait_all_tasks_blocked()
        assert "this connection was broken by an earlier call: timed out" in str(subject.error("3"))
        assert subject.done[-1] == ("3", subject.error("3"))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (frame(success("other")), ResponseMismatchError),
        (frame(success("2")), ResponseMismatchError),  # a neighbour's, too early
        (b"\x04\x00\x00\x00\x00\x00\x00\x00oops", ChecksumMismatchError),
    ],
)
async def test_a_response_that_cannot_be_trusted_ends_all_and_only_the_first_gets_its_name(
    answer: bytes, kind: type[Exception]
) -> None:
    async with line() as subject:
        for name in "12":
            subject.call(name)
            await wait_all_tasks_blocked()
        await subject.server.send_all(answer + frame(success("2")))
        await wait_all_tasks_blocked()
        assert isinstance(subject.error("1"), kind)
        neighbour = subject.error("2")
        assert isinstance(neighbour, ChannelClosedError)
        assert "a response ahead of this one could not be trusted" in str(neighbour)
        assert neighbour.__cause__ is subject.error("1")
        assert await subject.server.receive_some() != b""
        assert await subject.server.receive_some() == b"", "the connection is closed"


async def test_the_end_of_the_connection_fails_those_who_have_no_response() -> None:
    async with line() as subject:
        for name in "12":
            subject.call(name)
            await wait_all_tasks_blocked()
        await subject.server.send_all(frame(success("1")))
        await subject.server.aclose()
        await wait_all_tasks_blocked()
        assert subject.answers["1"] == success("1")
        assert isinstance(subject.error("2"), PeerClosedError)


async def test_what_a_server_said_before_it_closed_is_heard_though_writing_fails() -> None:
    async with line() as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        assert isinstance(subject.server, MemoryStream)
        subject.server.write(frame(success("1")) + frame(failed(None, "protocol violation: x")))
        subject.server.close()
        subject.call("2")
        await wait_all_tasks_blocked()
        assert subject.answers["1"] == success("1")
        said = 'the server had closed the connection; it said: error_message: "protocol violation: x"'
        assert said in str(subject.error("2"))


async def test_a_response_that_stops_half_way_fails_all_who_wait_also_to_be_written(
    autojump_clock: MockClock,
) -> None:
    """The reader closes the channel under the writer, and its error is the one that counts."""
    async with line_to_its_end(trio.testing.lockstep_stream_pair()) as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        assert await subject.received() == ["1"]
        await subject.server.send_all(frame(success("1"))[:5])
        await trio.sleep(25)
        subject.call("2")  # nobody reads it: it is being written when the time is up
    assert trio.current_time() == pytest.approx(30)
    assert isinstance(subject.error("1"), ReadTimeoutError)
    assert isinstance(subject.error("2"), ReadTimeoutError)


async def test_a_server_that_does_not_read_fails_all_who_wait(autojump_clock: MockClock) -> None:
    async with line_to_its_end(trio.testing.lockstep_stream_pair()) as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        subject.call("2")
    assert trio.current_time() == pytest.approx(10)
    assert isinstance(subject.error("1"), WriteTimeoutError)
    assert isinstance(subject.error("2"), WriteTimeoutError)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [(DetectionTask(), MessageEmptyError), (task("x" * MIB), MessageTooLargeError)],
)
async def test_a_request_that_cannot_be_sent_is_its_callers_alone(
    request_: DetectionTask, kind: type[Exception]
) -> None:
    async with line() as subject:
        subject.call("1")
        with pytest.raises(kind, match="^memory: "):
            await subject.pipeline.call(request_)
        subject.call("2")
        await wait_all_tasks_blocked()
        await subject.answer(*await subject.received())
        assert subject.answers == {"1": success("1"), "2": success("2")}


async def test_closing_ends_who_waits_and_a_cancelled_run_closes() -> None:
    async with line() as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        await subject.pipeline.aclose()
        await wait_all_tasks_blocked()
        assert isinstance(subject.error("1"), ChannelClosedError)
    near, far = memory_streams()
    pipeline = Pipeline(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION)
    with trio.CancelScope() as scope:
        scope.cancel()
        await pipeline.run()
    assert await far.receive_some() == b""
