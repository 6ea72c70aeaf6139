"""The programs that a soak runs: a collector that comes back at its endpoint, and what a process holds."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from trio_ipc import IpcConfig, ServerNotFoundError, ServerRefusedError, open_client
from trio_ipc.daemoneye import DETECTION

ROOT: Final = Path(__file__).parents[2]

#: Seconds for a program to start or to end, and for all to come to rest.
PATIENCE: Final = 30.0

_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4_096


@attrs.define(eq=False)
class Watched:
    """A process of which memory and descriptors are followed."""

    name: str
    pid: int
    memory: list[int] = attrs.field(factory=list)
    descriptors: int = 0

    def look(self) -> None:
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        self.memory.append(int(pages) * _PAGE)
        self.descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))

    def growth(self) -> tuple[float, float]:
        """Median memory of the second quarter of the run, and of its last."""
        quarter = max(1, len(self.memory) // 4)
        return statistics.median(self.memory[quarter : 2 * quarter] or self.memory), statistics.median(
            self.memory[-quarter:]
        )


class Collector:
    """A collector as a process, at one endpoint through all of its lives."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.endpoint = str(directory / name)
        self.config = IpcConfig(endpoint_path=self.endpoint, read_timeout_ms=1_000)
        self.errors = directory / f"{name}.err"
        self.telemetry = directory / f"{name}.json"
        self._settings = directory / f"{name}.toml"
        self._transport = "interprocess"
        self._write_settings()
        self.process: trio.Process | None = None

    def _write_settings(self) -> None:
        self._settings.write_text(f'[ipc]\ntransport = "{self._transport}"\n', encoding="utf-8")

    async def start(self) -> None:
        options = ["--endpoint", self.endpoint, "--config", str(self._settings)]
        options += ["--telemetry", str(self.telemetry)]
        self.process = await start_program("examples.procmond", options, self.errors)
        with trio.fail_after(PATIENCE):
            while True:
                with contextlib.suppress(ServerNotFoundError, ServerRefusedError):
                    async with open_client(DETECTION, self.config):
                        return
                await trio.sleep(0.02)

    @property
    def running(self) -> trio.Process:
        assert self.process is not None
        return self.process

    async def crash(self) -> None:
        self.running.kill()
        await self.running.wait()

    def switch(self) -> None:
        self._transport = "legacy" if self._transport == "interprocess" else "interprocess"
        self._write_settings()
        self.running.send_signal(signal.SIGHUP)

    async def end(self) -> int:
        self.running.terminate()
        with trio.fail_after(PATIENCE):
            return await self.running.wait()


async def start_program(module: str, options: Sequence[str], errors: Path, **pipes: Any) -> trio.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_IPC_")}
    with errors.open("ab") as log:
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", module, *options],
            stdin=subprocess.DEVNULL,
            stderr=log,
            cwd=ROOT,
            env=environment,
            **{"stdout": subprocess.DEVNULL, **pipes},
        )
