"""The resilient client for synchronous programs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.adapters import DEADLINE, Gate, portal_threads, served
from tests.support import success, task
from trio_ipc import (
    CallTimeoutError,
    ChannelClosedError,
    ConfigError,
    Endpoint,
    IpcConfig,
    NoEndpointError,
    ResilientConfig,
)
from trio_ipc.blocking import open_resilient_client
from trio_ipc.daemoneye import DETECTION


def test_it_calls_whichever_server_can_answer(config: IpcConfig) -> None:
    others = config.replace(endpoint_path=config.endpoint_path + "2")
    with open_resilient_client(DETECTION, []) as client:
        with pytest.raises(NoEndpointError):
            client.call(task())
        client.add_endpoint(Endpoint(config))
        client.add_endpoint(Endpoint(others, id="other"))
        with pytest.raises(ConfigError):
            client.add_endpoint(Endpoint(others, id="other"))
        with served(others):
            assert client.call(task("1"), timeout=DEADLINE) == success("1")
            answer = client.ask(task("2"), needs=lambda _: True)
            assert (answer.response, answer.endpoint_id) == (success("2"), "other")
        assert [one.endpoint.id for one in client.statistics()] == [config.endpoint_path, "other"]
        assert client.metrics().tasks_completed_total == 2
        client.remove_endpoint("other")
        assert len(client.statistics()) == 1
    with pytest.raises(ChannelClosedError, match="it was closed"):
        client.call(task())
    assert repr(client) == "<trio_ipc.blocking.ResilientClient, closed>"
    assert portal_threads() == []


def test_threads_share_it_and_closing_ends_their_calls(config: IpcConfig) -> None:
    gate = Gate()
    settings = ResilientConfig(max_in_flight=16)
    with served(config, gate), ThreadPoolExecutor(8) as threads:
        with open_resilient_client(DETECTION, [Endpoint(config)], settings) as client:
            names = [str(number) for number in range(40)]
            assert list(threads.map(client.call, map(task, names))) == list(map(success, names))
            with pytest.raises(CallTimeoutError):
                client.call(task("wait"), timeout=0.01)
            call = threads.submit(client.call, task("wait"))
            assert gate.reached.wait(DEADLINE)
        with pytest.raises(ChannelClosedError):
            call.result(DEADLINE)


def test_two_endpoints_of_one_id_are_refused_when_it_is_opened(config: IpcConfig) -> None:
    with pytest.raises(ConfigError, match="there is an endpoint of the id"):
        open_resilient_client(DETECTION, [Endpoint(config), Endpoint(config)])
    assert portal_threads() == []
