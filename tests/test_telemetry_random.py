"""Random connections, whose counts add up at every step."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.audits import (
    CONFIG,
    Handler,
    client_disagreements,
    disagreements,
)
from tests.support import (
    ME,
    DetectionClient,
    DetectionServer,
    MemoryEndpoint,
    frame,
    read_to_end,
    serving,
    task,
)
from trio_ipc import (
    Client,
    ClientSnapshot,
    FramedChannel,
    IpcConfig,
    IpcError,
    ServerSnapshot,
    open_client,
)
from trio_ipc.daemoneye import DETECTION


class Auditor(trio.abc.Instrument):
    """Checks the sums after every step of every task."""

    def __init__(self, server: DetectionServer) -> None:
        self._server = server
        self.clients: list[DetectionClient] = []
        self.found: list[str] = []
        self.steps = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        self.found += disagreements(self._server.snapshot())
        for client in self.clients:
            self.found += client_disagreements(client.snapshot())


# --- Random connections -------------------------------------------------------------------------------------


Stream: TypeAlias = trio.StapledStream[Any, Any]

Link: TypeAlias = tuple[Stream, Stream]
#: How a client behaves, from when, for how long, what it asks, and whether by a stream without a buffer.
Behaviour: TypeAlias = tuple[str, float, float, list[str], bool]

BEHAVIOURS = ["calls", "shares", "garbage", "truncated", "leaves", "idles", "deaf", "stranger", "broken"]

KINDS = ["quick", "slow", "hang", "raise", "late", "large", "wrong", "too large"]

MOMENTS = st.sampled_from([0.0, 0.1, 0.7, 1.5, 2.0, 3.0])

CLIENTS = st.lists(
    st.tuples(
        st.sampled_from(BEHAVIOURS),
        MOMENTS,
        MOMENTS,
        st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


class Broken(FramedChannel):
    """Has a defect."""

    async def fill(self, deadline: float | None = None) -> bool:
        raise RuntimeError("a defect")


class Clients:
    """Clients of all kinds against one server in memory."""

    def __init__(self) -> None:
        self.endpoint = MemoryEndpoint(CONFIG)
        self.handler = Handler()
        self.outcomes: Counter[str] = Counter()
        self.offered = 0

    async def run(self, clients: list[Behaviour], end: float, graceful: bool) -> None:
        async with trio.open_nursery() as nursery:
            async with serving(self.handler, self.endpoint) as server:
                auditor = Auditor(server)
                trio.lowlevel.add_instrument(auditor)
                for client in clients:
                    nursery.start_soon(self._behave, auditor, client)
                await trio.sleep(end)
                if graceful:
                    server.stop()
                    await server.wait_stopped()
        trio.lowlevel.remove_instrument(auditor)
        self._check(server.snapshot(), auditor)

    async def _behave(self, auditor: Auditor, behaviour: Behaviour) -> None:
        how, begin, seconds, kinds, lockstep = behaviour
        await trio.sleep(begin)
        pair: Callable[[], Link] = (
            trio.testing.lockstep_stream_pair
            if lockstep or how == "deaf"
            else trio.testing.memory_stream_pair
        )
        near, far = pair()
        kind_of_channel = Broken if how == "broken" else FramedChannel
        peer = None if how == "stranger" else ME
        try:
            self.endpoint.offer(kind_of_channel(far, CONFIG, endpoint="memory", peer=peer))
        except trio.BrokenResourceError:
            return  # the server has ended
        self.offered += 1
        async with near:
            with trio.move_on_after(10):
                if how in {"calls", "shares"}:
                    await self._call(auditor, near, kinds, seconds, together=how == "shares")
                else:
                    await self._misbehave(near, how, seconds, kinds)

    async def _call(
        self, auditor: Auditor, near: trio.abc.Stream, kinds: list[str], seconds: float, together: bool
    ) -> None:
        config = CONFIG.replace(read_timeout_ms=1_000) if together else CONFIG
        client = Client(FramedChannel(near, config, endpoint="memory", peer=ME), DETECTION, config)
        auditor.clients.append(client)
        async with trio.open_nursery() as nursery:
            for kind in kinds:
                if together:
                    nursery.start_soon(self._call_once, client, kind, seconds)
                else:
                    await self._call_once(client, kind, seconds)

    async def _call_once(self, client: DetectionClient, kind: str, seconds: float) -> None:
        request = task("x" * 2_000) if kind == "too large" else task(kind)
        outcome = "cancelled"
        try:
            with trio.move_on_after(seconds or math.inf):
                await client.call(request)
                outcome = "answered"
        except IpcError:
            outcome = "failed"
        finally:
            self.outcomes[outcome] += 1

    async def _misbehave(self, near: Stream, how: str, seconds: float, kinds: list[str]) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            if how == "garbage":
                await near.send_all(frame(task(kinds[0])) + bytes(8))
                await read_to_end(near)
            elif how == "truncated":
                await near.send_all(frame(task())[:5])
                await trio.sleep(seconds)
            elif how == "leaves":
                await near.send_all(b"".join(frame(task(kind)) for kind in kinds))
                await trio.sleep(seconds)
            elif how == "deaf":
                await near.send_all(frame(task(kinds[0])))
                await trio.sleep_forever()
            else:
                await read_to_end(near)

    def _check(self, whole: ServerSnapshot, auditor: Auditor) -> None:
        assert auditor.found == []
        assert auditor.steps > 0
        assert disagreements(whole) == []
        assert (whole.connections_waiting, whole.connections_active, whole.requests_in_flight) == (0, 0, 0)
        # Those that the stop found in the queue of the listener were never accepted.
        assert whole.connections_accepted <= self.offered
        assert whole.requests == self.handler.begun
        assert whole.handler_seconds.count == self.handler.ended == self.handler.begun
        assert whole.frames_received >= whole.requests
        clients = [client.snapshot() for client in auditor.clients]
        assert sum(client.calls for client in clients) == self.outcomes.total()
        assert sum(client.calls_answered for client in clients) == self.outcomes["answered"]
        assert sum(client.calls_in_flight for client in clients) == 0
        cancelled = sum(client.calls_failed["cancelled"] for client in clients)
        assert cancelled == self.outcomes["cancelled"]
        failed = sum(sum(client.calls_failed.values()) for client in clients)
        assert failed == self.outcomes["cancelled"] + self.outcomes["failed"]


@settings(deadline=None, max_examples=150)
@given(CLIENTS, st.sampled_from([0.3, 1.0, 2.2, 4.0, 60.0]), st.booleans())
def test_whatever_clients_do_the_sums_hold_at_every_step(
    clients: list[Behaviour], end: float, graceful: bool
) -> None:
    clock = MockClock(autojump_threshold=0)
    trio.run(Clients().run, clients, end, graceful, clock=clock)


async def test_what_both_sides_count_is_the_same(config: IpcConfig) -> None:
    """Over the real transport, several clients, to their ends."""
    handler = Handler()
    async with serving(handler, config) as server:
        clients: list[ClientSnapshot] = []

        async def talk(kind: str) -> None:
            async with open_client(DETECTION, config) as client:
                for _ in range(20):
                    await client.call(task(kind))
                clients.append(client.snapshot())

        async with trio.open_nursery() as nursery:
            for kind in ("quick", "raise", "wrong", "large", "quick"):
                nursery.start_soon(talk, kind)
        server.stop()
        await server.wait_stopped()
    whole = server.snapshot()
    assert disagreements(whole) == []
    assert whole.requests == sum(client.calls_answered for client in clients) == 100
    assert dict(whole.requests_failed) == dict.fromkeys(whole.requests_failed, 0) | {"handler": 40}
    assert whole.requests_answered == 60
    for mine, theirs in (("received", "sent"), ("sent", "received")):
        for what in ("frames", "bytes"):
            counted = sum(getattr(client, f"{what}_{theirs}") for client in clients)
            assert getattr(whole, f"{what}_{mine}") == counted
    assert whole.connections_closed["peer_closed"] + whole.connections_closed["stopped"] == 5
