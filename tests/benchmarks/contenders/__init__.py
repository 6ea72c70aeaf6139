"""Those who are measured. Each is a module, imported only by the processes that need it.

A contender serves at a path until it is killed, and opens loads for clients. How each does that is as its
own documentation recommends; docs/benchmarks.md tells it.
"""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple

from .base import AsyncContender, BlockingContender, Contender

__all__ = ["CONTENDERS", "AsyncContender", "BlockingContender", "Contender", "Entry", "load"]


class Entry(NamedTuple):
    """Where a contender is, and what it is called."""

    module: str
    label: str
    #: The package whose version is told, if it needs one.
    package: str | None = None
    #: Whether its many callers share one client, by its own means.
    shares: bool = False
    #: The pieces of work in which it differs from another contender, if not in all.
    only: frozenset[str] = frozenset()


#: What an adapter adds to the client behind it: to a call, to calls at a time, to opening it.
_OF_ADAPTERS: Final = frozenset({"a", "d", "f"})

#: By the names of the command line, in the order of the table.
CONTENDERS: Final = {
    "trio_ipc": Entry("ours", "trio_ipc", "trio", shares=True),
    "resilient": Entry("ours", "trio_ipc, resilient client", "trio", shares=True, only=frozenset({"a", "d"})),
    "no-polling": Entry("ours", "trio_ipc, polling off", "trio", shares=True),
    "legacy": Entry("ours", "trio_ipc, legacy transport", "trio", shares=True),
    "blocking-adapter": Entry(
        "blocking_adapter", "trio_ipc, blocking adapter", "trio", shares=True, only=_OF_ADAPTERS
    ),
    "aio-adapter": Entry("aio_adapter", "trio_ipc, aio adapter", "trio", shares=True, only=_OF_ADAPTERS),
    "bare-trio": Entry("bare_trio", "bare Trio echo", "trio"),
    "blocking": Entry("blocking", "blocking sockets, echo"),
    "asyncio": Entry("streams", "asyncio streams"),
    "uvloop": Entry("streams", "asyncio streams, uvloop", "uvloop"),
    "grpc": Entry("grpc_sync", "gRPC", "grpcio", shares=True),
    "grpc-aio": Entry("grpc_asyncio", "gRPC, asyncio", "grpcio", shares=True),
    "connection": Entry("connection", "multiprocessing.connection"),
    "zeromq": Entry("zeromq", "ZeroMQ", "pyzmq"),
    "go": Entry("native", "Go, the same protocol"),
    "rust": Entry("native", "Rust, the same protocol"),
}


def load(name: str) -> Contender:
    """Import a contender.

    Raises:
        ImportError: its package is not installed.
        LeftOutError: it can't take part for another reason.
    """
    module = importlib.import_module(f".{CONTENDERS[name].module}", __name__)
    contender: Contender = module.contender(name)
    return contender
