"""The agent from outside, as a user meets it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable

import pytest
import trio

from tests.platforms import fails_under_wine, unix_only, without_names
from trio_ipc.transports.host import STOP_SIGNALS

from .support import (
    Program,
    agent,
    blocked_child,
    collector_at,
    fails_with_one_line,
    once,
    procmond,
    sha256_of,
    spawn,
)

TINY_FRAMES = {"TRIO_IPC_MAX_FRAME_BYTES": "4096"}


# --- the agent ----------------------------------------------------------------------------------------------


@without_names
async def test_the_agent_sees_this_process_and_its_hash(endpoint: str) -> None:
    async with collector_at(endpoint):
        document = await once(endpoint, "--hash")
    own = next(record for record in document["processes"] if record["pid"] == os.getpid())
    assert own["executable_hash"] == sha256_of(sys.executable)
    assert document["skipped"] == []


async def test_the_agents_documents_say_by_which_transport_and_how_long_it_took(endpoint: str) -> None:
    async with collector_at(endpoint):
        told = (await once(endpoint))["telemetry"]
    assert (told["transport"], told["tasks_completed_total"]) == ("interprocess", 1)
    assert told["average_task_duration_ms"] == told["task_duration_ms_total"] > 0


async def test_names_and_pids_narrow_what_the_agent_asks_for(endpoint: str) -> None:
    own = str(os.getpid())
    async with collector_at(endpoint) as collector:
        two = await once(endpoint, "--pid", own, "--pid", str(collector.pid), "1")
        assert {str(record["pid"]) for record in two["processes"]} >= {own, str(collector.pid)}
        none = await once(endpoint, "--pid", own, "--name", "no such name", "nor this")
        assert none["processes"] == []


async def test_any_of_several_collectors_answers_and_is_named(
    endpoint_called: Callable[[str], str],
) -> None:
    here, there = endpoint_called("a"), endpoint_called("b")
    both = {here, there}
    more = ["--endpoint", there, "--json", "--interval", "0.05"]
    async with (
        collector_at(here) as first,
        collector_at(there) as second,
        spawn(*agent(here, *more)) as program,
    ):
        seen: set[str] = set()
        while seen != both:
            seen |= set(json.loads(await program.stdout.next() or "null")["collectors"])
        first.process.kill()
        await first.process.wait()
        async with blocked_child() as child:
            await changes_until(program, "appeared", child.pid)
        document = json.loads(await program.stdout.next() or "null")
        assert document["collectors"] == [there]
        assert second.process.returncode is None
        await program.signal(STOP_SIGNALS[-1])
        assert await program.end() == 0
        assert program.stderr.seen == [], "nobody noticed"


@pytest.mark.parametrize("strategy", ["round-robin", "weighted", "priority"])
async def test_the_table_says_who_answered(endpoint_called: Callable[[str], str], strategy: str) -> None:
    here, nowhere = endpoint_called("s"), endpoint_called("nobody")
    command = agent(here, "--once", "--strategy", strategy, "--endpoint", nowhere)
    async with collector_at(here), spawn(*command) as program:
        assert await program.end() == 0, program.stderr.seen
        assert f"answered by {here}" in program.stdout.seen


async def test_the_table_in_a_pipe_names_processes_and_the_active_transport(endpoint: str) -> None:
    async with (
        collector_at(endpoint),
        spawn(*agent(endpoint, "--once", "--pid", str(os.getpid()))) as program,
    ):
        assert await program.end() == 0
        output = "\n".join(program.stdout.seen)
        assert "Executable" in output
        assert str(os.getpid()) in output
        assert "\x1b" not in output
        assert "1 of 1 processes" in output
        told = program.stdout.seen[-1].split()
        assert told[:2] == ["asked:", "transport=interprocess"]
        assert "tasks_completed_total=1" in told
        assert any(part.startswith("average_task_duration_ms=") for part in told)


async def test_without_a_utf8_terminal_the_table_is_still_shown(endpoint: str) -> None:
    async with (
        collector_at(endpoint),
        spawn(*agent(endpoint, "--once"), environ={"PYTHONIOENCODING": "ascii"}) as program,
    ):
        assert await program.end() == 0
        assert program.stderr.seen == []


async def test_results_that_are_too_large_are_asked_for_in_pages(endpoint: str) -> None:
    async with (
        collector_at(endpoint, environ=TINY_FRAMES) as collector,
        blocked_child("x" * 5000) as large,
    ):
        document = await once(endpoint, environ=TINY_FRAMES)
        found = {record["pid"] for record in document["processes"]}
        assert {os.getpid(), collector.pid} <= found
        assert large.pid in document["skipped"], "its record alone is larger than a frame"
        assert large.pid not in found
        assert all(record["collection_time"] for record in document["processes"]), "whole records"


@fails_under_wine("has so few processes that their list fits", versions=[8])
async def test_a_list_of_pids_that_is_too_large_is_one_line(endpoint: str) -> None:
    # 150 bytes hold the failure that says so, but no list of a machine's pids.
    tiny = {"TRIO_IPC_MAX_FRAME_BYTES": "150"}
    async with collector_at(endpoint, environ=tiny):
        line = await fails_with_one_line(agent(endpoint, "--once"), tiny)
        assert "even the list of pids is too large" in line
        assert "max_frame_bytes" in line


@pytest.mark.parametrize("mode", [["--once"], ["--once", "--json"], ["--interval", "1"]])
async def test_no_collector_is_one_line(endpoint: str, mode: list[str]) -> None:
    line = await fails_with_one_line(agent(endpoint, *mode))
    assert line.startswith(f"agent: {endpoint}: ")


@unix_only
async def test_a_socket_where_nobody_listens_is_one_line(endpoint: str) -> None:
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(endpoint))
    line = await fails_with_one_line(agent(endpoint, "--once"))
    assert line.startswith(f"agent: {endpoint}: ")


@unix_only
@pytest.mark.skipif(
    sys.platform != "win32" and os.geteuid() != 0, reason="takes root: it becomes another user"
)
async def test_a_server_of_another_user_is_one_line(endpoint: str) -> None:
    # The system tells a client who called listen(2).
    code = (
        "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
        "os.setuid(12345); s.listen(); print('ready', flush=True); time.sleep(60)"
    )
    async with spawn(sys.executable, "-c", code, endpoint) as stranger:
        assert await stranger.stdout.next() == "ready"
        line = await fails_with_one_line(agent(endpoint, "--once"))
        assert line.startswith(
            f"agent: {endpoint}: the server is not trusted (process {stranger.pid}, uid 12345"
        )


async def test_one_collector_named_twice_is_a_mistake_that_is_told(endpoint: str) -> None:
    async with spawn(*agent(endpoint, "--endpoint", endpoint)) as program:
        assert await program.end() == 1
        (line,) = program.stderr.seen
        assert line.startswith("agent: --endpoint ")
        assert line.endswith(" is given 2 times; name each collector once")


@pytest.mark.parametrize(
    "options",
    [
        ["--pid", "abc"],
        ["--pid", "-1"],
        ["--pid", str(2**32)],
        ["--interval", "0"],
        ["--interval", "nan"],
        ["--interval", "soon"],
        ["--limit", "0"],
        ["--limit", "few"],
        ["--strategy", "best"],
    ],
)
async def test_a_wrong_option_is_refused_without_a_traceback(endpoint: str, options: list[str]) -> None:
    async with spawn(*agent(endpoint, *options)) as program:
        assert await program.end() == 2, program.stderr.seen
        assert options[0] in program.stderr.seen[-1]
        assert (
            f"{options[1]} is no " in program.stderr.seen[-1] or "invalid choice" in program.stderr.seen[-1]
        )
        assert not any("Traceback" in line for line in program.stderr.seen)


async def changes_until(program: Program, what: str, pid: int) -> None:
    """Read documents until one reports this about a process."""
    while True:
        document = json.loads(await program.stdout.next() or "null")
        if pid in {record["pid"] for record in document["changes"][what]}:
            return


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_the_agent_reports_what_appears_and_vanishes_until_a_signal(endpoint: str, number: int) -> None:
    async with (
        collector_at(endpoint),
        spawn(*agent(endpoint, "--json", "--interval", "0.05")) as program,
    ):
        first = json.loads(await program.stdout.next() or "null")
        assert first["cycle"] == 1
        async with blocked_child() as child:
            await changes_until(program, "appeared", child.pid)
        await changes_until(program, "vanished", child.pid)
        await program.signal(number)
        assert await program.end() == 0
        assert program.stderr.seen == []


async def test_the_agent_goes_on_when_the_collector_comes_back(endpoint: str) -> None:
    async with spawn(*procmond(endpoint)) as first:
        await first.stdout.next()
        async with spawn(*agent(endpoint, "--json", "--interval", "0.05")) as program:
            await program.stdout.next()
            await first.signal(STOP_SIGNALS[-1])
            assert await first.end() == 0
            assert (await program.complaint() or "").startswith(f"agent: {endpoint}: ")
            async with trio.open_nursery() as nursery:
                # It complains each time until the collector is back, and would wait once that pipe is full.
                nursery.start_soon(program.stderr.rest)
                async with collector_at(endpoint) as second:
                    await changes_until(program, "appeared", second.pid)
                nursery.cancel_scope.cancel()
            await program.signal(STOP_SIGNALS[-1])
            assert await program.end() == 0
            assert not any("Traceback" in line for line in program.stderr.seen)


async def test_a_reader_that_has_seen_enough_is_no_error(endpoint: str) -> None:
    for mode in ["--json"], ["--limit", "3"]:
        async with (
            collector_at(endpoint),
            spawn(*agent(endpoint, "--interval", "0.05", *mode)) as program,
        ):
            await program.stdout.next()
            await program.stdout.close()
            async with blocked_child():  # something to report in table mode
                assert await program.stderr.rest() == []
                assert await program.process.wait() == 0
