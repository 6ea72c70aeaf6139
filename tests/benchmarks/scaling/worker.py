"""A process of a contender: ``python -m tests.benchmarks.scaling.worker serve|call CONTENDER CURVE NUMBER``.

A server serves at the path of ``PATH``, says so, and goes on until it is killed. A client does jobs, and
writes what came of each. Both end with their standard input.
"""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio

from tests.benchmarks import jobs

from .asked import Question
from .bare import Bare
from .curves import AT_ONCE, BARE
from .loops import Call, Job, Sample, at_once, in_turn

_Contender: TypeAlias = Any


def contender(name: str, curve: str, connections: int) -> _Contender:
    if name == BARE:
        return Bare()
    from .ours import Ours  # bare Trio must not pay for it

    return Ours(name, curve, connections)


async def serve(found: _Contender, path: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(found.serving, path)
        jobs.write({"serving": True})


async def call(found: _Contender, lines: queue.SimpleQueue[str]) -> None:
    while True:
        job = Job(**json.loads(await trio.to_thread.run_sync(lines.get)))
        jobs.write((await done(found, job))._asdict())


async def done(found: _Contender, job: Job) -> Sample:
    """Open what a point takes, measure it, and close."""
    callers = {"connections": job.point, "callers": job.point, "handlers": AT_ONCE}.get(job.curve, 1)
    connections, callers_each = found.callers(int(callers))
    question = Question()
    if job.curve == "sizes":
        question = Question(size=int(job.point))
    elif job.curve == "handlers":
        question = Question(milliseconds=int(job.point))
    async with opened(found, job.path, question, connections) as calls:
        if job.curve in {"callers", "handlers"}:
            return await at_once(calls * callers_each, job)
        return await in_turn(calls, job, job.point / 1e6 if job.curve == "pauses" else 0.0)


@asynccontextmanager
async def opened(found: _Contender, path: str, question: Question, number: int) -> AsyncIterator[list[Call]]:
    """Open so many connections, each held by a task of its own: nested they would be thousands deep."""
    over = trio.Event()

    async def hold(*, task_status: trio.TaskStatus[Call]) -> None:
        async with found.connect(path, question) as made:
            task_status.started(made)
            await over.wait()

    async with trio.open_nursery() as nursery:
        yield [await nursery.start(hold) for _ in range(number)]
        over.set()


def main(role: str, name: str, curve: str, connections: str, path: str = "") -> int:
    lines = jobs.incoming()
    found = contender(name, curve, int(connections))
    if role == "serve":
        trio.run(serve, found, path)
    else:
        trio.run(call, found, lines)
    return 1  # it should never have ended


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
