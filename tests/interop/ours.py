"""The program around this project: ``python -m tests.interop.ours TRANSPORT serve|call``.

README.md says what it reads and prints. It uses public names only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Final

import trio

from trio_ipc import (
    Call,
    CallTimeoutError,
    ChecksumMismatchError,
    Client,
    ConnectError,
    EndpointError,
    FrameTooLargeError,
    InvalidLengthError,
    IpcConfig,
    IpcError,
    MessageEmptyError,
    MessageTooLargeError,
    ReadTimeoutError,
    ResponseMismatchError,
    Server,
    UndecodableMessageError,
    UnsolicitedResponseError,
    WriteTimeoutError,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .answers import answer, milliseconds

#: What is none of these is a connection that ended.
_KINDS: Final[dict[str, tuple[type[IpcError], ...]]] = {
    "connect": (ConnectError,),
    "timeout": (ReadTimeoutError, WriteTimeoutError, CallTimeoutError),
    "length": (InvalidLengthError, FrameTooLargeError),
    "checksum": (ChecksumMismatchError,),
    "decode": (UndecodableMessageError,),
    "mismatch": (ResponseMismatchError, UnsolicitedResponseError),
    "empty": (MessageEmptyError,),
    "too-large": (MessageTooLargeError,),
}


def main(transport: str, command: str, *arguments: str) -> None:
    if command == "call":
        trio.run(Commands(transport).run)
        return
    endpoint, variant, limit, places, timeout = arguments
    config = IpcConfig.load(
        environ={},
        transport=transport,
        endpoint_path=endpoint,
        crc32_variant=variant,
        max_frame_bytes=int(limit),
        max_connections=int(places),
        read_timeout_ms=int(timeout),
        write_timeout_ms=int(timeout),
        handler_timeout_ms=60_000,
    )
    problem = ""
    try:
        trio.run(run_server, config)
    except* EndpointError as group:
        problem = "; ".join(map(str, group.exceptions))
    if problem:
        sys.exit(problem)


# --- The server ---------------------------------------------------------------------------------------------


async def handle(task: DetectionTask, _: Call) -> DetectionResult:
    if delay := milliseconds(task):
        print("sleeping", flush=True)
        await trio.sleep(delay / 1000)
    return answer(task)


async def run_server(config: IpcConfig) -> None:
    async with trio.open_nursery() as nursery:
        server: Server[DetectionTask, DetectionResult] = await nursery.start(serve, handle, DETECTION, config)
        print("listening", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        server.stop()


# --- The client's commands ----------------------------------------------------------------------------------


class Commands:
    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._stack = AsyncExitStack()
        self._client: Client[DetectionTask, DetectionResult] | None = None

    async def run(self) -> None:
        async for line in trio.wrap_file(sys.stdin):
            command, *words = line.split()
            try:
                said = await self._do(command, words)
            except IpcError as exc:
                await self._close()
                kind = next((kind for kind, types in _KINDS.items() if isinstance(exc, types)), "closed")
                said = [*_results(exc.responses), f"error {kind} {str(exc).replace(chr(10), ' ')}"]
            print(*said, sep="\n", flush=True)
        await self._close()

    async def _do(self, command: str, words: list[str]) -> list[str]:
        if command == "open":
            await self._open(*words)
            return ["ok"]
        if command == "close":
            await self._close()
            return ["ok"]
        if command != "call":
            return ["unsupported"]  # its sending side is its own; protobuf is not ours to try
        if self._client is None:
            return ["error closed there is no connection"]
        tasks = [DetectionTask.FromString(bytes.fromhex(word.strip("-"))) for word in words]
        return _results(await self._client.call_many(tasks))

    async def _open(self, endpoint: str, variant: str, limit: str, timeout_ms: str) -> None:
        await self._close()
        config = IpcConfig.load(
            environ={},
            transport=self._transport,
            endpoint_path=endpoint,
            crc32_variant=variant,
            max_frame_bytes=int(limit),
            read_timeout_ms=int(timeout_ms),
            write_timeout_ms=int(timeout_ms),
        )
        self._client = await self._stack.enter_async_context(open_client(DETECTION, config))

    async def _close(self) -> None:
        self._client = None
        await self._stack.aclose()
        self._stack = AsyncExitStack()


def _results(results: Iterable[DetectionResult]) -> list[str]:
    return [f"result {result.SerializeToString().hex() or '-'}" for result in results]


if __name__ == "__main__":
    main(*sys.argv[1:])
