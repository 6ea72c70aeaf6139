"""Calls in the event loop that are cancelled at any point, once and twice, or whose loop ends with them."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.adapters import DEADLINE, OF_DIRECT_CALLS, Gate, Held, served
from tests.support import success, task
from trio_ipc import ChannelClosedError, IpcConfig
from trio_ipc.aio import open_client
from trio_ipc.daemoneye import DETECTION

from .support import AioClient, run, waiting_call

pytestmark = OF_DIRECT_CALLS

#: More passes of the loop than a call takes, so that the last ones are not reached.
MOST_PASSES = 5_000


def test_nothing_is_sent_while_the_trio_thread_still_carries_what_was_cancelled_twice(
    config: IpcConfig,
) -> None:
    gate = Gate()

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1, portal=portal) as client:
            calls = asyncio.create_task(client.call_many([task("wait"), task("2")]))
            await asyncio.to_thread(gate.reached.wait, DEADLINE)
            with Held(portal):
                for _ in range(2):  # as anyio's cancel scopes do
                    calls.cancel()
                    await asyncio.sleep(0)
                with pytest.raises(asyncio.CancelledError):
                    await calls
                sent = client.snapshot().frames_sent
                call = asyncio.create_task(client.call(task("after")))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert client.snapshot().frames_sent == sent
            with pytest.raises(ChannelClosedError, match="open a new client"):
                await call

    with served(config, gate), start_blocking_portal("trio") as portal:
        run(main)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_after_a_cancellation_at_any_pass_the_client_is_good_or_says_that_it_is_closed(
    config: IpcConfig, times: int, *, many: bool
) -> None:
    async def call(client: AioClient) -> None:
        if many:
            assert await client.call_many([task("1"), task("2")]) == [success("1"), success("2")]
        else:
            assert await client.call(task("1")) == success("1")

    async def main() -> None:
        client = await open_client(DETECTION, config, max_in_flight=1, portal=portal)
        cancelled = 0
        for passes in [*range(20), *range(20, MOST_PASSES, 20)]:
            calling = asyncio.create_task(call(client))
            for _ in range(passes):
                await asyncio.sleep(0)
            in_time = calling.done()
            for _ in range(times):
                calling.cancel()
                await asyncio.sleep(0)
            try:
                await calling
            except asyncio.CancelledError:
                cancelled += 1
            try:
                assert await client.call(task("after")) == success("after")
            except ChannelClosedError:
                await client.aclose()
                client = await open_client(DETECTION, config, max_in_flight=1, portal=portal)
            if in_time:
                break
        else:
            pytest.fail(f"a call takes more than {MOST_PASSES} passes")
        await client.aclose()
        assert cancelled

    with served(config), start_blocking_portal("trio") as portal:
        run(main)


def test_a_loop_that_ends_with_a_call_in_flight_says_no_more_than_that(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    async def begin() -> None:
        client = await open_client(DETECTION, config, max_in_flight=1, portal=portal)
        kept.append(client)
        kept.append(await waiting_call(client, gate))

    kept: list[Any] = []
    with served(config, gate), start_blocking_portal("trio") as portal:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed <trio_ipc.aio.Client at"):  # noqa: PT031
            kept.clear()
            del loop
            gc.collect()
        assert gate.cancelled.wait(DEADLINE), "the connection was closed"
    assert unraisable == []


def test_a_ctrl_c_in_the_loop_itself_keeps_no_response_from_the_task_that_waits(config: IpcConfig) -> None:
    def look() -> bool:
        watch._look = looks
        assert looks()
        raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    with served(config):
        client = loop.run_until_complete(open_client(DETECTION, config, max_in_flight=1)._function())
        watch: Any = client._direct._watch  # type: ignore[union-attr]
        looks, watch._look = watch._look, look
        call = loop.create_task(client.call(task("1")))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(call)
        # Long before the time is up for a response that has not come.
        assert loop.run_until_complete(asyncio.wait_for(call, 10)) == success("1")
        loop.run_until_complete(client.aclose())
    loop.close()
