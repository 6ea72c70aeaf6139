"""The command in processes forked from one that has loaded it, which cost far less than to start Python anew.

Each run is a process of its own, with its own descriptors, environment and exit status. Only what it imports
is there before; what depends on that is tested with processes that begin from nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

assert sys.platform != "win32"

#: Bytes of a request, less than what a Unix socket takes at once: the arguments and the environment.
_MOST: Final = 1 << 17
#: Standard input, output and error, and where the process's number and its exit status are written.
_DESCRIPTORS: Final = 4
#: What most commands load when they run, besides all of their own modules.
_LOADED: Final = (
    "trio_ipc.cli",
    "trio_ipc.cli.commands",
    "trio_ipc.daemoneye",
    "trio_ipc.resilient",
    "trio_ipc.server",
    "trio_ipc.testing",
    "google.protobuf.json_format",
    "rich.console",
    "rich.table",
)


class Forker:
    """The process that forks the others. It ends when nobody can ask it any more."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            # Pipes, as its children have them: what Python makes of a stream depends on what that is.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        """End it, and wait for that: what it has covered is written then."""
        self._requests.close()
        _, errors = self._process.communicate()
        assert not errors, errors.decode()

    async def run(
        self, arguments: Sequence[str], stdin: bytes, environ: Mapping[str, str]
    ) -> tuple[int, bytes, bytes]:
        """Run ``trio-ipc`` to its end; return its exit status, and what it wrote. Cancelled, it is killed."""
        reads, into = os.pipe()
        pipes = [os.pipe() for _ in range(_DESCRIPTORS - 1)]
        theirs = [reads, *(writes for _, writes in pipes)]
        request = json.dumps([os.getcwd(), list(arguments), dict(environ)]).encode()
        try:
            socket.send_fds(self._requests, [request], theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        streams = [trio.lowlevel.FdStream(descriptor) for descriptor in (into, *(ours for ours, _ in pipes))]
        async with streams[0] as writing, streams[1] as out, streams[2] as err, streams[3] as told:
            with trio.CancelScope(shield=True):  # it comes at once, and what has no number cannot be killed
                process, status = int(await _line(told)), None
            said: dict[int, bytes] = {}
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_give, writing, stdin)
                    nursery.start_soon(_take, out, said, 1)
                    nursery.start_soon(_take, err, said, 2)
                status = int(await _line(told))
            finally:
                if status is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            return status, said[1], said[2]


async def _give(stream: trio.abc.SendStream, data: bytes) -> None:
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):  # it may end without reading all of it
            await stream.send_all(data)


async def _take(stream: trio.abc.ReceiveStream, said: dict[int, bytes], number: int) -> None:
    said[number] = b"".join([piece async for piece in stream])


async def _line(stream: trio.abc.ReceiveStream) -> str:
    line = b""
    while not line.endswith(b"\n"):
        piece = await stream.receive_some(1)
        assert piece, "the process that forks the others has failed"
        line += piece
    return line.decode()


# --- In the process that forks ------------------------------------------------------------------------------


def _load() -> None:
    for name in _LOADED:
        importlib.import_module(name)
        package = sys.modules[name]
        for inner in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{name}."):
            if not inner.name.endswith("__main__"):
                importlib.import_module(inner.name)


def main(requests: socket.socket) -> None:
    _load()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who presses Ctrl-C ends the tests, and so this process
    gc.freeze()  # or each collection in a child copies what it shares with this process
    watching: set[int] = set()
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _MOST, _DESCRIPTORS)
        # Waited for, so that what they took is counted.
        how = os.WNOHANG if request else 0
        watching -= {process for process in watching if os.waitpid(process, how)[0]}
        if not request:
            return
        process = os.fork()
        if process == 0:
            requests.close()
            _watch(request, descriptors)
            return
        watching.add(process)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request: bytes, descriptors: Sequence[int]) -> None:
    """Start the command, and tell its number and its exit status; return in the process of the command."""
    *standard, told = descriptors
    process = os.fork()
    if process == 0:
        os.close(told)
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _become(*json.loads(request))
        return
    for descriptor in standard:
        os.close(descriptor)
    os.write(told, b"%d\n" % process)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # of a run that was cancelled
        os.write(told, b"%d\n" % status)
    os._exit(0)


def _become(directory: str, arguments: list[str], environ: dict[str, str]) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:0] = [directory, *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv[1:] = arguments
    runpy.run_module("trio_ipc", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
