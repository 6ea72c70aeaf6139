"""Handlers in an event loop: what is put around them, and tasks that a loop makes in its own way."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
import weakref
from typing import Any

import pytest

from tests.adapters import DEADLINE, program
from tests.platforms import exists
from tests.support import success, task
from trio_ipc import Call, IpcConfig, authorized, logged, timed
from trio_ipc.aio import open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .support import run


async def handle(request: DetectionTask, _: Call) -> DetectionResult:
    if request.task_id == "hang":
        await asyncio.Event().wait()
    if request.task_id == "wrong":
        raise ValueError("no such process")
    await asyncio.sleep(0.001)
    return success(request.task_id)


# --- What is put around a handler ---------------------------------------------------------------------------


def test_a_handler_in_the_event_loop_can_be_timed(config: IpcConfig) -> None:
    seconds: list[float] = []

    async def main() -> None:
        async with serve(timed(handle, seconds.append), DETECTION, config):
            async with open_client(DETECTION, config) as client:
                assert await client.call(task("1")) == success("1")
                assert "no such process" in (await client.call(task("wrong"))).error_message

    run(main)
    assert len(seconds) == 2
    assert 0.001 <= seconds[0] < DEADLINE
    assert 0 <= seconds[1] < DEADLINE


def test_a_handler_in_the_event_loop_can_be_authorized_timed_and_logged(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = list[float]()
    allowed = authorized(handle, DETECTION, lambda request, _: request.task_id != "bad")

    async def main() -> None:
        handler = logged(timed(allowed, seconds.append), "ask")
        async with serve(handler, DETECTION, config), open_client(DETECTION, config) as client:
            assert await client.call(task("1")) == success("1")
            assert "not allowed" in (await client.call(task("bad"))).error_message
            await client.call(task("wrong"))
        hasty = config.replace(handler_timeout_ms=50)  # too little for a response, where a machine is slow
        async with serve(handler, DETECTION, hasty), open_client(DETECTION, config) as client:
            assert "ran out of time" in (await client.call(task("hang"))).error_message

    caplog.set_level(logging.INFO, "trio_ipc.server")
    run(main)
    assert len(seconds) == 4
    assert 0 <= seconds[0] < DEADLINE
    said = [
        line.getMessage() for line in caplog.records if line.getMessage().startswith("ask of connection 1")
    ]
    assert [line.partition(" after ")[0].rpartition(": ")[2] for line in said] == [
        "answered",
        "answered",
        "failed (ValueError)",
        "cancelled",
    ]


# --- Handlers that are cancelled by something else ----------------------------------------------------------


async def be_cancelled(words: tuple[str, ...]) -> None:
    raise asyncio.CancelledError(*words)


@pytest.mark.parametrize("words", [("its group ended",), ()])
def test_a_handler_that_is_cancelled_by_something_else_says_by_what_and_where(
    config: IpcConfig, caplog: pytest.LogCaptureFixture, words: tuple[str, ...]
) -> None:
    async def handle(_request: DetectionTask, _: Call) -> DetectionResult:
        await be_cancelled(words)
        return success()

    async def main() -> None:
        async with serve(handle, DETECTION, config), open_client(DETECTION, config) as client:
            said = (await client.call(task())).error_message
            assert said.endswith(": ".join(["the handler was cancelled, though its time was not up", *words]))

    run(main)
    [line] = [record for record in caplog.records if record.exc_info]
    assert line.exc_info is not None
    text = "".join(traceback.format_exception(line.exc_info[1]))
    assert "in be_cancelled" in text, "where it was raised"
    assert ": ".join(["asyncio.exceptions.CancelledError", *words]) in text


def test_the_request_of_a_cancelled_handler_is_let_go_at_once(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised knows it by its traceback, and must not wait for the garbage collector."""

    class Held:
        """Lives as long as the frame of the handler that has it."""

    held = list[weakref.ref[Held]]()

    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "next":
            return success("next")
        mine = Held()
        held.append(weakref.ref(mine))
        raise asyncio.CancelledError("its group ended")

    monkeypatch.setattr(logging.getLogger("trio_ipc.server"), "disabled", True)  # pytest keeps the records

    async def main() -> None:
        async with serve(handle, DETECTION, config), open_client(DETECTION, config) as client:
            gc.disable()
            try:
                assert "its group ended" in (await client.call(task("1"))).error_message
                assert await client.call(task("next")) == success("next"), "the first is done with"
                assert held[0]() is None
            finally:
                gc.enable()

    run(main)


# --- Tasks of another kind ----------------------------------------------------------------------------------

#: Begins a task where it is made; None before Python 3.12.
EAGER: Any = getattr(asyncio, "eager_task_factory", None)

WITH_EAGER_TASKS = pytest.mark.skipif(EAGER is None, reason="asyncio's eager tasks came with Python 3.12")


def loop_of(factory: Any) -> Any:
    """What makes event loops whose tasks this factory makes."""

    def make() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(factory)
        return loop

    return make


@WITH_EAGER_TASKS
@pytest.mark.parametrize("max_in_flight", [1, 64])
def test_tasks_may_be_eager(config: IpcConfig, max_in_flight: int) -> None:
    async def at_once(request: DetectionTask, _: Call) -> DetectionResult:
        return success(request.task_id)

    async def main() -> None:
        for handler in (at_once, handle):
            async with serve(handler, DETECTION, config):
                async with open_client(DETECTION, config, max_in_flight=max_in_flight) as client:
                    async with asyncio.TaskGroup() as group:
                        calls = [group.create_task(client.call(task(str(number)))) for number in range(20)]
                    assert [call.result() for call in calls] == [success(str(number)) for number in range(20)]

    run(main, loop_of(EAGER))


def test_a_request_whose_task_cannot_be_made_is_one_failed_response(config: IpcConfig) -> None:
    refusals = 1

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal refusals
        if "_handle" in coro.__qualname__ and refusals:
            refusals -= 1
            raise RuntimeError("no more tasks")
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> None:
        async with serve(handle, DETECTION, config), open_client(DETECTION, config) as client:
            answer = await client.call(task("1"))
            assert "the handler failed: RuntimeError: no more tasks" in answer.error_message
            assert await client.call(task("2")) == success("2")

    run(main, loop_of(make))


#: Its handler ends the program where its task is made, as with eager tasks.
ENDS = """
import asyncio, sys
from trio_ipc import IpcConfig
from trio_ipc.aio import open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])

async def handle(task, call):
    raise SystemExit(3)

def make(loop, coro, **options):
    if "_handle" in coro.__qualname__:
        coro.send(None)
    return asyncio.Task(coro, loop=loop, **options)

async def main():
    factory = asyncio.eager_task_factory if sys.argv[3] == "eager" else make
    asyncio.get_running_loop().set_task_factory(factory)
    async with serve(handle, DETECTION, config), open_client(DETECTION, config) as client:
        await client.call(DetectionTask(task_id="1"))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", [pytest.param("eager", marks=WITH_EAGER_TASKS), "own"])
def test_a_handler_may_end_the_program_where_its_task_is_made(
    config: IpcConfig, directory: str, kind: str
) -> None:
    arguments = (config.endpoint_path, str(config.transport), kind)
    with program(ENDS, *arguments, directory=directory) as server:
        status, _, _ = server.end()
    assert status == 3
    assert not exists(config.endpoint_path)
