"""Services as real processes: programs of a few lines around `run_service`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from tests.examples.support import Program, spawn
from tests.support import STRICT_PYTHON
from trio_ipc import IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

#: A task "wait" is answered once a line comes on standard input; "exit" ends the program.
_PROGRAM = """
import logging, os, sys
import trio
from trio_ipc import IpcConfig, run_service
from trio_ipc.daemoneye import DETECTION, DetectionResult

async def handle(task, call):
    if task.task_id == "wait":
        print("waiting", flush=True)
        await trio.to_thread.run_sync(os.read, 0, 1, abandon_on_cancel=True)
    if task.task_id == "exit":
        raise SystemExit(5)
    return DetectionResult(task_id=task.task_id, success=True)

config = None
options = {}
%s
sys.exit(run_service(handle, DETECTION, config, name="svc", **options))
"""


def service(setup: str = "") -> list[str]:
    """Return the command line of a service, whose settings are the environment's unless `setup` says more."""
    return [*STRICT_PYTHON, "-c", _PROGRAM % setup]


def at(endpoint: str, **more: str) -> dict[str, str]:
    """Return the environment of a service at an endpoint."""
    return {"TRIO_IPC_ENDPOINT_PATH": endpoint, **more}


@asynccontextmanager
async def running(
    endpoint: str,
    setup: str = "",
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[Program]:
    """A service that is ready for clients."""
    async with spawn(
        *service(setup), environ=at(endpoint) | dict(environ or {}), pass_fds=pass_fds
    ) as program:
        assert await program.stdout.next() == f"listening on {endpoint}", program.stderr.seen
        yield program


async def ask(endpoint: str, task_id: str = "t") -> DetectionResult:
    async with open_client(DETECTION, IpcConfig(endpoint_path=endpoint)) as client:
        return await client.call(DetectionTask(task_id=task_id))
