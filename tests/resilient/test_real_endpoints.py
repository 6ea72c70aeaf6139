"""The same client over what the system really has: Unix sockets here, named pipes on Windows."""

from __future__ import annotations

import errno
import socket
from unittest.mock import Mock

import pytest
import trio

from tests.hardening.record import Attack
from tests.platforms import unix_only
from tests.support import succeed, success, task
from trio_ipc import IpcConfig, IpcError, serve
from trio_ipc.daemoneye import DETECTION
from trio_ipc.resilient import Endpoint, ResilientConfig, open_resilient_client


@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_a_server_that_goes_and_comes_back_costs_no_call(config: IpcConfig, max_in_flight: int) -> None:
    paths = [config.endpoint_path + name for name in ("1", "2")]
    configs = [config.replace(endpoint_path=path) for path in paths]
    settings = ResilientConfig(max_in_flight=max_in_flight, breaker_reset_ms=100)
    async with trio.open_nursery() as nursery:
        servers = [await nursery.start(serve, succeed, DETECTION, one) for one in configs]
        async with open_resilient_client(DETECTION, [Endpoint(one) for one in configs], settings) as client:

            async def who_answers(count: int) -> set[str]:
                answers = [await client.ask(task(str(number))) for number in range(count)]
                assert [one.response for one in answers] == [success(str(number)) for number in range(count)]
                return {one.endpoint_id for one in answers}

            assert await who_answers(4) == set(paths)
            assert client.metrics().pooled_connections_current == 2
            servers[0].stop()
            await servers[0].wait_stopped()
            assert [one.connections_pooled for one in client.statistics()] == [0, 1], "its end is seen"
            assert await who_answers(4) == {paths[1]}
            servers[0] = await nursery.start(serve, succeed, DETECTION, configs[0])
            with trio.fail_after(30):
                while await who_answers(4) != set(paths):
                    pass
            metrics = client.metrics()
            assert metrics.tasks_completed_total == metrics.tasks_sent_total
        for server in servers:
            server.stop()


@unix_only
@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_without_a_free_descriptor_it_goes_on_to_a_server_to_which_it_has_a_connection(
    config: IpcConfig, max_in_flight: int, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    paths = [config.endpoint_path + name for name in ("1", "2")]
    configs = [config.replace(endpoint_path=path) for path in paths]
    settings = ResilientConfig(max_in_flight=max_in_flight, connect_attempts=2, breaker_failures=1)
    async with trio.open_nursery() as nursery:
        servers = [await nursery.start(serve, succeed, DETECTION, one) for one in configs]
        endpoints = [Endpoint(one) for one in configs]
        async with open_resilient_client(DETECTION, endpoints[:1], settings) as client:
            await client.call(task())
            client.add_endpoint(endpoints[1])
            with monkeypatch.context() as patched:
                none_left = OSError(errno.EMFILE, "Too many open files")
                patched.setattr(socket, "socket", Mock(side_effect=none_left))
                for number in range(10):
                    answer = await client.ask(task(str(number)))
                    assert (answer.response, answer.endpoint_id) == (success(str(number)), paths[0])
                client.remove_endpoint(paths[0])
                with pytest.raises(IpcError, match="2 attempts failed.*cannot connect: Too many open files"):
                    await client.call(task())
            [unreached] = client.statistics()
            assert (unreached.healthy, unreached.failures, unreached.breaker.activations) == (True, 0, 0)
            assert (await client.ask(task("late"))).endpoint_id == paths[1]
        for server in servers:
            server.stop()
    attack(
        "a resilient client whose process has no descriptor left",
        tried=10,
        outcome="calls go to the server to which there is a connection; without one, an `IpcError` that says "
        "it; no server is blamed, and all is well at once when there are some",
    )
