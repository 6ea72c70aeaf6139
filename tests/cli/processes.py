"""The command as a process without a terminal, as scripts run it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import trio

PROGRAM = [sys.executable, "-m", "trio_ipc"]


if sys.platform != "win32":
    from .forking import Forker

    @functools.cache
    def forker() -> Forker:
        """Return the process that forks those of :func:`command`."""
        return Forker()


async def command(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``trio-ipc`` to its end, in a process of its own that has loaded it.

    Args:
        arguments: what follows its name.
        stdin: what it can read.
        environ: variables besides those of this process.
    """
    whole = {**os.environ, **environ}
    with trio.fail_after(60):
        if sys.platform != "win32":
            status, *texts = await forker().run(arguments, stdin.encode(), whole)
        else:
            run = await trio.run_process(
                [*PROGRAM, *arguments],
                stdin=stdin.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=whole,
            )
            status, *texts = run.returncode, run.stdout, run.stderr
    out, err = (text.decode().replace("\r\n", "\n") for text in texts)
    return subprocess.CompletedProcess([*PROGRAM, *arguments], status, out, err)
