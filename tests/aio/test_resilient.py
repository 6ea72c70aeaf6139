"""The resilient client for asyncio programs."""

from __future__ import annotations

import asyncio

import pytest

from tests.adapters import DEADLINE, Gate, portal_threads, served
from tests.support import success, task
from trio_ipc import ChannelClosedError, ConfigError, Endpoint, IpcConfig, NoEndpointError, ResilientConfig
from trio_ipc.aio import open_resilient_client
from trio_ipc.daemoneye import DETECTION


def test_it_calls_whichever_server_can_answer(config: IpcConfig) -> None:
    others = config.replace(endpoint_path=config.endpoint_path + "2")

    async def main() -> None:
        async with open_resilient_client(DETECTION, []) as client:
            with pytest.raises(NoEndpointError):
                await client.call(task())
            await client.add_endpoint(Endpoint(config))
            await client.add_endpoint(Endpoint(others, id="other"))
            with pytest.raises(ConfigError):
                await client.add_endpoint(Endpoint(others, id="other"))
            assert await client.call(task("1"), timeout=DEADLINE) == success("1")
            answer = await client.ask(task("2"), needs=lambda _: True)
            assert (answer.response, answer.endpoint_id) == (success("2"), "other")
            assert [one.endpoint.id for one in await client.statistics()] == [config.endpoint_path, "other"]
            assert (await client.metrics()).tasks_completed_total == 2
            await client.remove_endpoint("other")
            assert len(await client.statistics()) == 1
        with pytest.raises(ChannelClosedError, match="it was closed"):
            await client.call(task())
        assert repr(client) == "<trio_ipc.aio.ResilientClient, closed>"

    with served(others):
        asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert portal_threads() == []


def test_tasks_share_it_and_a_cancelled_one_leaves_the_others(config: IpcConfig) -> None:
    gate = Gate()
    settings = ResilientConfig(max_in_flight=64)

    async def main() -> None:
        client = await open_resilient_client(DETECTION, [Endpoint(config)], settings)
        names = [str(number) for number in range(40)]
        assert await asyncio.gather(*(client.call(task(name)) for name in names)) == [*map(success, names)]
        call = asyncio.create_task(client.call(task("wait")))
        await asyncio.to_thread(gate.reached.wait, DEADLINE)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.portal.call(gate.open)
        assert await client.call(task("after")) == success("after")
        await client.aclose()

    with served(config, gate) as server:
        asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_two_endpoints_of_one_id_are_refused_when_it_is_opened(config: IpcConfig) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="there is an endpoint of the id"):
            await open_resilient_client(DETECTION, [Endpoint(config), Endpoint(config)])

    asyncio.run(main())
    assert portal_threads() == []
