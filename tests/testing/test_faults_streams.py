"""Which streams meet which faults, and streams of other kinds."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.support import read_to_end, succeed, task
from trio_ipc import (
    Client,
    IpcError,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    Delay,
    EndOfFile,
    Faults,
    Flip,
    Reset,
    Rule,
    Split,
    Stall,
    at_byte,
    at_random,
    memory_streams,
    open_pair,
)

# --- Which streams, and again -------------------------------------------------------------------------------


async def flipped(faults: Faults, *names: str) -> dict[str, bytes]:
    """What comes through streams that are wrapped in this order."""
    found = {}
    for name in names:
        near, far = memory_streams()
        await faults.wrap_as(name)(near).send_all(bytes(1000))
        found[name] = bytes(await far.receive_some())
    return found


async def test_a_seed_repeats_what_streams_of_a_name_meet_in_whatever_order_they_are_wrapped() -> None:
    rules = [at_random(0.05, Flip(0))]
    first = await flipped(Faults(seed=1, sending=rules), "a", "b", "c")
    second = await flipped(Faults(seed=1, sending=rules), "c", "a", "b")
    assert first == second
    assert len(set(first.values())) == 3
    faults = Faults(sending=[at_byte(0, Flip(0))], streams=1)
    assert await flipped(faults, "a", "b") == {"a": b"\1" + bytes(999), "b": b"\1" + bytes(999)}
    assert await flipped(faults, "a") == {"a": bytes(1000)}
    assert faults.hits == [
        "stream 'a' 1 sending byte 0: Flip(bit=0)",
        "stream 'b' 1 sending byte 0: Flip(bit=0)",
    ]


async def call_again_and_again(client: Client[DetectionTask, DetectionResult]) -> None:
    for number in range(100):
        await client.call(task(str(number)))


async def test_clients_of_a_name_meet_the_same_faults_whichever_is_first() -> None:
    async def meet(*names: str) -> dict[str, list[str]]:
        met: dict[str, list[str]] = {}
        faults = Faults(seed=5, receiving=[at_random(0.05, Flip())])
        for name in names:
            async with open_pair(succeed, DETECTION, wrap=faults.wrap_as(name)) as (client, _):
                with pytest.raises(IpcError):
                    await call_again_and_again(client)
            met[name] = [hit for hit in faults.hits if f"'{name}'" in hit]
        return met

    assert await meet("a", "b") == await meet("b", "a")


async def test_faults_that_are_used_again_do_as_at_first() -> None:
    faults = Faults(seed=3, sending=[at_random(0.1, Flip())], streams=1)
    seen = []
    for _ in range(2):
        with faults:
            outs = []
            for _ in range(2):
                near, far = memory_streams()
                await faults.wrap(near).send_all(bytes(100))
                outs.append(bytes(await far.receive_some()))
            seen.append((outs, faults.hits))
    assert seen[0] == seen[1]
    assert seen[0][1]


# --- Around streams of other kinds --------------------------------------------------------------------------


async def test_without_rules_a_stream_that_is_not_local_is_what_trio_asks_of_one() -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        left, right = trio.testing.memory_stream_pair()
        return Faults().wrap(left), Faults().wrap(right)

    await trio.testing.check_half_closeable_stream(make, None)


async def test_faults_go_around_a_stream_that_is_not_local(autojump_clock: trio.testing.MockClock) -> None:
    left, right = trio.testing.memory_stream_pair()
    faulty = Faults(
        sending=[at_byte(1, Flip(0)), at_byte(2, Delay(5))], receiving=[at_byte(2, Reset())]
    ).wrap(left)
    began = trio.current_time()
    await faulty.send_all(b"aac")
    assert trio.current_time() - began == pytest.approx(5)
    assert await right.receive_some() == b"a`c"
    await right.send_all(b"xyz")
    assert await faulty.receive_some() == b"xy"
    assert await right.receive_some() == b"", "the inner stream was closed as soon as the bytes were through"
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await faulty.receive_some()
    await faulty.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.receive_some()


@pytest.mark.parametrize("look", ["send_all", "receive_some", "wait_send_all_might_not_block", "send_eof"])
@pytest.mark.parametrize(
    "plan",
    [
        {"sending": [at_byte(0, Reset())]},
        {"receiving": [at_byte(0, Reset())]},
        {"receiving": [at_byte(0, Delay(1)), at_byte(0, Reset())]},
    ],
    ids=["sending", "receiving", "behind a pause"],
)
async def test_the_peer_sees_a_reset_of_a_stream_that_is_not_local_as_soon_as_somebody_looks(
    plan: dict[str, list[Rule]], look: str, autojump_clock: trio.testing.MockClock
) -> None:
    left, right = trio.testing.memory_stream_pair()
    faulty = Faults(**plan).wrap(left)  # type: ignore[arg-type]
    await trio.sleep(2)
    with pytest.raises(trio.BrokenResourceError):
        await getattr(faulty, look)(*[b"x"] * (look == "send_all"))
    with trio.fail_after(1):
        assert await right.receive_some() == b""


async def test_what_was_read_ahead_of_a_stream_that_is_not_local_is_nobodys_after_its_close() -> None:
    left, right = trio.testing.memory_stream_pair()
    faulty = Faults().wrap(left)
    await right.send_all(b"abc")
    assert await faulty.receive_some(1) == b"a"
    await faulty.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.receive_some()


def without_half_close(stream: trio.StapledStream[Any, Any]) -> trio.abc.Stream:
    """The same stream, less what can be half closed."""

    class Whole(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await stream.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return cast(bytes, await stream.receive_some(max_bytes))

        async def aclose(self) -> None:
            await stream.aclose()

    return Whole()


async def test_where_there_is_no_half_close_an_end_of_file_in_sending_closes_all() -> None:
    left, right = trio.testing.memory_stream_pair()
    faults = Faults(sending=[at_byte(1, EndOfFile())])
    faulty = faults.wrap(without_half_close(left))
    assert not isinstance(faulty, trio.abc.HalfCloseableStream)
    await faulty.send_all(b"a")
    assert await read_to_end(right) == b"a"
    with pytest.raises(trio.BrokenResourceError):
        await faulty.receive_some()
    assert faults.hits == ["stream 1 sending byte 1: EndOfFile()"]


async def test_a_stall_in_sending_on_a_stream_that_is_not_local_ends_with_its_close() -> None:
    left, _right = trio.testing.memory_stream_pair()
    faulty = Faults(sending=[at_byte(0, Stall())]).wrap(left)

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await faulty.send_all(b"a")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(trio.sleep, 0.05)
        await trio.testing.wait_all_tasks_blocked()
        await faulty.aclose()


async def test_who_waits_out_a_pause_is_woken_by_the_close(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(0, Delay(1000))]).wrap(near)
    await far.send_all(b"a")

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await faulty.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.sleep(1)
        with pytest.raises(trio.BusyResourceError):
            await faulty.wait_readable()
        await faulty.aclose()
    assert trio.current_time() < 10


async def test_a_reset_in_receiving_breaks_a_send_in_progress(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = trio.testing.memory_stream_pair()
    left.send_stream.send_all_hook = partial(trio.sleep, 1)
    faulty = Faults(sending=[at_byte(1, Split())], receiving=[at_byte(1, Reset())]).wrap(left)

    async def send() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await faulty.send_all(b"abc")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await right.send_all(b"xy")
        assert await faulty.receive_some() == b"x"
