"""How a test with a simulated server comes out: by what its behaviours raise, and by its script."""

from __future__ import annotations

import errno
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.platforms import unix_only
from tests.support import frame, succeed, success, task
from trio_ipc import Call, IpcError
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    Behaviour,
    MemoryEndpoint,
    Reply,
    answer,
    bad_checksum,
    close_mid_frame,
    fail,
    hang,
    open_client_at,
    simulate_collector,
    slow,
)
from trio_ipc.testing.pair import an_endpoint


async def asked(*script: Behaviour, use_all: bool = False) -> None:
    """Ask a collector of this script once, whose client leaves before the response, and the test with it."""
    async with (
        simulate_collector(*script, use_all=use_all) as collector,
        open_client_at(DETECTION, collector.endpoint) as client,
        trio.open_nursery() as nursery,
    ):

        async def call() -> None:
            with suppress(IpcError):
                await client.call(task())

        nursery.start_soon(call)
        await collector.wait_asked(1)
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()


async def test_that_the_client_has_left_is_no_failure_in_a_group_of_what_was_cancelled() -> None:
    cancelled = trio.Event()

    async def wait_until_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async def send_too_late(_: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_until_cancelled)
            await reply.wait_left()
            with trio.CancelScope(shield=True):
                await cancelled.wait()
                await reply.send(DetectionResult(task_id="1"))

    await asked(send_too_late)
    assert cancelled.is_set()


async def test_what_pytest_raises_in_a_behaviour_comes_out_before_what_follows_from_it() -> None:
    async def give_up(_: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        pytest.fail("said in the behaviour")

    async def run() -> None:
        async with (
            simulate_collector(give_up) as collector,
            open_client_at(DETECTION, collector.endpoint) as client,
        ):
            try:
                with trio.CancelScope(shield=True):
                    await client.call(task())
            except IpcError:
                raise KeyError("what the client made of it") from None

    with pytest.raises(pytest.fail.Exception, match="said in the behaviour") as caught:
        await run()
    [note] = caught.value.__notes__
    assert "what the client made of it" in note


async def test_an_accept_that_fails_comes_out_before_what_follows_from_it() -> None:
    endpoint = MemoryEndpoint()

    async def run() -> None:
        async with simulate_collector(endpoint=endpoint):
            endpoint.fail_accept(OSError(errno.EMFILE, "no descriptor is left"))
            try:
                await trio.sleep_forever()
            finally:
                raise AssertionError("of the clean-up")

    with pytest.raises(OSError, match="no descriptor is left") as caught:
        await run()
    assert caught.value.__notes__ == ["afterwards failed: AssertionError: of the clean-up"]


async def test_the_rest_of_a_script_is_told_by_names_that_a_reader_knows() -> None:
    class Sleepy:
        async def __call__(self, _: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
            await reply.send(await reply.proper())

    async def lie(_what: str, _: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        await reply.send(await reply.proper())

    with pytest.raises(AssertionError, match="of the script, slow, Sleepy, lie were not used") as caught:
        await asked(hang(), slow(1), Sleepy(), partial(lie, "a lie"), use_all=True)
    assert "0x" not in str(caught.value)
    assert "functools" not in str(caught.value)


async def test_a_handler_of_the_test_is_asked_as_any() -> None:
    async with simulate_collector(handler=succeed) as collector:
        async with open_client_at(DETECTION, collector.endpoint) as client:
            assert (await client.call(task())).success


@pytest.mark.parametrize("behaviour", [answer(), bad_checksum(), close_mid_frame(), slow(0)])
async def test_a_handler_that_returns_no_response_is_told_as_by_a_server(behaviour: Behaviour) -> None:
    async def wrong(request: DetectionTask, _: Call) -> Any:
        await trio.lowlevel.checkpoint()
        return request

    with pytest.raises(TypeError, match="the handler returned DetectionTask, must be DetectionResult"):
        async with (
            simulate_collector(behaviour, handler=wrong) as collector,
            open_client_at(DETECTION, collector.endpoint) as client,
        ):
            await client.call(task())


@pytest.mark.parametrize("over", ["memory", pytest.param("interprocess", marks=unix_only)])
@pytest.mark.parametrize("first", [hang(), slow(0)], ids=["hang", "slow"])
async def test_what_a_client_that_has_left_had_sent_ahead_uses_nothing_of_the_script(
    first: Behaviour, over: str
) -> None:
    left = trio.Event()

    async def wait_then_behave(request: Any, reply: Reply[Any, Any]) -> None:
        await reply.wait_left()
        left.set()
        with suppress(trio.BrokenResourceError):
            await first(request, reply)

    with an_endpoint(over) as endpoint:
        async with simulate_collector(
            wait_then_behave, fail("for the second"), endpoint=endpoint
        ) as collector:
            stream = await endpoint.connect()
            await stream.send_all(frame(task("1")) + frame(task("2")))
            await collector.wait_asked(1)
            await stream.aclose()
            await left.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert [request.task_id for request in collector.asked] == ["1"]
            async with open_client_at(DETECTION, endpoint) as client:
                assert (await client.call(task("3"))).error_message == "for the second"
                assert await client.call(task("4")) == success("4")
