"""This project, by its public names, as its README and docs/resilient-client.md tell users to use it.

With everything on that is on by default: deadlines, checksums, the check of the peer's user, counters.
A caller has an :func:`~trio_ipc.open_client`; callers that share a client have one with
``max_in_flight=64``. The contender ``resilient`` has an
:func:`~trio_ipc.open_resilient_client` with one connection for either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from tests.benchmarks.loads import Job, Use
from tests.benchmarks.messages import SLOW, answer, request
from trio_ipc import (
    Call,
    ConfigError,
    Endpoint,
    IpcConfig,
    ResilientConfig,
    open_client,
    open_resilient_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .base import AsyncClient, LeftOutError
from .on_trio import TrioContender

#: What differs from the defaults.
_VARIANTS: dict[str, dict[str, Any]] = {
    "trio_ipc": {},
    "resilient": {},
    "no-polling": {"poll_attempts": 0},
    "legacy": {"transport": "legacy"},
}

#: Enough for the memory of idle connections; the default, 16, is more than any other work needs.
_MAX_CONNECTIONS = 256


async def handle(task: DetectionTask, _: Call) -> DetectionResult:
    if task.task_id == SLOW:
        await trio.sleep(0.001)
    return answer(task)


class Ours(TrioContender):
    #: Pipelined calls are one caller's :meth:`~trio_ipc.Client.call_many`.
    shared = frozenset({Use.MANY, Use.PIPELINED})

    def __init__(self, name: str) -> None:
        variant = _VARIANTS[name]
        self._resilient = name == "resilient"
        unknown = variant.keys() - {field.name for field in attrs.fields(IpcConfig)}
        if unknown:
            raise LeftOutError(f"this version has no setting {', '.join(unknown)}")
        try:
            self._config = IpcConfig(max_connections=_MAX_CONNECTIONS, **variant)
        except ConfigError as exc:
            raise LeftOutError(exc.message) from exc

    def config(self, path: str) -> IpcConfig:
        """Return the settings of an endpoint. A program makes them once: to judge them takes 9 µs."""
        if self._config.endpoint_path != path:
            self._config = self._config.replace(endpoint_path=path)
        return self._config

    async def serving(
        self, path: str, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await serve(handle, DETECTION, self.config(path), task_status=task_status)

    @asynccontextmanager
    async def connect(self, job: Job) -> AsyncIterator[AsyncClient]:
        config = self.config(job.path)
        if self._resilient:
            settings = ResilientConfig(max_connections_per_endpoint=1, max_in_flight=job.number)
            async with open_resilient_client(DETECTION, [Endpoint(config)], settings) as resilient:
                yield AsyncClient(partial(resilient.call, request(job.message)))
        elif job.use is Use.MANY:
            async with open_client(DETECTION, config, max_in_flight=64) as shared:
                yield AsyncClient(partial(shared.call, request(job.message)))
        else:
            async with open_client(DETECTION, config) as client:
                message = request(job.message)
                yield AsyncClient(
                    partial(client.call, message), lambda number: client.call_many([message] * number)
                )


def contender(name: str) -> Ours:
    return Ours(name)
