"""Two sides of different checksum variants: they find each other, or each of them is told why not."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Any, Literal

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.resilient.support import PLAIN, UNREPEATABLE
from tests.support import succeed, success, task
from trio_ipc import (
    AttemptsFailedError,
    CallTimeoutError,
    ChannelClosedError,
    ChecksumMismatchError,
    ConfigError,
    Contract,
    Crc32Variant,
    IpcConfig,
    IpcError,
    PeerClosedError,
    ResponseMismatchError,
    TransportType,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.legacy.frames import FrameReader
from trio_ipc.resilient import Endpoint, ResilientConfig, open_resilient_client
from trio_ipc.resilient.failures import failure
from trio_ipc.testing import (
    MemoryEndpoint,
    MemoryNetwork,
    close_instead,
    hang,
    open_client_at,
    open_server,
    simulate_server,
    temporary_endpoint,
)
from trio_ipc.wire import FrameDecoder, FrameEncoder

IEEE, CASTAGNOLI = Crc32Variant.IEEE, Crc32Variant.CASTAGNOLI
LIMIT = 1 << 16
Setting = Crc32Variant | Literal["auto"]

#: Both reading ends, behind one form: bytes in, payloads out, the variant that it was told.
Reader = Callable[[Setting, bytes, int], tuple[list[bytes], list[Crc32Variant]]]


def frames(*payloads: bytes, of: Crc32Variant) -> bytes:
    return FrameEncoder(LIMIT, of).encode_many(payloads)


def by_default(setting: Setting, data: bytes, step: int) -> tuple[list[bytes], list[Crc32Variant]]:
    found, told = list[bytes](), list[Crc32Variant]()
    decoder = FrameDecoder(LIMIT, setting, told.append)
    for at in range(0, len(data), step):
        decoder.feed(data[at : at + step])
        while (payload := decoder.next_payload()) is not None:
            found.append(payload)
    return found, told


def by_legacy(setting: Setting, data: bytes, step: int) -> tuple[list[bytes], list[Crc32Variant]]:
    found, told = list[bytes](), list[Crc32Variant]()
    reader = FrameReader(LIMIT, setting, on_other=told.append)
    while data or not reader.missing:
        taken = min(reader.missing, step)
        reader.add(data[:taken])
        data = data[taken:]
        if (payload := reader.take()) is not None:
            found.append(payload)
    return found, told


READERS = pytest.mark.parametrize("read", [by_default, by_legacy])


# --- The first frame decides --------------------------------------------------------------------------------


@READERS
@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5),
    st.sampled_from(Crc32Variant),
    st.integers(1, 700),
)
def test_auto_reads_whatever_the_first_frame_is_of(
    read: Reader, payloads: list[bytes], variant: Crc32Variant, step: int
) -> None:
    # Of up to four bytes of ones, which are no message, both checksums are the same.
    payloads[0] = b"\x0a" + payloads[0]
    found, told = read("auto", frames(*payloads, of=variant), step)
    assert found == payloads
    assert told == ([] if variant is IEEE else [CASTAGNOLI])


@READERS
@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("first", Crc32Variant)
def test_a_later_frame_of_the_other_variant_is_refused(read: Reader, first: Crc32Variant, step: int) -> None:
    data = frames(b"one", of=first) + frames(b"two", of=first.other)
    with pytest.raises(
        ChecksumMismatchError, match=rf"\({first}\).*the peer uses the {first.other}"
    ) as caught:
        read("auto", data, step)
    assert caught.value.peer_variant is None, "the peer has shown that it is set to the right one"


@READERS
@pytest.mark.parametrize("setting", [*Crc32Variant, "auto"])
def test_a_first_frame_that_is_right_by_neither_is_refused(read: Reader, setting: Setting) -> None:
    with pytest.raises(ChecksumMismatchError, match="damaged") as caught:
        read(setting, struct.pack("<II", 3, 0xDEADBEEF) + b"one", 1000)
    assert caught.value.peer_variant is None


@READERS
@pytest.mark.parametrize("ours", Crc32Variant)
def test_a_first_frame_of_the_other_variant_is_refused_by_its_name(read: Reader, ours: Crc32Variant) -> None:
    with pytest.raises(ChecksumMismatchError) as caught:
        read(ours, frames(b"one", of=ours.other), 1000)
    assert caught.value.peer_variant == ours.other


def test_the_setting_is_one_of_three() -> None:
    assert IpcConfig(crc32_variant="auto").crc32_variant == "auto"
    assert IpcConfig().crc32_variant is IEEE, "the ADR's default"
    assert IpcConfig.load(environ={"TRIO_IPC_CRC32_VARIANT": "auto"}).crc32_variant == "auto"
    with pytest.raises(ConfigError, match='must be "ieee" or "castagnoli" or "auto"'):
        IpcConfig(crc32_variant="crc32")


# --- Servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", Crc32Variant)
@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_a_server_with_auto_answers_each_client_in_its_variant(
    config: IpcConfig, variant: Crc32Variant, max_in_flight: int
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, succeed, DETECTION, config.replace(crc32_variant="auto"))
        theirs = config.replace(crc32_variant=variant)
        async with open_client(DETECTION, theirs, max_in_flight=max_in_flight) as client:
            for name in "abc":
                assert (await client.call(task(name))).task_id == name
            assert [one.task_id for one in await client.call_many(map(task, "de"))] == ["d", "e"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ours", Crc32Variant)
async def test_the_refusal_can_be_read_and_is_logged_once_for_each_peer(
    config: IpcConfig, ours: Crc32Variant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, succeed, DETECTION, config.replace(crc32_variant=ours))
        for _ in range(3):
            async with open_client(DETECTION, config.replace(crc32_variant=ours.other)) as client:
                with pytest.raises(ResponseMismatchError) as caught:
                    await client.call(task())
                said = f"crc32_variant of this frame is {ours.other}, this server is set to {ours}"
                assert said in str(caught.value)
        nursery.cancel_scope.cancel()
    [line] = [record for record in caplog.records if "variant" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert f"frames of the {ours.other} variant, this server is set to {ours}" in line.getMessage()


# --- Clients ------------------------------------------------------------------------------------------------

#: It has no request that may be repeated, but servers can be asked what they can do.
ASKABLE = attrs.evolve(DETECTION, repeatable=False)
SINGLE_AND_SHARED = pytest.mark.parametrize("max_in_flight", [1, 4])


@SINGLE_AND_SHARED
@pytest.mark.parametrize("theirs", Crc32Variant)
@pytest.mark.parametrize("contract", [DETECTION, PLAIN, ASKABLE])
async def test_a_client_finds_out_once_what_a_server_speaks_that_closes_without_a_word(
    theirs: Crc32Variant, contract: Contract[Any, Any], max_in_flight: int, transport: TransportType
) -> None:
    with temporary_endpoint(transport) as endpoint:
        async with (
            simulate_server(succeed, contract, endpoint=endpoint, crc32_variant=theirs) as server,
            open_client_at(contract, endpoint, crc32_variant="auto", max_in_flight=max_in_flight) as client,
        ):
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(client.call, task(name))
            assert [one.task_id for one in await client.call_many(map(task, "de"))] == ["d", "e"]
            assert server.connections == (1 if theirs is IEEE else 2)
            asked = [one.task_id for one in server.asked if len(one.task_id) == 1]
            assert sorted(asked) == ["a", "b", "c", "d", "e"], "nothing was done twice"


@SINGLE_AND_SHARED
async def test_many_calls_find_out_as_well(max_in_flight: int) -> None:
    async with (
        simulate_server(succeed, PLAIN, crc32_variant=CASTAGNOLI) as server,
        open_client_at(PLAIN, server.endpoint, crc32_variant="auto", max_in_flight=max_in_flight) as client,
    ):
        assert await client.call_many([]) == []
        assert [one.task_id for one in await client.call_many(map(task, "abc"))] == ["a", "b", "c"]
        assert (server.connections, len(server.asked)) == (2, 3)


@SINGLE_AND_SHARED
async def test_where_no_request_is_harmless_nothing_is_repeated(max_in_flight: int) -> None:
    async with (
        simulate_server(succeed, UNREPEATABLE, crc32_variant=CASTAGNOLI) as server,
        open_client_at(
            UNREPEATABLE, server.endpoint, crc32_variant="auto", max_in_flight=max_in_flight
        ) as client,
    ):
        with pytest.raises(PeerClosedError, match="may speak the castagnoli variant: crc32_variant is auto"):
            await client.call(task())
        assert (server.connections, server.asked) == (1, [])


@pytest.mark.parametrize("contract", [DETECTION, PLAIN, attrs.evolve(PLAIN, mismatch=lambda _a, _b: None)])
async def test_a_server_that_says_why_it_refuses_is_understood(contract: Contract[Any, Any]) -> None:
    endpoint = MemoryEndpoint()
    async with (
        open_server(succeed, contract, endpoint, crc32_variant=CASTAGNOLI),
        open_client_at(contract, endpoint, crc32_variant="auto") as client,
        open_resilient_client(
            contract,
            [Endpoint(IpcConfig(endpoint_path=endpoint.path, crc32_variant="auto"))],
            connect=endpoint.open_channel,
        ) as resilient,
    ):
        assert (await client.call(task("a"))) == success("a")
        assert (await resilient.call(task("a"))) == success("a")


async def test_a_server_that_closes_whatever_comes_is_tried_twice_and_no_more() -> None:
    async with (
        simulate_server(succeed, PLAIN) as server,
        open_client_at(PLAIN, server.endpoint, crc32_variant="auto") as client,
    ):
        server.default = close_instead()
        with pytest.raises(PeerClosedError, match="ieee and castagnoli were both tried"):
            await client.call(task())
        assert server.connections == 2


async def test_the_timeout_holds_for_both_tries(autojump_clock: MockClock) -> None:
    async with (
        simulate_server(succeed, PLAIN, crc32_variant=CASTAGNOLI) as server,
        open_client_at(PLAIN, server.endpoint, crc32_variant="auto") as client,
    ):
        server.default = hang()
        with pytest.raises(CallTimeoutError, match="the limit timeout is 2 s; ") as caught:
            await client.call(task(), timeout=2)
        assert str(caught.value).count("the limit timeout") == 1
        assert trio.current_time() == pytest.approx(2)


async def test_a_client_that_is_closed_while_it_connects_again_keeps_nothing_open() -> None:
    async with simulate_server(succeed, PLAIN, crc32_variant=CASTAGNOLI) as server:
        async with trio.open_nursery() as nursery:
            async with open_client_at(PLAIN, server.endpoint, crc32_variant="auto") as client:

                async def call() -> None:
                    with pytest.raises(ChannelClosedError):
                        await client.call(task())

                await trio.testing.wait_all_tasks_blocked()
                server.endpoint.hang()  # type: ignore[attr-defined]  # it is one in memory
                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
            server.endpoint.admit()  # type: ignore[attr-defined]
        await trio.testing.wait_all_tasks_blocked()
        assert server.open_connections == 0


# --- Resilient clients --------------------------------------------------------------------------------------


@SINGLE_AND_SHARED
@pytest.mark.parametrize("contract", [DETECTION, PLAIN, ASKABLE])
async def test_a_resilient_client_remembers_for_each_endpoint(
    contract: Contract[Any, Any], max_in_flight: int, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with (
        simulate_server(succeed, contract, endpoint=network.endpoint("a"), crc32_variant=CASTAGNOLI) as a,
        simulate_server(succeed, contract, endpoint=network.endpoint("b"), crc32_variant=IEEE) as b,
        open_resilient_client(
            contract,
            [Endpoint(one.config.replace(crc32_variant="auto")) for one in (a, b)],
            ResilientConfig(max_in_flight=max_in_flight),
            connect=network.open_channel,
        ) as client,
    ):
        for number in range(8):
            assert (await client.ask(task(str(number)))).attempts == ()
        assert (a.connections, b.connections) == (2, 1)
        a.drop_connections()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(4):
            await client.call(task())
        assert a.connections == 3, "it knows by now"
        assert all(one.healthy for one in client.statistics())


async def test_an_endpoint_that_has_changed_its_variant_is_found_out_again(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint()
    config = IpcConfig(endpoint_path=endpoint.path, crc32_variant="auto")
    async with open_resilient_client(DETECTION, [Endpoint(config)], connect=endpoint.open_channel) as client:
        for variant in (IEEE, CASTAGNOLI, IEEE):
            async with simulate_server(succeed, DETECTION, endpoint=endpoint, crc32_variant=variant):
                assert await client.call(task()) == success()


async def test_a_resilient_client_repeats_nothing_that_may_not_be_repeated(autojump_clock: MockClock) -> None:
    async with (
        simulate_server(succeed, UNREPEATABLE, crc32_variant=CASTAGNOLI) as server,
        open_resilient_client(
            UNREPEATABLE,
            [Endpoint(server.config.replace(crc32_variant="auto"))],
            connect=server.endpoint.open_channel,
        ) as client,
    ):
        with pytest.raises(PeerClosedError, match="may speak the castagnoli variant: crc32_variant is auto"):
            await client.call(task())
        assert server.connections == 1
        assert await client.call(task()) == success(), "another call, which begins with the other variant"


@pytest.mark.parametrize("contract", [DETECTION, PLAIN])
async def test_when_all_tries_have_failed_the_variants_are_named_first(
    contract: Contract[Any, Any], autojump_clock: MockClock
) -> None:
    async with (
        simulate_server(succeed, contract, crc32_variant=CASTAGNOLI) as server,
        open_resilient_client(
            contract,
            [Endpoint(server.config.replace(crc32_variant=IEEE))],
            connect=server.endpoint.open_channel,
        ) as client,
    ):
        with pytest.raises(AttemptsFailedError) as caught:
            await client.call(task())
    said = str(caught.value)
    assert 0 < said.index("crc32_variant") < said.index("the peer closed the connection (")


async def test_damage_by_another_variant_comes_before_what_is_only_closed() -> None:
    closed = PeerClosedError("the peer closed the connection", endpoint="a", hint="compare crc32_variant")
    clear = ChecksumMismatchError("checksum mismatch", endpoint="b", hint="the peer uses the ieee variant")
    clear.peer_variant = "ieee"
    said = str(failure([closed, closed, clear]))
    assert said.index("the peer uses the ieee variant") < said.index("b: checksum mismatch")
    assert said.index("b: checksum mismatch") < said.index("a: the peer closed the connection (2 times)")


# --- Hints --------------------------------------------------------------------------------------------------


@SINGLE_AND_SHARED
async def test_every_error_of_a_broken_connection_keeps_the_hint(max_in_flight: int) -> None:
    hint = "the peer uses the castagnoli variant"

    async def lie(request: Any, reply: Any) -> None:
        answer = (await reply.proper()).SerializeToString()
        await reply.send_bytes(frames(answer, of=CASTAGNOLI))

    async with (
        simulate_server(succeed, PLAIN) as server,
        open_client_at(PLAIN, server.endpoint, max_in_flight=max_in_flight) as client,
    ):
        server.default = lie
        errors: list[IpcError] = []

        async def call() -> None:
            try:
                await client.call(task())
            except IpcError as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
        with pytest.raises(IpcError) as caught:
            await client.call_many([task(), task()])
        assert [hint in str(one) for one in [*errors, caught.value]] == [True] * 4
