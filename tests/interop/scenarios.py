"""What each server does with each client. A scenario fails by an exception."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias

import attrs
import trio

from tests.platforms import exists
from trio_ipc.daemoneye import DetectionTask, ProcessFilter, negotiation_task

from . import programs
from .answers import answer
from .peers import Peer
from .programs import MIB, ClientProgram, PeerError, Program, Settings, failing
from .samples import golden, random_messages

#: Seeds of random messages. Others find as much; the same ones let a failure be repeated.
SEED: Final = 16

#: How many random tasks are called, and sent ahead.
RANDOM: Final = 60
AHEAD: Final = 64


@attrs.frozen
class Pair:
    """A server's and a client's program, and where they meet."""

    server: Peer
    client: Peer
    endpoint: str
    #: A client that runs as long as the pair is tried, and has no connection between two scenarios.
    caller: ClientProgram

    def serving(self, settings: Settings) -> AbstractAsyncContextManager[Program]:
        return programs.server(self.server, self.endpoint, settings)

    def another_client(self) -> AbstractAsyncContextManager[ClientProgram]:
        return programs.client(self.client)

    async def call_once(self, settings: Settings, client: ClientProgram | None = None) -> None:
        """Connect, call, close."""
        client = client or self.caller
        await client.open(self.endpoint, settings)
        await calls(client, DetectionTask(task_id="once"))
        await client.close()

    async def call_until_answered(self, settings: Settings, client: ClientProgram | None = None) -> None:
        """The same, until there is a place: a server notices in its own time that a client has left."""
        while True:
            try:
                await self.call_once(settings, client)
                return
            except PeerError as exc:
                if exc.kind != "closed":
                    raise


Function: TypeAlias = Callable[[Pair, Program], Awaitable[None]]


@attrs.frozen
class Scenario:
    """What is tried with a pair.

    Attributes:
        name: as the tables have it.
        shows: what it shows, in words.
        function: does it, with a server that listens.
        settings: the server's settings.
        own: whether the server is of no use to others afterwards.
        applies: whether a pair can do it; who can't has not failed.
    """

    name: str
    shows: str
    function: Function
    settings: Settings
    own: bool = False
    applies: Callable[[Peer, Peer], bool] = lambda _server, _client: True


SCENARIOS: Final[list[Scenario]] = []


def scenario(
    name: str,
    shows: str,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    own: bool = False,
    applies: Callable[[Peer, Peer], bool] = lambda _server, _client: True,
) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        SCENARIOS.append(Scenario(name, shows, function, settings, own, applies))
        return function

    return add


async def calls(client: ClientProgram, *tasks: DetectionTask) -> None:
    """Call, one after the other, and judge each response."""
    for task in tasks:
        assert await client.call(task) == [answer(task)]


def _tasks() -> Sequence[DetectionTask]:
    return [
        *random_messages(DetectionTask, RANDOM, SEED),
        *golden(DetectionTask),
        DetectionTask(task_id="f", metadata="fail näme"),
        negotiation_task(),
    ]


# --- Calls --------------------------------------------------------------------------------------------------

IEEE: Final = Settings()
CASTAGNOLI: Final = Settings(variant="castagnoli")


async def _all_calls(pair: Pair, settings: Settings) -> None:
    await pair.caller.open(pair.endpoint, settings)
    await calls(pair.caller, *_tasks(), DetectionTask(task_id="r", metadata="records 1000"))
    await pair.caller.close()


@scenario("calls, IEEE", "random and golden tasks, a failure, a negotiation, a result of 1,000 records", IEEE)
async def calls_ieee(pair: Pair, _: Program) -> None:
    await _all_calls(pair, IEEE)


@scenario("calls, Castagnoli", "the same with CRC-32C", CASTAGNOLI)
async def calls_castagnoli(pair: Pair, _: Program) -> None:
    await _all_calls(pair, CASTAGNOLI)


@scenario("pipelining", "64 tasks are sent ahead; their results come in order", IEEE)
async def pipelining(pair: Pair, _: Program) -> None:
    # Half a MiB in each direction, more than the system's buffers hold: both have to read while they write.
    asked = ProcessFilter(pids=[1], executable_pattern="x" * 8_192)
    tasks = [DetectionTask(task_id=f"p{index}", process_filter=asked) for index in range(AHEAD)]
    await pair.caller.open(pair.endpoint, IEEE)
    assert await pair.caller.call(*tasks) == [answer(task) for task in tasks]
    await pair.caller.close()


@scenario("connections", "three clients at a time, and one after the other", IEEE)
async def connections(pair: Pair, _: Program) -> None:
    async with pair.another_client() as second, pair.another_client() as third:
        clients = (pair.caller, second, third)
        for client in clients:
            await client.open(pair.endpoint, IEEE)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(calls, client, *_tasks()[:20])
        for client in clients:
            await client.close()
    for _again in range(10):
        await pair.call_once(IEEE)


@scenario(
    "half-closed",
    "a client closes its sending side behind the last task, gets its results, and then the end",
    IEEE,
    applies=lambda _server, client: not client.has_auto,
)
async def half_closed(pair: Pair, _: Program) -> None:
    tasks = [DetectionTask(task_id=f"h{index}", metadata="records 100") for index in range(20)]
    await pair.caller.open(pair.endpoint, IEEE)
    assert await pair.caller.call(*tasks, last=True) == [answer(task) for task in tasks]
    await pair.caller.close()


# --- Variants -----------------------------------------------------------------------------------------------


@scenario("the wrong variant", "the client's call fails; the server serves on", IEEE)
async def wrong_variant(pair: Pair, _: Program) -> None:
    await pair.caller.open(pair.endpoint, CASTAGNOLI)
    with failing("closed", "checksum", "mismatch"):
        await calls(pair.caller, DetectionTask(task_id="w"))
    await pair.call_once(IEEE)


@scenario(
    "a server that finds out",
    "with `auto` it answers clients of either variant",
    Settings(variant="auto"),
    applies=lambda server, _client: server.has_auto,
)
async def server_finds_out(pair: Pair, _: Program) -> None:
    for settings in (IEEE, CASTAGNOLI, IEEE):
        await pair.call_once(settings)


@scenario(
    "a client that finds out",
    "with `auto` it is answered by a server of either variant",
    CASTAGNOLI,
    applies=lambda _server, client: client.has_auto,
)
async def client_finds_out(pair: Pair, _: Program) -> None:
    await pair.caller.open(pair.endpoint, Settings(variant="auto"))
    await calls(pair.caller, *_tasks()[:3])
    await pair.caller.close()


# --- Limits -------------------------------------------------------------------------------------------------

SMALL: Final = Settings(max_frame_bytes=65_536)
ONE_PLACE: Final = Settings(places=1)


def of_size(size: int) -> DetectionTask:
    """A task that encodes to so many bytes."""
    task = DetectionTask(task_id="s", metadata="")
    while (missing := size - task.ByteSize()) > 0:
        task.metadata += "m" * max(missing - 2, 1)
    assert task.ByteSize() == size
    return task


def for_result_of(size: int) -> DetectionTask:
    """A task whose result encodes to so many bytes."""
    task = DetectionTask(task_id="s", metadata="pad 0")
    padding = 0
    while (missing := size - answer(task).ByteSize()) > 0:
        padding += max(missing - 2, 1)
        task.metadata = f"pad {padding}"
    assert answer(task).ByteSize() == size
    return task


@scenario("the largest frames", "a task and a result of exactly the limit, 1 MiB", IEEE)
async def largest(pair: Pair, _: Program) -> None:
    await pair.caller.open(pair.endpoint, IEEE)
    await calls(pair.caller, of_size(MIB), for_result_of(MIB))
    await pair.caller.close()


@scenario(
    "frames over the limit",
    "a client sends no task over its limit, and no empty one; a server refuses a task over its own, "
    "and a result over it is a failure or a closed connection",
    SMALL,
)
async def over_the_limit(pair: Pair, _: Program) -> None:
    for task, kind in ((of_size(65_537), "too-large"), (DetectionTask(), "empty")):
        await pair.caller.open(pair.endpoint, SMALL)
        with failing(kind):
            await pair.caller.call(task)
    await pair.caller.open(pair.endpoint, IEEE)  # its limit is larger than the server's
    with failing("closed", "mismatch"):
        await pair.caller.call(of_size(65_537))
    await pair.caller.open(pair.endpoint, SMALL)
    try:
        [result] = await pair.caller.call(for_result_of(65_537))
    except PeerError as exc:
        assert exc.kind == "closed"  # noqa: PT017 - either of both is right
    else:
        assert not result.success
        assert "65537" in result.error_message.replace(",", "").replace("_", "")
    await pair.call_once(SMALL)


@scenario(
    "the limit of connections",
    "one place: a second client is closed or waits, the first one is not disturbed, and its place is free "
    "when it has left",
    ONE_PLACE,
)
async def limit_of_connections(pair: Pair, _: Program) -> None:
    async with pair.another_client() as second:
        await pair.caller.open(pair.endpoint, ONE_PLACE)
        await calls(pair.caller, DetectionTask(task_id="1"))
        await second.open(pair.endpoint, ONE_PLACE)
        if pair.server.waits_for_place:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(calls, second, DetectionTask(task_id="2"))
                await calls(pair.caller, DetectionTask(task_id="3"))
                await pair.caller.close()
            await second.close()
        else:
            with failing("closed"):
                await calls(second, DetectionTask(task_id="2"))
            await calls(pair.caller, DetectionTask(task_id="3"))
            await pair.caller.close()
        await pair.call_until_answered(ONE_PLACE, second)


@scenario("a client that is killed", "while its task is at work: its place is free again", ONE_PLACE)
async def client_killed(pair: Pair, server: Program) -> None:
    async with pair.another_client() as victim:
        while True:  # until the client before it has left
            try:
                await victim.open(pair.endpoint, ONE_PLACE)
                await calls(victim, DetectionTask(task_id="k"))
                break
            except PeerError as exc:
                if exc.kind != "closed":
                    raise
        tasks = [DetectionTask(task_id="k", metadata="sleep 200"), DetectionTask(task_id="after")]
        await victim.write_line(" ".join(["call", *(task.SerializeToString().hex() for task in tasks)]))
        assert await server.read_line() == "sleeping"
        await victim.kill()
    await pair.call_until_answered(ONE_PLACE)


# --- Ends ---------------------------------------------------------------------------------------------------


@scenario("a slow server", "the client's deadline ends the call, and it can connect again", IEEE)
async def slow_server(pair: Pair, server: Program) -> None:
    hasty = Settings(timeout_ms=200)
    await pair.caller.open(pair.endpoint, hasty)
    with failing("timeout"):
        await pair.caller.call(DetectionTask(task_id="s", metadata="sleep 1000"))
    assert await server.read_line() == "sleeping"
    await pair.call_once(IEEE)


@scenario(
    "a server that is killed",
    "at work, and started again: the call fails at once, the next is answered",
    IEEE,
    own=True,
)
async def server_killed(pair: Pair, server: Program) -> None:
    await pair.caller.open(pair.endpoint, IEEE)
    await calls(pair.caller, DetectionTask(task_id="1"))
    async with trio.open_nursery() as nursery:

        async def kill() -> None:
            assert await server.read_line() == "sleeping"
            await server.kill()

        nursery.start_soon(kill)
        with failing("closed"):
            await pair.caller.call(DetectionTask(task_id="2", metadata="sleep 60000"))
    assert exists(pair.endpoint)  # the dead server's socket, which the next one has to remove
    async with pair.serving(IEEE):
        await pair.call_once(IEEE)


@scenario(
    "a server that stops",
    "with a connection that is idle: it removes its socket; the next call fails, and so does connecting, "
    "until another one is started",
    IEEE,
    own=True,
)
async def server_stops(pair: Pair, server: Program) -> None:
    await pair.caller.open(pair.endpoint, IEEE)
    await calls(pair.caller, DetectionTask(task_id="1"))
    assert await server.end() == 0
    assert not exists(pair.endpoint)
    with failing("closed"):
        await pair.caller.call(DetectionTask(task_id="2"))
    with failing("connect"):
        await pair.call_once(IEEE)
    async with pair.serving(IEEE):
        await pair.call_once(IEEE)


@asynccontextmanager
async def paired(server: Peer, client: Peer, directory: str) -> AsyncIterator[Pair]:
    """A pair that meets in a directory."""
    async with programs.client(client) as caller:
        yield Pair(server, client, f"{directory}/{server.name}-{client.name}.sock", caller)
