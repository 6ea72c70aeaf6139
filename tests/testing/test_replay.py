"""What was recorded is asked, or answered, again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.support import ME, frame, hang, succeed, success, task
from tests.testing.recordings import record
from trio_ipc import Call, PeerClosedError, ResponseMismatchError
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    MemoryEndpoint,
    RecordedHandler,
    Recorder,
    memory_streams,
    open_client_at,
    open_pair,
    open_server,
    read_recording,
    replay_requests,
    same_task,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recording"


async def test_a_server_that_answers_as_before_shows_no_difference(path: Path) -> None:
    recording = await record(path, "a", "b", connections=2)
    endpoint = MemoryEndpoint()
    async with open_server(succeed, DETECTION, endpoint) as server:
        connect = partial(endpoint.open_channel, endpoint.config())
        assert await replay_requests(recording, DETECTION, connect) == []
        assert server.snapshot().connections_accepted == 2
        assert server.snapshot().requests == 4


async def test_a_response_that_differs_is_told(path: Path) -> None:
    recording = await record(path, "a", "b", "c")

    async def changed(task: DetectionTask, call: Call) -> DetectionResult:
        if task.task_id == "b":
            raise ValueError("broken since")
        return await succeed(task, call)

    endpoint = MemoryEndpoint()
    async with open_server(changed, DETECTION, endpoint):
        connect = partial(endpoint.open_channel, endpoint.config())
        [difference] = await replay_requests(recording, DETECTION, connect)
        assert (difference.connection, difference.number) == (1, 2)
        assert difference.request == task("b")
        assert difference.expected == success("b")
        assert difference.got is not None
        assert "broken since" in difference.got.error_message
        assert difference.error is None
        assert await replay_requests(recording, DETECTION, connect, same=lambda *_: True) == []


async def test_a_server_that_closes_ends_that_connections_replay(path: Path) -> None:
    recording = await record(path, "a", "b")
    endpoint = MemoryEndpoint(client=attrs.evolve(ME, uid=4711, sid="S-1-5-21-1"))
    async with open_server(succeed, DETECTION, endpoint):
        connect = partial(endpoint.open_channel, endpoint.config())
        [difference] = await replay_requests(recording, DETECTION, connect)
        assert difference.got is None
        assert isinstance(difference.error, PeerClosedError)


async def test_a_request_without_a_response_then_and_now_is_no_difference(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    endpoint = MemoryEndpoint()
    patient: dict[str, Any] = {"handler_timeout_ms": 10**9, "read_timeout_ms": 100}
    with Recorder(path, DETECTION) as recorder:
        async with open_server(hang, DETECTION, endpoint, **patient):
            async with open_client_at(DETECTION, endpoint, wrap=recorder.wrap, **patient) as client:
                with trio.move_on_after(0.05):
                    await client.call(task("a"))
    recording = read_recording(path)
    [exchange] = recording.exchanges()
    assert exchange.response is None
    connect: Any = partial(endpoint.open_channel, endpoint.config(**patient))
    async with open_server(hang, DETECTION, endpoint, **patient):
        assert await replay_requests(recording, DETECTION, connect) == []
    async with open_server(succeed, DETECTION, endpoint):
        [difference] = await replay_requests(recording, DETECTION, connect)
        assert (difference.expected, difference.got) == (None, success("a"))


async def test_a_recorded_server_answers_a_client_whose_task_ids_are_new(path: Path) -> None:
    calls = 0

    async def count(task: DetectionTask, _: Call) -> DetectionResult:
        nonlocal calls
        calls += 1
        return DetectionResult(task_id=task.task_id, success=True, error_message=str(calls))

    with Recorder(path, DETECTION) as recorder:
        async with open_pair(count, DETECTION, wrap=recorder.wrap) as (client, _):
            for task_id in "a", "b":
                await client.call(DetectionTask(task_id=task_id, metadata="m"))
    handler = RecordedHandler(read_recording(path), DETECTION, answer=same_task)
    async with open_pair(handler, DETECTION) as (client, _):
        answers = [await client.call(DetectionTask(task_id=f"new {n}", metadata="m")) for n in range(3)]
        assert [answer.error_message for answer in answers] == ["1", "2", "2"]
    assert handler.unused == []


async def test_a_request_that_nobody_recorded_fails_the_test(path: Path) -> None:
    handler = RecordedHandler(await record(path, "a"), DETECTION)
    assert len(handler.unused) == 1

    async def ask() -> None:
        async with open_pair(handler, DETECTION) as (client, _):
            await client.call(task("b"))
            await trio.sleep_forever()

    with pytest.raises(AssertionError, match='answered: DetectionTask task_id: "b"'):
        await ask()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda *_: False, "returned bool, must be a DetectionResult or None"),
        (lambda new, _old, _response: new, "returned DetectionTask, must be a DetectionResult or None"),
        (lambda _new, _old: None, "failed: TypeError: .* takes 2 positional arguments but 3 were given"),
    ],
    ids=["a bool", "the request", "too few arguments"],
)
async def test_a_mistake_in_the_function_that_pairs_requests_fails_the_test(
    path: Path, answer: Any, error: str
) -> None:
    handler = RecordedHandler(await record(path, "a"), DETECTION, answer=answer)
    with pytest.raises(AssertionError, match=f"answer of a RecordedHandler {error}"):
        async with open_pair(handler, DETECTION) as (client, _):
            await client.call(task("a"))


async def test_a_response_that_nobody_asked_for_is_not_that_of_the_next_request(path: Path) -> None:
    near, far = memory_streams()
    with Recorder(path, DETECTION) as recorder:
        client = recorder.wrap(near)
        for number in "12":
            await client.send_all(frame(task(number)))
            await far.send_all(frame(success(number)) + frame(success("unasked")))
            await client.receive_some()
        await client.send_all(frame(task("3")))
    found = read_recording(path).exchanges()
    answers = [one.response and DETECTION.decode_response(one.response).task_id for one in found]
    assert answers == ["1", "2", None]


async def test_answers_to_requests_that_were_sent_ahead_are_theirs(path: Path) -> None:
    near, far = memory_streams()
    with Recorder(path, DETECTION) as recorder:
        client = recorder.wrap(near)
        await client.send_all(frame(task("1")) + frame(task("2")))
        await far.send_all(frame(success("1")))
        await client.receive_some()
        await client.send_all(frame(task("3")))
        await far.send_all(frame(success("2")) + frame(success("3")))
        await client.receive_some()
    found = [
        (
            DETECTION.decode_request(one.request).task_id,
            DETECTION.decode_response(one.response or b"").task_id,
        )
        for one in read_recording(path).exchanges()
    ]
    assert found == [("1", "1"), ("2", "2"), ("3", "3")]


async def test_under_another_contract_requests_must_be_equal(path: Path) -> None:
    contract = attrs.evolve(DETECTION, name="other")
    recording = await record(path, "a")
    async with open_pair(RecordedHandler(recording, contract), contract) as (client, _):
        assert await client.call(task("a")) == success("a")
        with pytest.raises(ResponseMismatchError):
            # A recorded response that is given to one client is not given to every other one.
            async with open_pair(
                RecordedHandler(recording, DETECTION, answer=lambda _new, _old, response: response),
                contract,
            ) as (other, _):
                await other.call(task("b"))
