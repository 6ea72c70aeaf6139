"""The client for synchronous programs, in this process, over both transports."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from tests.adapters import DEADLINE, Gate, portal_threads, served
from tests.platforms import NOBODY
from tests.support import success, task
from trio_ipc import (
    CallTimeoutError,
    ChannelClosedError,
    ConfigError,
    IpcConfig,
    IpcError,
    MessageEmptyError,
    PeerClosedError,
    PeerNotAllowedError,
    PeerPolicy,
    ServerNotFoundError,
    TransportType,
)
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert portal_threads() == []


def test_it_calls_like_trios_client(config: IpcConfig) -> None:
    with served(config), open_client(DETECTION, config) as client:
        assert client.call(task("1")) == success("1")
        assert client.call(task("2"), timeout=DEADLINE) == success("2")
        numbers = (str(number) for number in range(3, 6))
        assert client.call_many(map(task, numbers)) == [success("3"), success("4"), success("5")]
        assert client.call_many([], timeout=DEADLINE) == []
        assert client.snapshot().calls_answered == 5
        assert client.endpoint == config.endpoint_path
        assert client.peer is not None
        assert not client.is_broken
    assert client.is_broken
    assert client.snapshot().calls_answered == 5


@pytest.mark.parametrize("max_in_flight", [1, 64])
def test_threads_share_it_and_each_gets_its_own_answers(config: IpcConfig, max_in_flight: int) -> None:
    with served(config), open_client(DETECTION, config, max_in_flight=max_in_flight) as client:

        def ask(thread: int) -> list[bool]:
            names = [f"{thread}.{number}" for number in range(20)]
            return [client.call(task(name)) == success(name) for name in names]

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, range(8)))
        assert answers == [[True] * 20] * 8


def test_a_timeout_ends_the_call_and_not_the_client(config: IpcConfig) -> None:
    gate = Gate()
    with served(config, gate) as server, open_client(DETECTION, config) as client:
        with pytest.raises(CallTimeoutError, match=r"0\.01 s") as caught:
            client.call(task("wait"), timeout=0.01)
        told = "".join(traceback.format_exception(caught.value))
        assert "test_a_timeout_ends_the_call_and_not_the_client" in told, "who called is in the traceback"
        assert "pipeline.py" in told, "and so is what happened in the other thread"
        server.portal.call(gate.open)
        assert client.call(task("after")) == success("after")


def test_with_one_call_at_a_time_a_timeout_closes_the_connection_and_the_next_call_says_so(
    config: IpcConfig,
) -> None:
    with served(config, Gate()), open_client(DETECTION, config, max_in_flight=1) as client:
        seconds = 0.005
        while not client.is_broken:  # as it is not if the time was up before anything was sent
            seconds *= 2
            with pytest.raises(CallTimeoutError):
                client.call(task("wait"), timeout=seconds)
        with pytest.raises(ChannelClosedError, match="open a new client"):
            client.call(task())
        assert client.is_broken


def test_errors_are_those_of_trios_client(config: IpcConfig) -> None:
    with pytest.raises(ServerNotFoundError) as caught:
        open_client(DETECTION, config)
    assert caught.value.__cause__ is not None
    with served(config) as server, open_client(DETECTION, config) as client:
        with pytest.raises(MessageEmptyError):
            client.call(DetectionTask())
        with pytest.raises(TypeError, match="DetectionTask"):
            client.call(DetectionResult())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout is -1"):
            client.call(task(), timeout=-1)
        with pytest.raises(MessageEmptyError):
            client.call_many([task(), DetectionTask()])
        with pytest.raises(PeerNotAllowedError):
            open_client(DETECTION, config, peers=PeerPolicy.users([NOBODY]))
        server.stop()
        with pytest.raises(PeerClosedError):
            client.call(task())


def test_wrong_arguments_are_told_before_anything_is_opened(config: IpcConfig) -> None:
    wrong: Any = "wrong"
    with pytest.raises(TypeError, match="contract is 'wrong'"):
        open_client(wrong, config)
    with pytest.raises(TypeError, match="config is 'wrong'"):
        open_client(DETECTION, wrong)
    with pytest.raises(TypeError, match="portal is 'wrong', must be a portal of anyio's"):
        open_client(DETECTION, config, portal=wrong)
    with pytest.raises(TypeError, match="max_in_flight is 'wrong', must be a whole number of calls from 1"):
        open_client(DETECTION, config, max_in_flight=wrong)
    with pytest.raises(ConfigError, match="max_in_flight is 0"):
        open_client(DETECTION, config, max_in_flight=0)


# --- Closing ------------------------------------------------------------------------------------------------


def test_what_was_closed_says_so_and_is_closed_once(config: IpcConfig) -> None:
    with served(config):
        client = open_client(DETECTION, config)
        assert repr(client) == f"<trio_ipc.blocking.Client at {config.endpoint_path}, open>"
        assert len(portal_threads()) == 1
        client.close()
        client.close()
        assert repr(client).endswith(", closed>")
        with pytest.raises(ChannelClosedError, match="it was closed; open a new one"):
            client.call(task())
        with pytest.raises(ChannelClosedError), client:
            pass


@pytest.mark.parametrize("max_in_flight", [1, 64])
def test_closing_ends_the_calls_of_other_threads(config: IpcConfig, max_in_flight: int) -> None:
    gate = Gate()
    with served(config, gate), ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=max_in_flight) as client:
            call = thread.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
        with pytest.raises(ChannelClosedError):
            call.result(DEADLINE)


def test_one_that_is_forgotten_warns_and_is_closed(config: IpcConfig) -> None:
    with served(config) as server:
        client = open_client(DETECTION, config)
        client.call(task())
        [thread] = portal_threads()
        with pytest.warns(ResourceWarning, match="unclosed <trio_ipc.blocking.Client at"):  # noqa: PT031
            del client
            gc.collect()
        thread.join(DEADLINE)
        server.stop()
        assert server.server.snapshot().connections_active == 0


# --- Portals ------------------------------------------------------------------------------------------------


def test_clients_share_a_portal_that_its_user_has(config: IpcConfig) -> None:
    with served(config), start_blocking_portal("trio") as portal:
        with (
            open_client(DETECTION, config, portal=portal) as one,
            open_client(DETECTION, config, portal=portal) as two,
        ):
            assert portal_threads() == []
            assert one.call(task("1")) == success("1")
            assert two.call(task("2")) == success("2")
        with open_client(DETECTION, config, portal=portal) as three:
            assert three.call(task("3")) == success("3")


def test_a_portal_that_ends_first_ends_the_calls(config: IpcConfig) -> None:
    gate = Gate()
    with served(config, gate), ThreadPoolExecutor(1) as thread:
        with start_blocking_portal("trio") as portal:
            client = open_client(DETECTION, config, portal=portal)
            call = thread.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
            portal.call(portal.stop, True)
        with pytest.raises(ChannelClosedError):
            call.result(DEADLINE)
        with pytest.raises(ChannelClosedError, match="it was closed"):
            client.call(task())
        client.close()
        with pytest.raises(IpcError, match="nothing can be opened by this portal"):
            open_client(DETECTION, config, portal=portal)


def test_a_portal_of_another_event_loop_is_refused(config: IpcConfig) -> None:
    with start_blocking_portal("asyncio") as portal:
        with pytest.raises(TypeError, match="another event loop than Trio's"):
            open_client(DETECTION, config, portal=portal)


def test_it_says_so_where_it_would_wait_for_itself(config: IpcConfig) -> None:
    def mismatch(request: DetectionTask, _: DetectionResult) -> str | None:
        client.call(request)
        return None

    contract = attrs.evolve(DETECTION, mismatch=mismatch)
    with served(config), open_client(contract, config) as client:
        with pytest.raises(IpcError, match="would wait for itself; .*must not call"):
            client.call(task())


def test_a_portals_own_thread_can_open_nothing_in_it(config: IpcConfig) -> None:
    async def open_there() -> None:
        open_client(DETECTION, config, portal=portal)

    with start_blocking_portal("trio") as portal:
        with pytest.raises(IpcError, match="nothing can be opened by this portal: .* own"):
            portal.call(open_there)


# --- What the Trio thread runs ------------------------------------------------------------------------------


def test_a_contracts_functions_see_the_callers_context(config: IpcConfig) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    seen = []

    def mismatch(_: DetectionTask, __: DetectionResult) -> str | None:
        seen.append((variable.get(), threading.current_thread() is threading.main_thread()))
        return None

    contract = attrs.evolve(DETECTION, mismatch=mismatch)
    # With several calls in flight one task reads for all of them.
    with served(config), open_client(contract, config, max_in_flight=1) as client:
        variable.set("the caller's")
        client.call(task())
    here = config.transport is TransportType.INTERPROCESS and sys.platform != "win32"
    assert seen == [("the caller's", here)]


@pytest.mark.parametrize("max_in_flight", [1, 64])
def test_what_ends_a_program_comes_out_where_it_is_waited_for(config: IpcConfig, max_in_flight: int) -> None:
    def mismatch(_: DetectionTask, __: DetectionResult) -> str | None:
        raise SystemExit(3)

    contract = attrs.evolve(DETECTION, mismatch=mismatch)
    with served(config):
        with pytest.raises(SystemExit):
            with open_client(contract, config, max_in_flight=max_in_flight) as client:
                client.call(task())
        assert client.is_broken
