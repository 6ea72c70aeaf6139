"""Protobuf's decoder in Python, which is what there is without a wheel: on some musl and ARM systems, PyPy.

It raises more than the compiled one: a `UnicodeDecodeError` for text that is none, for one. To a peer and to
a caller it is an undecodable message all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import google.protobuf
import pytest
import trio
from google.protobuf.internal import api_implementation

from tests.hardening.hostile_support import BAD_TEXTS, STRINGS, nested_groups, refused_as_undecodable
from tests.hardening.record import ROOT, Attack
from tests.support import MIB, task
from trio_ipc import IpcConfig, PeerPolicy, TransportType, UndecodableMessageError, open_client
from trio_ipc.daemoneye import DETECTION
from trio_ipc.transports import LocalStream, listen
from trio_ipc.wire import FrameEncoder


async def _to_a_server(config: IpcConfig) -> None:
    texts = [string(text) for string in STRINGS for text in BAD_TEXTS]
    await refused_as_undecodable(config, texts)
    # Groups that nobody knows have no limit of their own in 5.26; Python's recursion has.
    depths = (
        (10_000, MIB // 2) if google.protobuf.__version__.startswith("5.26.") else (101, 10_000, MIB // 2)
    )
    await refused_as_undecodable(config, [nested_groups(depth) for depth in depths])


@asynccontextmanager
async def _answering(config: IpcConfig, payload: bytes) -> AsyncIterator[None]:
    frame = FrameEncoder(config.max_frame_bytes, config.crc32_variant).encode(payload)

    async def answer(stream: LocalStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(frame)
            await stream.receive_some()

    async with (
        await listen(config.endpoint_path, PeerPolicy.anyone()) as listener,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield
        nursery.cancel_scope.cancel()


async def _to_a_client(config: IpcConfig) -> None:
    for text in BAD_TEXTS:
        # A result's id, and the text of its error.
        for payload in (bytes([0x0A, len(text)]) + text, bytes([0x1A, len(text)]) + text):
            for max_in_flight in (1, 4):
                for many in (False, True):
                    async with (
                        _answering(config, payload),
                        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
                    ):
                        with pytest.raises(UndecodableMessageError, match="does not decode as .*Result"):
                            await (client.call_many([task()]) if many else client.call(task()))
                        assert client.is_broken


def main(side: str, path: str, transport: str) -> None:
    assert api_implementation.Type() == "python"
    config = IpcConfig(endpoint_path=path, transport=TransportType(transport))
    trio.run(_to_a_server if side == "server" else _to_a_client, config)


@pytest.mark.parametrize("side", ["server", "client"])
async def test_what_the_decoder_in_python_raises_is_an_undecodable_message(
    config: IpcConfig, side: str, attack: Attack
) -> None:
    environ = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    command = [sys.executable, "-m", __name__, side, config.endpoint_path, str(config.transport)]
    await trio.run_process(command, cwd=ROOT, env=environ)
    attack(
        "text that is no UTF-8 to a server and a client whose protobuf decodes in Python, and groups nested "
        "without end to the server",
        tried=33,
        outcome="as with the compiled decoder: the reason told, an `UndecodableMessageError`, the connection "
        "closed; others answered",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
