"""A client that finds out the checksum variant: what it counts, and whom it lets have their turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.resilient.support import PLAIN
from tests.support import Beside, succeed, success, task
from trio_ipc import Call, CallTimeoutError, Client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import MemoryEndpoint, open_client_at, open_server, simulate_server

CONTRACTS = pytest.mark.parametrize("contract", [DETECTION, PLAIN], ids=lambda one: one.name)
SINGLE_AND_SHARED = pytest.mark.parametrize("max_in_flight", [1, 4])
WITH_A_WORD_OR_NONE = pytest.mark.parametrize("says_why", [True, False])


@asynccontextmanager
async def client_that_connects_again(
    contract: Any, max_in_flight: int, *, says_why: bool
) -> AsyncIterator[Client[DetectionTask, DetectionResult]]:
    """A client whose server refuses the variant that is tried first, and may say why."""
    endpoint = MemoryEndpoint()
    serving: Any = open_server if says_why else simulate_server
    async with (
        serving(succeed, contract, endpoint=endpoint, crc32_variant="castagnoli"),
        open_client_at(contract, endpoint, crc32_variant="auto", max_in_flight=max_in_flight) as client,
    ):
        yield client


@CONTRACTS
@SINGLE_AND_SHARED
@WITH_A_WORD_OR_NONE
async def test_a_call_that_is_made_in_both_variants_counts_once(
    contract: Any, max_in_flight: int, says_why: bool
) -> None:
    async with client_that_connects_again(contract, max_in_flight, says_why=says_why) as client:
        assert await client.call(task()) == success()
        counted = client.snapshot()
        assert (counted.calls, counted.calls_answered, counted.calls_in_flight) == (1, 1, 0)
        assert counted.call_seconds.count == 1
        assert sum(counted.calls_failed.values()) == 0


@SINGLE_AND_SHARED
async def test_a_deadline_that_has_passed_before_the_first_call_is_nobody_elses_fault(
    max_in_flight: int,
) -> None:
    async with client_that_connects_again(PLAIN, max_in_flight, says_why=True) as client:
        with pytest.raises(CallTimeoutError, match="timed out before anything was sent"):
            await client.call(task(), timeout=0)
        with pytest.raises(CallTimeoutError, match="timed out before anything was sent"):
            await client.call_many([task()], timeout=0)
        assert await client.call(task()) == success()


@SINGLE_AND_SHARED
@WITH_A_WORD_OR_NONE
async def test_many_calls_that_are_made_in_both_variants_count_once(
    max_in_flight: int, says_why: bool
) -> None:
    async with client_that_connects_again(PLAIN, max_in_flight, says_why=says_why) as client:
        assert await client.call_many(map(task, "abc")) == list(map(success, "abc"))
        counted = client.snapshot()
        assert (counted.calls, counted.calls_answered, counted.calls_in_flight) == (3, 3, 0)
        assert sum(counted.calls_failed.values()) == 0


@SINGLE_AND_SHARED
async def test_who_waits_for_the_variant_is_in_flight_and_has_its_timeout(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    go = trio.Event()

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        await go.wait()
        return success(request.task_id)

    endpoint = MemoryEndpoint()
    async with (
        open_server(handler, PLAIN, endpoint),
        open_client_at(PLAIN, endpoint, crc32_variant="auto", max_in_flight=max_in_flight) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.call, task("1"))
        await wait_all_tasks_blocked()
        with pytest.raises(CallTimeoutError, match="finds out the server's crc32_variant; the limit .* 1 s"):
            await client.call(task("2"), timeout=1)
        nursery.start_soon(client.call_many, [task("3"), task("4")])
        await wait_all_tasks_blocked()
        counted = client.snapshot()
        assert (counted.calls, counted.calls_in_flight) == (4, 3)
        assert counted.calls_failed["call_timeout"] == 1
        go.set()


@pytest.mark.parametrize("given", [5, None, task()], ids=lambda one: type(one).__name__)
async def test_what_is_no_iterable_of_requests_is_told_as_by_any_client(given: Any) -> None:
    endpoint = MemoryEndpoint()
    async with (
        open_server(succeed, PLAIN, endpoint),
        open_client_at(PLAIN, endpoint, crc32_variant="auto") as client,
    ):
        with pytest.raises(TypeError, match=f"requests is a {type(given).__name__}, must be an iterable"):
            await client.call_many(given)


async def test_others_have_their_turn_while_an_iterator_makes_requests_and_they_are_judged(
    mock_clock: MockClock,
) -> None:
    beside = Beside()
    turns = {"made": list[int](), "judged": list[int]()}

    def slowly(what: str) -> bool:
        mock_clock.jump(100e-6)
        turns[what].append(beside.turns)
        return True

    def requests() -> Iterator[DetectionTask]:
        for number in range(200):
            slowly("made")
            yield task(str(number))

    contract = attrs.evolve(PLAIN, repeatable=lambda _: slowly("judged"))
    endpoint = MemoryEndpoint()
    async with (
        open_server(succeed, contract, endpoint),
        open_client_at(contract, endpoint, crc32_variant="auto") as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(beside.run)
        assert len(await client.call_many(requests())) == 200
        nursery.cancel_scope.cancel()
    for seen in turns.values():
        assert len(seen) == 200
        assert seen[0] < seen[50] < seen[100] < seen[150] < seen[199]
