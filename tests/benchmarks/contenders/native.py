"""Peers in other languages, which have this project's frames and messages: tests/interop.

Their programs serve by ``serve-load PATH``, and load a server by ``load``, which reads commands from standard
input, a line each:

    ``open USE MESSAGE PATH NUMBER``     connects; answers ``ok``
    ``run SECONDS LEAST PAUSE_US``       repeats operations; answers ``sample CALLS SECONDS MEDIAN_NS P99_NS``
    ``close``                            answers ``ok``

Instead of a response there may be ``error TEXT``. Callers have a connection each, as for all that share none.
"""

from __future__ import annotations

import os
import subprocess
import time

from tests.benchmarks.loads import SETTLE, Figures, Job, Sample, Use, cpu_seconds, memory_of
from tests.benchmarks.messages import DetectionResult, check_all, request
from tests.interop.peers import PEERS

from .base import Contender, LeftOutError


class Native(Contender):
    def __init__(self, name: str) -> None:
        reason = PEERS[name].left_out()
        if reason is not None:
            raise LeftOutError(reason)
        [self._program] = PEERS[name].command
        self._process: subprocess.Popen[str] | None = None
        self._checked: set[tuple[str, str]] = set()

    def serve(self, path: str) -> None:
        os.execv(self._program, [self._program, "serve-load", path])  # noqa: S606 - as this very process

    def do(self, job: Job) -> Sample | Figures:
        self._check(job)
        process = self._load()
        self._tell(process, f"open {job.use} {job.message} {job.path} {job.number}")
        try:
            if job.action == "time":
                return self._time(process, job)
            if job.number:
                self._tell(process, "run 0 1 0")
            if job.action == "call":
                return Figures()
            time.sleep(SETTLE)
            client, server = cpu_seconds(process.pid), cpu_seconds(job.server)
            time.sleep(job.seconds)
            return Figures(
                _since(client, process.pid) or 0.0, _since(server, job.server), memory_of(job.server)
            )
        finally:
            self._tell(process, "close")

    def _time(self, process: subprocess.Popen[str], job: Job) -> Sample:
        self._tell(process, f"run {job.seconds / 8} {min(3, job.least)} {job.pause_us}")  # warms up
        client, server = cpu_seconds(process.pid), cpu_seconds(job.server)
        said = self._tell(process, f"run {job.seconds} {job.least} {job.pause_us}")
        calls, seconds, median_ns, p99_ns = said.split()[1:]
        return Sample(
            calls=int(calls),
            seconds=float(seconds),
            median_us=float(median_ns) / 1000,
            p99_us=float(p99_ns) / 1000,
            client_cpu_s=_since(client, process.pid) or 0.0,
            server_cpu_s=_since(server, job.server),
        )

    def _check(self, job: Job) -> None:
        """Judge one response field by field, by the client that is measured."""
        if job.use is Use.CONNECT or not job.number or (job.path, job.message) in self._checked:
            return
        self._checked.add((job.path, job.message))
        task = request(job.message).SerializeToString().hex()
        run = subprocess.run(
            [self._program, "call"],
            input=f"open {job.path} ieee {1024 * 1024} 30000\ncall {task}\n",
            capture_output=True,
            text=True,
            check=True,
        )
        word, _, data = run.stdout.splitlines()[-1].partition(" ")
        if word != "result":
            raise RuntimeError(run.stdout)
        check_all(DetectionResult.FromString(bytes.fromhex(data)), job.message)

    def _load(self) -> subprocess.Popen[str]:
        # It ends when its standard input does, which this process alone holds.
        if self._process is None:
            self._process = subprocess.Popen(
                [self._program, "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        return self._process

    @staticmethod
    def _tell(process: subprocess.Popen[str], command: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(command + "\n")
        process.stdin.flush()
        said = process.stdout.readline()
        if not said or said.startswith("error"):
            raise RuntimeError(f"{command}: {said or 'it ended'}")
        return said


def _since(before: float | None, pid: int) -> float | None:
    now = cpu_seconds(pid)
    return None if before is None or now is None else now - before


def contender(name: str) -> Native:
    return Native(name)
