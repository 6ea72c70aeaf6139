"""The client for asyncio programs, in this process, over both transports."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import traceback
from typing import Any

import attrs
import pytest
import trio
from anyio.from_thread import start_blocking_portal

from tests.adapters import DEADLINE, Gate, portal_threads, served
from tests.support import success, task
from trio_ipc import (
    CallTimeoutError,
    ChannelClosedError,
    ConfigError,
    IpcConfig,
    IpcError,
    MessageEmptyError,
    PeerClosedError,
    ServerNotFoundError,
)
from trio_ipc.aio import open_client
from trio_ipc.client.pipeline import Pipeline
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .support import run, waiting_call


def test_it_calls_like_trios_client(config: IpcConfig) -> None:
    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            assert await client.call(task("1")) == success("1")
            assert await client.call(task("2"), timeout=DEADLINE) == success("2")
            answers = await client.call_many(task(str(number)) for number in range(3, 6))
            assert answers == [success("3"), success("4"), success("5")]
            assert client.snapshot().calls_answered == 5
            assert client.endpoint == config.endpoint_path
            assert client.peer is not None
            assert not client.is_broken
        assert client.is_broken
        with pytest.raises(ChannelClosedError, match="it was closed; open a new one"):
            await client.call(task())
        await client.aclose()

    with served(config):
        run(main)


def test_it_may_be_opened_by_await_and_closed_later(config: IpcConfig) -> None:
    async def main() -> None:
        client = await open_client(DETECTION, config)
        assert await client.call(task("1")) == success("1")
        async with client:
            assert await client.call(task("2")) == success("2")
        assert repr(client) == f"<trio_ipc.aio.Client at {config.endpoint_path}, closed>"

    with served(config):
        run(main)


def test_what_tasks_call_at_a_time_goes_into_one_write(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    write = Pipeline._write_some

    async def counted(self: Any, batch: list[Any]) -> bool:
        sizes.append(len(batch))
        return await write(self, batch)

    async def main() -> None:
        async with open_client(DETECTION, config, portal=portal) as client:
            held, go_on = threading.Event(), threading.Event()

            def hold() -> None:
                held.set()
                assert go_on.wait(DEADLINE)

            # While the Trio thread does something else, as it does when it answers others.
            holding = portal.start_task_soon(hold)
            assert held.wait(DEADLINE)
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(client.call(task(str(number)))) for number in range(50)]
                await asyncio.sleep(0)
                go_on.set()
            assert [call.result() for call in calls] == [success(str(number)) for number in range(50)]
            holding.result(DEADLINE)

    monkeypatch.setattr(Pipeline, "_write_some", counted)
    with served(config), start_blocking_portal("trio") as portal:
        run(main)
    assert sizes == [50]


# --- Cancellation -------------------------------------------------------------------------------------------


def test_cancelling_a_task_cancels_its_call_and_leaves_the_client_good(config: IpcConfig) -> None:
    gate = Gate()

    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            call = await waiting_call(client, gate)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            said = client.snapshot()
            assert said.calls_failed["cancelled"] == 1
            assert said.calls_in_flight == 0
            server.portal.call(gate.open)
            assert await client.call(task("after")) == success("after")

    with served(config, gate) as server:
        run(main)


def test_with_one_call_at_a_time_a_cancellation_closes_the_connection_and_the_next_call_says_so(
    config: IpcConfig,
) -> None:
    gate = Gate()

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1) as client:
            call = await waiting_call(client, gate)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            with pytest.raises(ChannelClosedError, match="open a new client"):
                await client.call(task())

    with served(config, gate):
        run(main)


def test_a_call_may_be_cancelled_before_the_trio_thread_has_heard_of_it(config: IpcConfig) -> None:
    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            for _ in range(20):
                call = asyncio.create_task(client.call(task()))
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            assert await client.call(task("after")) == success("after")
            said = client.snapshot()
            assert said.calls_in_flight == 0

    with served(config):
        run(main)


def test_timeouts_and_groups_of_asyncio_behave(config: IpcConfig) -> None:
    gate = Gate()

    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.call(task("wait"))
            with pytest.raises(CallTimeoutError, match=r"0\.01 s"):
                await client.call(task("wait"), timeout=0.01)
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group's own way to raise
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(client.call(task("wait")))
                    group.create_task(client.call(DetectionTask()))
            [error] = caught.value.exceptions
            assert isinstance(error, MessageEmptyError)
            assert waiting.cancelled()
            server.portal.call(gate.open)
            assert await client.call(task("after")) == success("after")

    with served(config, gate) as server:
        run(main)


def test_a_second_cancellation_does_not_wait_for_the_trio_thread(config: IpcConfig) -> None:
    async def main() -> None:
        async with open_client(DETECTION, config, portal=portal) as client:
            held, go_on = threading.Event(), threading.Event()

            def hold() -> None:
                held.set()
                assert go_on.wait(DEADLINE)

            holding = portal.start_task_soon(hold)
            assert held.wait(DEADLINE)
            call = asyncio.create_task(client.call(task()))
            for _ in range(2):
                await asyncio.sleep(0)
                call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            go_on.set()
            holding.result(DEADLINE)
            assert await client.call(task("after")) == success("after")

    with served(config), start_blocking_portal("trio") as portal:
        run(main)


# --- Opening and closing ------------------------------------------------------------------------------------


def test_errors_are_those_of_trios_client(config: IpcConfig) -> None:
    async def nobody() -> None:
        async with open_client(DETECTION, config):
            pass

    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            with pytest.raises(TypeError, match="DetectionTask"):
                await client.call(DetectionResult())  # type: ignore[arg-type]
            with pytest.raises(MessageEmptyError) as caught:
                await client.call(DetectionTask())
            told = "".join(traceback.format_exception(caught.value))
            assert "in main" in told
            assert "pipeline.py" in told
            server.server.stop()
            await asyncio.to_thread(server.portal.call, server.server.wait_stopped)
            with pytest.raises(PeerClosedError):
                await client.call(task())

    with pytest.raises(ServerNotFoundError) as caught:
        run(nobody)
    assert caught.value.__cause__ is not None
    with served(config) as server:
        run(main)


def test_wrong_arguments_are_told_before_anything_is_opened(config: IpcConfig) -> None:
    wrong: Any = "wrong"
    with pytest.raises(TypeError, match="contract is 'wrong'"):
        open_client(wrong, config)
    with pytest.raises(TypeError, match="portal is 'wrong', must be a portal of anyio's"):
        open_client(DETECTION, config, portal=wrong)
    with pytest.raises(TypeError, match="max_in_flight is 'wrong', must be a whole number of calls from 1"):
        open_client(DETECTION, config, max_in_flight=wrong)
    with pytest.raises(ConfigError, match="max_in_flight is 0"):
        open_client(DETECTION, config, max_in_flight=0)


def test_opening_may_be_cancelled(config: IpcConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = threading.Event()

    async def never(*_: object, **__: object) -> None:
        reached.set()
        await trio.sleep_forever()

    async def main() -> None:
        async def open_it() -> None:
            async with open_client(DETECTION, config):
                pytest.fail("it was opened")

        opening = asyncio.create_task(open_it())
        await asyncio.to_thread(reached.wait, DEADLINE)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert portal_threads() == []

    monkeypatch.setattr("trio_ipc.client.client.open_trusted_channel", never)
    run(main)


def test_closing_ends_the_calls_of_other_tasks(config: IpcConfig) -> None:
    gate = Gate()

    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            call = await waiting_call(client, gate)
        with pytest.raises(ChannelClosedError):
            await call

    with served(config, gate):
        run(main)


def test_one_that_is_forgotten_warns_and_is_closed(config: IpcConfig) -> None:
    async def main() -> None:
        client = await open_client(DETECTION, config)
        await client.call(task())
        [thread] = portal_threads()
        with pytest.warns(ResourceWarning, match="unclosed <trio_ipc.aio.Client at"):  # noqa: PT031
            del client
            gc.collect()
        await asyncio.to_thread(thread.join, DEADLINE)

    with served(config):
        run(main)


def test_it_belongs_to_the_loop_that_it_was_opened_in(config: IpcConfig) -> None:
    async def open_it() -> Any:
        return await open_client(DETECTION, config)

    async def use(client: Any) -> None:
        with pytest.raises(IpcError, match="in another event loop than the one that it was opened in"):
            await client.call(task())

    async def on_trio() -> None:
        with pytest.raises(IpcError, match="no event loop of asyncio runs here"):
            await open_client(DETECTION, config)

    with served(config), asyncio.Runner() as runner:
        client = runner.run(open_it())
        run(lambda: use(client))
        trio.run(use, client)
        trio.run(on_trio)
        runner.run(client.aclose())


def test_clients_share_a_portal_that_their_user_has(config: IpcConfig) -> None:
    async def main() -> None:
        async with (
            open_client(DETECTION, config, portal=portal) as one,
            open_client(DETECTION, config, portal=portal) as two,
        ):
            assert portal_threads() == []
            answers = await asyncio.gather(one.call(task("1")), two.call(task("2")))
            assert [*answers] == [success("1"), success("2")]

    with served(config), start_blocking_portal("trio") as portal:
        run(main)


def test_a_contracts_functions_see_the_callers_context(config: IpcConfig) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    seen = []

    def mismatch(_: DetectionTask, __: DetectionResult) -> str | None:
        seen.append(variable.get())
        return None

    async def main() -> None:
        # With several calls in flight one task reads for all of them.
        async with open_client(attrs.evolve(DETECTION, mismatch=mismatch), config, max_in_flight=1) as client:
            variable.set("the caller's")
            await client.call(task())

    with served(config):
        run(main)
    assert seen == ["the caller's"]
