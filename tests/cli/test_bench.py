"""``trio-ipc bench``: its arithmetic, and as a process in a pipe and at a terminal."""

from __future__ import annotations

import json

import pytest

from tests.cli.processes import command
from tests.platforms import unix_only
from tests.support import succeed
from trio_ipc import Call
from trio_ipc.cli.ending import Status
from trio_ipc.cli.statistics import percentile, summary
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import open_server, temporary_endpoint


@pytest.mark.parametrize(
    ("share", "time"), [(0.001, 1.0), (0.5, 50.0), (0.501, 51.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_one_of_the_times(share: float, time: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == time
    assert percentile([7.0], share) == 7.0


def test_a_summary_says_microseconds() -> None:
    said = summary([3e-6, 1e-6, 2e-6], 0.5)
    assert said == {
        "calls": 3,
        "seconds": 0.5,
        "calls_per_second": 6.0,
        "min_us": 1.0,
        "mean_us": 2.0,
        "p50_us": 2.0,
        "p90_us": 3.0,
        "p99_us": 3.0,
        "max_us": 3.0,
    }


async def test_so_many_calls_are_made_over_so_many_connections() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint) as server:
            arguments = ["--calls", "7", "--connections", "3", "--warm-up", "2", "--json"]
            run = await command("bench", endpoint.path, *arguments)
            snapshot = server.snapshot()
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    found = json.loads(run.stdout)
    assert (found["calls"], found["connections"]) == (7, 3)
    assert 0 < found["min_us"] <= found["p50_us"] <= found["p99_us"] <= found["max_us"]
    assert (snapshot.requests, snapshot.connections_accepted) == (7 + 3 * 2, 3)


async def test_the_request_may_be_given() -> None:
    asked = []

    async def note(task: DetectionTask, _: Call) -> DetectionResult:
        asked.append(task.task_id)
        return DetectionResult(task_id=task.task_id, success=True)

    with temporary_endpoint() as endpoint:
        async with open_server(note, DETECTION, endpoint):
            run = await command(
                "bench", endpoint.path, "--request", '{"task_id": "1"}', "--calls", "2", "--warm-up", "1"
            )
            assert run.returncode == Status.DONE
            assert "p99_us           " in run.stdout
            assert asked == ["1"] * 3
            run = await command("bench", endpoint.path, "--request", '{"task": "1"}')
    assert run.returncode == Status.USAGE
    assert "Invalid value for --request: it is no trio_ipc" in run.stderr


async def test_nobody_there_has_its_status() -> None:
    with temporary_endpoint() as endpoint:
        run = await command("bench", endpoint.path)
    assert (run.returncode, run.stdout) == (Status.UNREACHABLE, "")
    assert run.stderr.count("\n") == 1


@unix_only
@pytest.mark.parametrize("columns", [40, 120])
async def test_at_a_terminal_it_fits(columns: int) -> None:
    from tests.cli.terminal import at_terminal, plain

    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            status, said = await at_terminal("bench", endpoint.path, "--calls", "5", columns=columns)
    assert status == Status.DONE
    assert "calls_per_second" in plain(said)
    assert "calls            5\n" in plain(said)
