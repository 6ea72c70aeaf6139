"""The agent's own code against collectors that fail, lie and die, over real endpoints."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from examples.agent.__main__ import Agent, settings
from examples.agent.display import JsonDisplay
from examples.agent.paging import Question, enumerate_processes
from tests.examples.support import agent, spawn
from trio_ipc import AttemptsFailedError, Call, Endpoint, open_resilient_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, ProcessRecord
from trio_ipc.testing import (
    Behaviour,
    SimulatedCollector,
    bad_checksum,
    close_instead,
    close_mid_frame,
    close_on_failure,
    fail,
    garbage,
    open_client_at,
    simulate_collector,
    simulate_reference,
    temporary_endpoint,
    too_large,
    undecodable,
    wrong_task_id,
)

LIES = [
    wrong_task_id(),
    garbage(),
    bad_checksum(),
    too_large(),
    undecodable(),
    close_instead(),
    close_mid_frame(),
]


async def one_process(task: DetectionTask, _call: Call) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True, processes=[ProcessRecord(pid=7, name="init")])


@asynccontextmanager
async def collectors(count: int) -> AsyncIterator[list[SimulatedCollector]]:
    """So many collectors at endpoints of this system, each of which sees one process."""
    async with AsyncExitStack() as stack:
        endpoints = [stack.enter_context(temporary_endpoint()) for _ in range(count)]
        yield [
            await stack.enter_async_context(simulate_collector(endpoint=one, handler=one_process))
            for one in endpoints
        ]


def agent_of(*watched: SimulatedCollector) -> Agent:
    endpoints = [Endpoint(one.config, id=str(rank), priority=rank) for rank, one in enumerate(watched, 1)]
    return Agent(endpoints, settings("priority"), Question(), JsonDisplay())


def shown(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__qualname__.partition(".")[0])
async def test_a_collector_that_lies_or_dies_is_made_up_for_by_the_next(
    lie: Behaviour, capsys: pytest.CaptureFixture[str]
) -> None:
    with trio.fail_after(60):
        async with collectors(2) as (liar, honest):
            liar.script(lie)
            assert await agent_of(liar, honest).watch(None) == 0
            assert len(liar.asked) == 1
    [document] = shown(capsys)
    assert [process["pid"] for process in document["processes"]] == [7]
    assert document["collectors"] == ["2"]


async def test_a_failed_task_is_one_line_with_the_collectors_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with trio.fail_after(60):
        async with collectors(1) as (failing,):
            failing.script(fail("out of coffee"))
            assert await agent_of(failing).watch(None) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "agent: the collector failed: out of coffee\n"


async def test_the_agent_goes_on_when_a_collector_has_crashed_and_come_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors = ""
    with trio.fail_after(60):
        async with collectors(1) as (collector,), trio.open_nursery() as nursery:
            nursery.start_soon(agent_of(collector).watch, 0.01)
            await collector.wait_asked(2)
            await collector.crash()
            while not errors:
                await trio.sleep(0.01)
                errors = capsys.readouterr().err
            await collector.restart()
            await collector.wait_asked(len(collector.asked) + 2)
            nursery.cancel_scope.cancel()
    assert errors.startswith(f"agent: {collector.endpoint.path}: ")


async def test_more_records_than_a_frame_holds_come_in_pages_over_real_frames() -> None:
    async def find(task: DetectionTask, _call: Call) -> DetectionResult:
        wanted = task.process_filter.pids or range(1, 501)
        name = "" if task.metadata == "pids_only" else "n" * 50
        records = [ProcessRecord(pid=pid, name=name) for pid in wanted]
        return DetectionResult(task_id=task.task_id, success=True, processes=records)

    async with (
        simulate_collector(handler=find, max_frame_bytes=8_192) as collector,
        open_client_at(DETECTION, collector.endpoint, collector.config) as client,
    ):
        seen = await enumerate_processes(client.call, Question())
    assert [record.pid for record in seen.records] == list(range(1, 501))
    assert seen.pages > 3
    assert not seen.skipped


# --- A collector as DaemonEye's own is ----------------------------------------------------------------------

ALL = [ProcessRecord(pid=pid, name=f"p{pid}", collection_time=1) for pid in range(1, 6)]


@pytest.mark.parametrize(
    ("options", "pids", "left_out"),
    [([], [1, 2, 3, 4, 5], 0), (["--pid", "1"], [1], 4), (["--name", "p2", "p3"], [2, 3], 3)],
)
async def test_a_collector_like_the_references_gives_the_right_answer_with_defaults(
    options: list[str], pids: list[int], left_out: int
) -> None:
    with temporary_endpoint() as endpoint:
        async with (
            simulate_reference(ALL, endpoint=endpoint) as collector,
            spawn(*agent(endpoint.path, "--once", "--json", *options)) as program,
        ):
            assert await program.end() == 0, program.stderr.seen
    [line] = program.stdout.seen
    assert [process["pid"] for process in json.loads(line)["processes"]] == pids
    said = f"ignores filters: {left_out} processes that were not asked for were left out"
    assert program.stderr.seen == ([f"agent: {endpoint.path} {said}"] if left_out else [])
    assert (collector.connections, collector.negotiations, len(collector.asked)) == (2, 1, 1)


async def test_after_a_close_it_is_asked_once_in_pages() -> None:
    async def find(task: DetectionTask, _call: Call) -> DetectionResult:
        wanted = task.process_filter.pids or range(1, 301)
        name = "" if task.metadata == "pids_only" else "n" * 50
        records = [ProcessRecord(pid=pid, name=name) for pid in wanted]
        return DetectionResult(task_id=task.task_id, success=True, processes=records)

    async with simulate_collector(handler=find, max_frame_bytes=14_000) as collector:
        collector.default = close_on_failure()
        async with open_resilient_client(
            DETECTION, [Endpoint(collector.config)], settings(None), connect=collector.endpoint.open_channel
        ) as client:
            seen = await enumerate_processes(client.call, Question())
    assert [record.pid for record in seen.records] == list(range(1, 301))
    assert seen.pages > 1


async def test_a_close_that_has_another_reason_is_told_as_it_was() -> None:
    async with simulate_collector(handler=one_process) as collector:
        collector.default = close_instead()
        async with open_resilient_client(
            DETECTION, [Endpoint(collector.config)], settings(None), connect=collector.endpoint.open_channel
        ) as client:
            with pytest.raises(AttemptsFailedError, match="the peer closed the connection"):
                await enumerate_processes(client.call, Question())


async def test_records_that_came_twice_are_shown_once() -> None:
    async def ask(task: DetectionTask) -> DetectionResult:
        if not task.process_filter.pids and task.metadata != "pids_only":
            return DetectionResult(task_id=task.task_id, error_message="response too large")
        return DetectionResult(task_id=task.task_id, success=True, processes=ALL * 2)

    seen = await enumerate_processes(ask, Question())
    assert [record.pid for record in seen.records] == [1, 2, 3, 4, 5]
