"""A process of a contender: ``python -m tests.benchmarks.worker serve|call CONTENDER``.

A server serves at the path of ``PATH`` until it is killed. A client does jobs, and writes what came of each.
Both end with their standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final

from tests.benchmarks import jobs
from tests.benchmarks.contenders import load
from tests.benchmarks.contenders.base import Contender, LeftOutError
from tests.benchmarks.loads import Figures, Job, Sample, Use

#: Seconds that a server may take until it answers.
_PATIENCE: Final = 30.0


def main(role: str, name: str, path: str = "") -> int:
    lines = jobs.incoming()
    try:
        contender = load(name)
    except (ImportError, LeftOutError) as exc:
        jobs.write({"left_out": str(exc)})
        return 0
    if role == "serve":
        contender.serve(path)
        return 1  # it should never have ended
    jobs.write({"left_out": None})
    while True:
        jobs.write(_done(contender, Job(**json.loads(lines.get()))))


def _done(contender: Contender, job: Job) -> dict[str, Any]:
    job = job._replace(use=Use(job.use))
    if job.action == "reach":
        return {"seconds": _reach(contender, job)}
    done: Sample | Figures = contender.do(job)
    return done._asdict()


def _reach(contender: Contender, job: Job) -> float:
    """Call a server that is just starting, until it answers. Return when that was, on the system's clock."""
    once = job._replace(action="call", use=Use.CONNECT)
    directory, name = os.path.split(job.path)
    end = time.monotonic() + _PATIENCE
    while True:
        # Not before there is a socket: some clients wait for long before they try again.
        while not any(found.startswith(name) for found in os.listdir(directory)):
            time.sleep(0.0005)
        try:
            contender.do(once)
            return time.monotonic()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.0005)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
