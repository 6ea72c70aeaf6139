"""What a contender has to have. This module must not import trio_ipc, trio or asyncio."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, ClassVar, NamedTuple

from tests.benchmarks.loads import (
    AsyncOperation,
    Figures,
    Job,
    Load,
    Operation,
    Sample,
    Use,
    do,
    do_blocking,
)
from tests.benchmarks.messages import DetectionResult, check, check_all


class LeftOutError(Exception):
    """A contender can't take part here; the message says why."""


class Client(NamedTuple):
    """A client with a connection. ``None`` comes from a floor, which has no messages to be judged.

    Attributes:
        call: makes one call.
        burst: makes so many calls at a time on the connection; None if that is done by as many callers.
    """

    call: Callable[[], DetectionResult | None]
    burst: Callable[[int], Sequence[DetectionResult]] | None = None


class AsyncClient(NamedTuple):
    """A client with a connection, like :class:`Client`."""

    call: Callable[[], Awaitable[DetectionResult | None]]
    burst: Callable[[int], Awaitable[Sequence[DetectionResult]]] | None = None


class Contender(abc.ABC):
    """A server, and clients of it."""

    #: What all callers share one client for. Otherwise each of many callers has a client of its own.
    shared: ClassVar[frozenset[Use]] = frozenset({Use.PIPELINED})

    @abc.abstractmethod
    def serve(self, path: str) -> None:
        """Serve at a path until the process is killed."""

    @abc.abstractmethod
    def do(self, job: Job) -> Sample | Figures:
        """Open clients, have them do a job, and close them."""

    def _clients(self, job: Job) -> int:
        return 1 if job.use in self.shared else job.number


def _judge(result: DetectionResult | None, job: Job) -> None:
    if result is not None:
        check(result, job.message)


def _judge_all(result: DetectionResult | None, job: Job) -> None:
    if result is not None:
        check_all(result, job.message)


class BlockingContender(Contender):
    """One whose callers are threads."""

    @abc.abstractmethod
    def connect(self, job: Job) -> AbstractContextManager[Client]:
        """Open a client for a job."""

    def do(self, job: Job) -> Sample | Figures:
        with self.load(job) as load:
            return do_blocking(job, load)

    @contextmanager
    def load(self, job: Job) -> Iterator[Load[Operation]]:
        """Open clients; see that they are answered right; and give what they do."""
        if job.use is Use.CONNECT:
            yield Load([lambda: self._connect_and_call(job)])
            return
        with ExitStack() as stack:
            clients = [stack.enter_context(self.connect(job)) for _ in range(self._clients(job))]
            for client in clients[:1]:
                _judge_all(client.call(), job)
            if job.use is Use.PIPELINED and clients[0].burst:
                yield Load([lambda: self._burst(clients[0], job)], job.number)
                return
            callers = clients * job.number if job.use in self.shared else clients
            yield Load([self._caller(client, job) for client in callers])

    def _connect_and_call(self, job: Job) -> None:
        with self.connect(job) as client:
            _judge(client.call(), job)

    @staticmethod
    def _burst(client: Client, job: Job) -> None:
        assert client.burst is not None
        for result in client.burst(job.number):
            _judge(result, job)

    @staticmethod
    def _caller(client: Client, job: Job) -> Operation:
        call = client.call
        return lambda: _judge(call(), job)


class AsyncContender(Contender):
    """One whose callers are tasks of an event loop."""

    @abc.abstractmethod
    def connect(self, job: Job) -> AbstractAsyncContextManager[AsyncClient]:
        """Open a client for a job."""

    @abc.abstractmethod
    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async function in an event loop."""

    @abc.abstractmethod
    async def together(self, functions: Iterable[AsyncOperation]) -> None:
        """Run async functions at the same time."""

    @abc.abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Let the event loop be idle."""

    def do(self, job: Job) -> Sample | Figures:
        async def main() -> Sample | Figures:
            async with self.load(job) as load:
                return await do(job, load, self.together, self.sleep)

        done: Sample | Figures = self.run(main)
        return done

    @asynccontextmanager
    async def load(self, job: Job) -> AsyncIterator[Load[AsyncOperation]]:
        """Open clients; see that they are answered right; and give what they do."""
        if job.use is Use.CONNECT:
            yield Load([lambda: self._connect_and_call(job)])
            return
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self.connect(job)) for _ in range(self._clients(job))]
            for client in clients[:1]:
                _judge_all(await client.call(), job)
            if job.use is Use.PIPELINED and clients[0].burst:
                yield Load([lambda: self._burst(clients[0], job)], job.number)
                return
            callers = clients * job.number if job.use in self.shared else clients
            yield Load([self._caller(client, job) for client in callers])

    async def _connect_and_call(self, job: Job) -> None:
        async with self.connect(job) as client:
            _judge(await client.call(), job)

    @staticmethod
    async def _burst(client: AsyncClient, job: Job) -> None:
        assert client.burst is not None
        for result in await client.burst(job.number):
            _judge(result, job)

    @staticmethod
    def _caller(client: AsyncClient, job: Job) -> AsyncOperation:
        call = client.call

        async def operation() -> None:
            _judge(await call(), job)

        return operation
