"""What a program may hand over by mistake: one TypeError says what belongs there, before anything begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import trio_ipc.aio
import trio_ipc.blocking
from trio_ipc import Endpoint, IpcConfig, ResilientConfig, open_resilient_client
from trio_ipc.daemoneye import DETECTION

CONFIG = IpcConfig()

OPENERS = pytest.mark.parametrize(
    "opener",
    [open_resilient_client, trio_ipc.blocking.open_resilient_client, trio_ipc.aio.open_resilient_client],
    ids=["trio", "blocking", "aio"],
)


@OPENERS
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((DETECTION, Endpoint(CONFIG)), "endpoints is an Endpoint, must be an iterable of Endpoints"),
        ((DETECTION, None), "endpoints is None, must be an iterable of Endpoints"),
        ((DETECTION, "/run/a.sock"), "endpoints is '/run/a.sock', must be an iterable of Endpoints"),
        ((DETECTION, ["/run/a.sock"]), "an endpoint is '/run/a.sock', must be an Endpoint"),
        ((DETECTION, [Endpoint(CONFIG), CONFIG]), "an endpoint is an IpcConfig, must be an Endpoint"),
        ((DETECTION, [], CONFIG), "settings is an IpcConfig, must be a ResilientConfig or None"),
        ((DETECTION, [], {}), r"settings is \{\}, must be a ResilientConfig or None"),
        ((DETECTION, ResilientConfig(), []), "endpoints is a ResilientConfig, must be an iterable"),
        (([], DETECTION), r"contract is \[\], must be a Contract"),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_given(
    opener: Callable[..., Any], arguments: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        opener(*arguments)


@OPENERS
def test_what_an_iterator_of_endpoints_raises_comes_out_as_it_is(opener: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="its own"):
        opener(DETECTION, map(fail, [1]))


def fail(_: object) -> Endpoint:
    raise TypeError("its own")


def test_what_is_there_for_tests_is_looked_at_as_well() -> None:
    with pytest.raises(TypeError, match="connect is 5, must be an async function of a config"):
        open_resilient_client(DETECTION, [], connect=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"chance is 5, must be a random\.Random or None"):
        open_resilient_client(DETECTION, [], chance=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["/run/a.sock", None, DETECTION, Endpoint(CONFIG)])
def test_an_endpoint_is_made_of_a_config(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"config is .*, must be an IpcConfig: IpcConfig\(endpoint_path="):
        Endpoint(wrong)
    with pytest.raises(TypeError, match=r"config is .*, must be an IpcConfig"):
        Endpoint(wrong, id="a")


async def test_what_is_added_is_an_endpoint() -> None:
    async with open_resilient_client(DETECTION, []) as client:
        with pytest.raises(TypeError, match="an endpoint is an IpcConfig, must be an Endpoint"):
            client.add_endpoint(CONFIG)  # type: ignore[arg-type]
        assert client.endpoints() == ()


def test_and_so_it_is_by_the_adapters() -> None:
    with trio_ipc.blocking.open_resilient_client(DETECTION, []) as client:
        with pytest.raises(TypeError, match="an endpoint is an IpcConfig, must be an Endpoint"):
            client.add_endpoint(CONFIG)  # type: ignore[arg-type]
