"""Several jobs at the same time, of which the caller notices nothing but how they end.

This module must never leave a job running, and never raise a group of exceptions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

import trio
from trio.lowlevel import enable_ki_protection

from trio_ipc.client.nursery import nursery_of_our_own

from .failures import is_failure

Job: TypeAlias = Callable[[], Awaitable[None]]


@enable_ki_protection
async def together(jobs: Collection[Job]) -> None:
    """Run all jobs to their ends.

    Raises:
        BaseException: what the first job that failed has raised, as it is. The others are cancelled then.

    Cancellation ends all of them.
    """
    left, over = len(jobs), trio.Event()
    failures: list[BaseException] = []

    @enable_ki_protection
    async def run(job: Job) -> None:
        nonlocal left
        try:
            await job()
        except BaseException as exc:
            if not is_failure(exc):
                raise
            failures.append(exc)
            over.set()
        left -= 1
        if not left:
            over.set()

    if not jobs:
        await trio.lowlevel.checkpoint()
        return
    async with nursery_of_our_own() as nursery:
        for job in jobs:
            nursery.start_soon(run, job)
        await over.wait()
    if failures:
        raise failures[0]
