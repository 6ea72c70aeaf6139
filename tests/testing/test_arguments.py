"""What can't be is refused where it is given, by an error that names it; nothing is left behind."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from tests.support import succeed
from trio_ipc import Crc32Variant
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import (
    Delay,
    Dribble,
    Faults,
    Flip,
    MemoryEndpoint,
    MemoryNetwork,
    RecordedHandler,
    Recorder,
    Recording,
    Rule,
    SystemEndpoint,
    at_frame,
    cancel_everywhere,
    check_client,
    check_server,
    drip,
    garbage,
    hang,
    memory_streams,
    open_client_at,
    open_pair,
    open_server,
    read_recording,
    relay,
    replay_requests,
    simulate_collector,
    simulate_reference,
    simulate_server,
    slow,
)
from trio_ipc.transports import LocalStream, PeerState

WRONG: Any = "/run/server.sock"

#: Never called.
CONNECT: Any = len

#: Async, and never called.
WAITS: Any = trio.sleep

#: Never opened.
SYSTEM = SystemEndpoint(MemoryEndpoint().path)

#: Of which nothing is asked.
EMPTY = Recording(DETECTION.name, DETECTION.name, Crc32Variant.IEEE, 1_024, ())


@pytest.mark.parametrize(
    "make", [Delay, lambda seconds: Dribble(1, seconds), slow, drip], ids=["Delay", "Dribble", "slow", "drip"]
)
@pytest.mark.parametrize(
    "seconds",
    [10**400, 10**9_000, math.nan, math.inf, -1, -(10**400)],
    ids=["more than a float", "huge", "nan", "inf", "-1", "less than a float"],
)
def test_a_number_of_seconds_that_no_clock_has_is_refused(
    make: Callable[[float], object], seconds: float
) -> None:
    with pytest.raises(ValueError, match="seconds is .*, must be at least 0 and finite"):
        make(seconds)


@pytest.mark.parametrize("endpoint", [WRONG, 5, MemoryEndpoint], ids=["a path", "a number", "the class"])
@pytest.mark.parametrize(
    "use",
    [
        lambda given: open_server(succeed, DETECTION, given),
        lambda given: open_client_at(DETECTION, given),
        lambda given: simulate_server(succeed, DETECTION, endpoint=given),
        lambda given: simulate_collector(endpoint=given),
        lambda given: simulate_reference(endpoint=given),
        lambda given: relay(given, MemoryEndpoint()),
        lambda given: relay(MemoryEndpoint(), given),
    ],
    ids=["server", "client", "simulated", "collector", "reference", "relay from", "relay to"],
)
async def test_what_is_no_endpoint_is_refused(
    use: Callable[[Any], AbstractAsyncContextManager[object]], endpoint: object
) -> None:
    with pytest.raises(TypeError, match="endpoint is .*, must be an IpcEndpoint, such as MemoryEndpoint"):
        async with use(endpoint):
            pass


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (
            lambda: relay(MemoryEndpoint(), MemoryEndpoint(), wrap=WRONG),
            "wrap is .*, must be a function or None",
        ),
        (
            lambda: relay(MemoryEndpoint(), MemoryEndpoint(), wrap=cast(Any, WAITS)),
            "wrap is .*, which is async: must be an ordinary function or None",
        ),
        (lambda: simulate_reference([WRONG]), "records has .*, must have ProcessRecords only"),
        (lambda: simulate_reference(cast(Any, 5)), "records is 5, must be a list that has ProcessRecords"),
        (lambda: open_pair(succeed, DETECTION, wrap=cast(Any, Faults())), "wrap is .*, must be a function"),
        (lambda: open_pair(succeed, DETECTION, wrap=cast(Any, WAITS)), "wrap is .*, which is async"),
        (
            lambda: open_pair(succeed, DETECTION, over="interprocess", wrap=cast(Any, Faults())),
            "wrap is .*, must be a function or None",
        ),
        (
            lambda: open_pair(succeed, DETECTION, wrap=lambda _: WRONG),
            "what wrap returned is '/run/server.sock', must be a LocalStream",
        ),
    ],
)
async def test_what_would_fail_when_a_client_comes_is_refused_at_once(
    use: Callable[[], AbstractAsyncContextManager[object]], error: str
) -> None:
    with pytest.raises(TypeError, match=error):
        async with use():
            pass


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda: replay_requests(WRONG, DETECTION, CONNECT), "must be a Recording"),
        (lambda: replay_requests(EMPTY, DETECTION, WRONG), "connect is .*, must be a function"),
        (lambda: replay_requests(EMPTY, DETECTION, CONNECT, same=WRONG), "same is .*, must be a function"),
        (
            lambda: check_server(DETECTION, MemoryEndpoint(), request=WRONG),
            "request is .*, must be a function",
        ),
        (lambda: check_server(DETECTION, MemoryEndpoint(), on_finding=WRONG), "on_finding is .* or None"),
        (lambda: check_client(DETECTION, MemoryEndpoint(), answer=WRONG), "answer is .*, must be a function"),
        (lambda: check_client(DETECTION, MemoryEndpoint(), on_finding=WRONG), "on_finding is .* or None"),
        (
            lambda: check_client(DETECTION, MemoryEndpoint(), answer=cast(Any, WAITS)),
            "answer is .*, which is async",
        ),
        (lambda: replay_requests(EMPTY, DETECTION, CONNECT, same=cast(Any, WAITS)), "same is .*, which is a"),
        (lambda: check_client(DETECTION, MemoryEndpoint(), stop=WRONG), "stop is .*, must be a trio.Event"),
    ],
)
async def test_what_would_be_called_later_is_looked_at_first(
    use: Callable[[], Awaitable[object]], error: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(TypeError, match=error):
        await use()


@pytest.mark.parametrize("check", [check_server, check_client])
async def test_what_is_no_endpoint_is_not_checked(check: Any) -> None:
    with pytest.raises(TypeError, match="must be an IpcEndpoint"):
        await check(DETECTION, WRONG)


@pytest.mark.parametrize(
    "use",
    [
        lambda: open_pair(succeed, DETECTION, WRONG),
        lambda: open_server(succeed, DETECTION, MemoryEndpoint(), WRONG),
        lambda: open_client_at(DETECTION, MemoryEndpoint(), WRONG),
        lambda: simulate_collector(config=WRONG),
    ],
    ids=["pair", "server", "client", "collector"],
)
async def test_what_are_no_settings_is_refused(
    use: Callable[[], AbstractAsyncContextManager[object]],
) -> None:
    with pytest.raises(TypeError, match="config is '/run/server.sock', must be an IpcConfig"):
        async with use():
            pass


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda: slow(1, WRONG), "must have async def behaviour"),
        (lambda: slow(1, cast(Any, hang)), "must have async def behaviour"),
        (lambda: garbage(cast(Any, 5)), "data is 5, must be bytes"),
        (lambda: garbage(WRONG), "must be bytes"),
        (lambda: MemoryEndpoint(cast(Any, 5)), "name is 5, must be a str"),
        (lambda: MemoryEndpoint(client=WRONG), "client is '/run/server.sock', must be PeerCredentials"),
        (lambda: MemoryEndpoint(server=WRONG), "server is '/run/server.sock', must be PeerCredentials"),
        (lambda: memory_streams(client=WRONG), "client is '/run/server.sock', must be PeerCredentials"),
        (lambda: memory_streams(cast(Any, 5)), "endpoint is 5, must be a str"),
        (lambda: MemoryNetwork().add(WRONG), "must be a MemoryEndpoint"),
        (lambda: Faults().wrap(WRONG), "stream is '/run/server.sock', must be a trio.abc.Stream"),
        (lambda: Faults().wrap_as(cast(Any, None)), "name is None, must be a str"),
        (lambda: Rule(Flip(), each_frame=cast(Any, "no")), "each_frame is 'no', must be a bool"),
        (lambda: read_recording(cast(Any, 99)), "not int"),
        (lambda: RecordedHandler(WRONG, DETECTION), "must be a Recording, such as read_recording"),
        (
            lambda: RecordedHandler(EMPTY, DETECTION, answer=WRONG),
            "answer is '/run/server.sock', must be a func",
        ),
        (lambda: RecordedHandler(EMPTY, DETECTION, answer=WAITS), "answer is .*, which is async: must be an"),
        (
            lambda: Faults(sending=cast(Any, at_frame(1, Flip()))),
            "sending is .*, must be a list that has rul",
        ),
        (lambda: Faults(receiving=cast(Any, None)), "receiving is None, must be a list that has rules only"),
        (lambda: cancel_everywhere(cast(Any, 5)), r"moments is 5, must be a list such as \[Moment.WOKEN"),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(use: Callable[[], object], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        use()


@pytest.mark.parametrize(
    "places",
    [{"byte": 1, "frame": 2}, {"byte": 0, "each_frame": True}, {"frame": 1, "each_frame": True}],
    ids=str,
)
def test_a_rule_has_one_place(places: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a rule has one place"):
        Rule(Flip(), **places)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"offset": 3}, "offset is of a frame"),
        ({"byte": 1, "offset": 3}, "offset is of a frame"),
        ({"byte": 1, "probability": 0.5}, "probability is not of one byte or frame"),
        ({"frame": 1, "probability": 0.5}, "probability is not of one byte or frame"),
    ],
    ids=str,
)
def test_what_would_change_nothing_of_a_rule_is_refused(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Rule(Flip(), **arguments)


def test_a_seed_has_at_most_64_bits_below_zero() -> None:
    assert Faults(seed=-(2**63)).seed == -(2**63)
    with pytest.raises(ValueError, match=f"seed is {-(2**63) - 1}, must be at least {-(2**63)}"):
        Faults(seed=-(2**63) - 1)


def test_a_chance_that_python_refuses_to_write_out_is_told() -> None:
    with pytest.raises(ValueError, match="probability is a number of about .* digits, must be above 0"):
        Rule(Flip(), probability=10**9_000)


async def test_what_a_simulated_server_is_asked_for_must_be_possible() -> None:
    with pytest.raises(TypeError, match="capabilities is '/run/server.sock', must be Capabilities or None"):
        async with simulate_collector(capabilities=WRONG):
            pass
    for places in 1.5, True:
        with pytest.raises(TypeError, match=f"places is {places}, must be an int"):
            async with simulate_reference(places=cast(int, places)):
                pass
    async with simulate_collector() as collector:
        with pytest.raises(TypeError, match="count is nan, must be an int"):
            await collector.wait_asked(cast(int, math.nan))
        with pytest.raises(ValueError, match="count is -1, must be at least 0"):
            await collector.wait_asked(-1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulate_collector(use_all=cast(bool, "no")), "use_all is 'no', must be a bool"),
        (lambda: simulate_server(succeed, DETECTION, use_all=cast(bool, 1)), "use_all is 1, must be a bool"),
        (
            lambda: open_client_at(WRONG, MemoryEndpoint()),
            "contract is '/run/server.sock', must be a Contract",
        ),
        (lambda: open_server(succeed, WRONG, MemoryEndpoint()), "contract is '/run/server.sock'"),
    ],
)
async def test_what_a_block_cannot_be_opened_with_is_refused(
    make: Callable[[], AbstractAsyncContextManager[Any]], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        async with make():
            pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MemoryEndpoint().listen(WRONG), "config is '/run/server.sock', must be an IpcConfig"),
        (lambda: MemoryEndpoint().open_channel(WRONG), "config is '/run/server.sock', must be an IpcConfig"),
        (lambda: MemoryNetwork().open_channel(WRONG), "config is '/run/server.sock', must be an IpcConfig"),
        (lambda: SYSTEM.listen(WRONG), "config is '/run/server.sock', must be an IpcConfig"),
        (lambda: SYSTEM.open_channel(WRONG), "config is '/run/server.sock', must be an IpcConfig"),
        (
            lambda: check_server(DETECTION, MemoryEndpoint(), hostile=WRONG),
            "hostile is '/run/server.sock', must",
        ),
        (
            lambda: check_client(DETECTION, MemoryEndpoint(), deadlines=WRONG),
            "deadlines is '/run/server.sock'",
        ),
    ],
)
async def test_what_is_no_setting_is_refused_before_anything_is_opened(
    call: Callable[[], Awaitable[object]], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        await call()


def test_a_recording_is_shown_by_a_contract_only() -> None:
    with pytest.raises(TypeError, match="contract is '/run/server.sock', must be a Contract"):
        EMPTY.lines(WRONG)


@pytest.mark.parametrize("over", ["memory", "interprocess"])
async def test_a_connection_that_cannot_be_wrapped_is_closed(over: str) -> None:
    refused: list[LocalStream] = []

    def refuse(stream: LocalStream) -> LocalStream:
        refused.append(stream)
        raise KeyError("no")

    with pytest.raises(KeyError):
        async with open_pair(succeed, DETECTION, over=over, wrap=refuse):
            pass
    with pytest.raises(trio.ClosedResourceError):
        await refused[0].receive_some()


async def test_a_relay_that_cannot_wrap_closes_both_connections(autojump_clock: MockClock) -> None:
    here, there = MemoryEndpoint("here"), MemoryEndpoint("there")
    refused: list[LocalStream] = []

    async def ask() -> None:
        async with open_server(succeed, DETECTION, there), relay(here, there, wrap=refuse):
            refused.append(await here.connect())
            await trio.sleep(1)

    def refuse(stream: LocalStream) -> LocalStream:
        refused.append(stream)
        raise KeyError("no")

    with pytest.raises(KeyError):
        await ask()
    client, server = refused
    assert client.peer_state() is PeerState.GONE
    with pytest.raises(trio.ClosedResourceError):
        await server.receive_some()


def test_a_recorder_that_cannot_be_made_makes_no_file(path: Path) -> None:
    with pytest.raises(TypeError, match="config is '/run/server.sock', must be an IpcConfig"):
        Recorder(path, DETECTION, WRONG)
    assert not path.exists()


def test_a_number_is_no_path_of_a_recording() -> None:
    near, far = os.pipe()
    os.close(far)
    with pytest.raises(TypeError):
        read_recording(cast(Any, near))
    os.close(near)  # it is still this test's
