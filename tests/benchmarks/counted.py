"""Work that is counted, where times can't have bounds: ``make counted``, and in CI.

System calls by strace, of a server or a client whose peer always lets it fall asleep first; instructions of
a whole round trip by valgrind's callgrind, server and client in one process, against a bare Trio echo's in
the same Python; page faults by getrusage(2). What a program does besides (starting, ending) is in both of two
runs of different length, and falls out of their difference.

counted.json has the bounds, and what was measured when they were set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import attrs

from trio_ipc import Crc32Variant
from trio_ipc.wire import HEADER_BYTES, FrameEncoder

from .messages import MINIMAL, SLOW, prepared, request
from .pieces import DEPTH
from .workers import ROOT

BOUNDS: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "counted.json")

#: What a new bound allows over what was measured: a share of it, and of system calls at least a quarter. Of
#: page faults it is a tenth of what 1 MiB has. Ratios of instructions differ by 3 % from run to run.
_CALLS_ALLOWED: Final = 0.25
_SHARE_ALLOWED: Final = 0.03
_RATIO_ALLOWED: Final = 0.06
_FAULTS_ALLOWED: Final = 25
#: A server also looks at its endpoint every 5 s, and the runs differ by 2 s.
_WAKE_UPS_ALLOWED: Final = 0.1

#: How long, in seconds, and how often in a row a program must be found asleep.
_PAUSE, _ASLEEP = 0.0002, 4
#: How often a traced program does its work, in two runs.
_SHORT, _LONG = 20, 220
#: Seconds: valgrind takes minutes where the machine has other work.
_TIMEOUT: Final = 600.0

_LOOP: Final = "tests.benchmarks.counted_loop"

_encoder = FrameEncoder(1024, Crc32Variant.IEEE)
_REQUEST: Final = _encoder.encode(request(MINIMAL).SerializeToString())
_RESPONSE: Final = _encoder.encode(prepared(MINIMAL).SerializeToString())

#: Polling would make the number of calls a matter of time.
_CONTENDER: Final = "no-polling"


@attrs.frozen
class Count:
    """What was counted for one unit of work, and by which parts."""

    value: float
    parts: Mapping[str, float]


# --- System calls -------------------------------------------------------------------------------------------


class _Traced:
    """A program under strace, and a way to wait until it sleeps."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._strace = process.pid
        self.wait = process.wait

    def wait_asleep(self) -> None:
        """Wait until its main thread has slept for some time: it waits for us, and for nothing else."""
        end = time.monotonic() + _TIMEOUT
        asleep = 0
        while asleep < _ASLEEP:
            asleep = asleep + 1 if self._state() == "S" else 0
            if time.monotonic() > end:
                raise TimeoutError("the program does not fall asleep")
            time.sleep(_PAUSE)

    def _state(self) -> str:
        with open(f"/proc/{self._strace}/task/{self._strace}/children", encoding="ascii") as file:
            children = file.read().split()
        if not children:
            return ""
        with open(f"/proc/{children[0]}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]


@contextmanager
def _traced(summary: str, role: str, path: str, number: int = 0) -> Iterator[_Traced]:
    """Run a program of counted_loop under strace, which writes its summary when the block is left."""
    command = ["strace", "-f", "-c", "-o", summary]
    command += [sys.executable, "-m", _LOOP, role, _CONTENDER, path, str(number)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    try:
        yield _Traced(process)
        process.communicate(timeout=_TIMEOUT)  # closes its input, at which it ends
        if process.returncode:
            raise RuntimeError(f"{role} failed")
    finally:
        # Were strace killed, the program would go on.
        process.communicate()


def summary_of(text: str) -> Counter[str]:
    """Return how often each call was made, from the table that ``strace -c`` writes."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and words[0] != "%" and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] = int(words[3])
    return counts


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError(f"closed after {len(data)} of {size} bytes")
        data += piece
    return data


def _connected(path: str) -> socket.socket:
    end = time.monotonic() + _TIMEOUT
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect(path)
            return sock
        except OSError:
            sock.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def server_calls(
    directory: str,
    repeats: int,
    *,
    burst: int = 1,
    reconnect: bool = False,
    role: str = "serve",
    pause: float = 0.0,
    task: str = MINIMAL,
) -> Counter[str]:
    """Trace a server, to which so many bursts of requests come, or connections with a burst."""
    asks, expected = (_encoder.encode(of(task).SerializeToString()) * burst for of in (request, prepared))
    path, summary = f"{directory}/s", f"{directory}/summary"
    with _traced(summary, role, path) as server:
        sock = _connected(path)
        for _ in range(repeats):
            if reconnect:
                server.wait_asleep()
                sock.close()
                server.wait_asleep()
                sock = _connected(path)
            server.wait_asleep()
            time.sleep(pause)
            sock.sendall(asks)
            if _receive(sock, len(expected)) != expected:
                raise ValueError("wrong response")
        sock.close()
        server.wait_asleep()
    return _read(summary)


def client_calls(directory: str, repeats: int, *, role: str = "call") -> Counter[str]:
    """Trace a client that makes so many calls, or so many connections with a call."""
    path, summary = f"{directory}/c", f"{directory}/summary"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(_TIMEOUT)
        listener.bind(path)
        listener.listen()
        with _traced(summary, role, path, repeats) as client:
            # One call comes before the counted ones where they are made on one connection.
            for _ in range(repeats if role == "connect" else 1):
                sock, _ = listener.accept()
                with sock:
                    _answer(sock, client)
            client.wait(_TIMEOUT)
    return _read(summary)


def _answer(sock: socket.socket, client: _Traced) -> None:
    while header := sock.recv(HEADER_BYTES):
        _receive(sock, len(_REQUEST) - len(header))
        client.wait_asleep()
        sock.sendall(_RESPONSE)


def _read(summary: str) -> Counter[str]:
    with open(summary, encoding="utf-8") as file:
        return summary_of(file.read())


def of_a_unit(short: Counter[str], long: Counter[str], units: int) -> Count:
    """Return what one unit of work takes, from runs that differ by so many."""
    parts = {
        name: (long[name] - short[name]) / units
        for name in sorted(long)
        if abs(long[name] - short[name]) >= 0.05 * units
    }
    return Count((long.total() - short.total()) / units, parts)


def _system_calls(traced: Callable[..., Counter[str]], **options: Any) -> Count:
    found = []
    for repeats in (_SHORT, _LONG):
        with tempfile.TemporaryDirectory(prefix="count-") as directory:
            found.append(traced(directory, repeats, **options))
    return of_a_unit(found[0], found[1], _LONG - _SHORT)


#: Calls that are some time apart, so that alarms ring in between if there are any.
_APART: Final = 0.025
_SHORT_APART, _LONG_APART = 10, 90


def _wake_ups(**options: Any) -> Count:
    """Count how often a server comes back from its one wait for all that may happen, by the real clock."""
    found = []
    for repeats in (_SHORT_APART, _LONG_APART):
        with tempfile.TemporaryDirectory(prefix="count-") as directory:
            calls = server_calls(directory, repeats, role="serve-timed", pause=_APART, **options)
            found.append(Counter({name: number for name, number in calls.items() if "wait" in name}))
    return of_a_unit(found[0], found[1], _LONG_APART - _SHORT_APART)


# --- Instructions -------------------------------------------------------------------------------------------

_FEW, _MANY_TRIPS = 100, 700


def instructions(contender: str, repeats: int) -> int:
    """Count the instructions of a Python process that makes so many round trips."""
    with tempfile.TemporaryDirectory(prefix="count-") as directory:
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
        run = subprocess.run(
            [*command, "-m", _LOOP, "round-trip", contender, f"{directory}/s", str(repeats)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or collected is None:
        raise RuntimeError(f"callgrind failed on {contender}: {run.stderr[-2_000:]}")
    return int(collected[1])


def _instruction_ratio(contender: str) -> Count:
    runs = [(name, repeats) for name in (contender, "bare-trio") for repeats in (_FEW, _MANY_TRIPS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        few, many, bare_few, bare_many = pool.map(instructions, *zip(*runs, strict=True))
    ours = (many - few) / (_MANY_TRIPS - _FEW)
    bare = (bare_many - bare_few) / (_MANY_TRIPS - _FEW)
    return Count(ours / bare, {"instructions": ours, "instructions of a bare echo": bare})


# --- Page faults --------------------------------------------------------------------------------------------


def _page_faults() -> Count:
    """Count those of a client for each result of almost 1 MiB."""
    with tempfile.TemporaryDirectory(prefix="count-") as directory:
        path = f"{directory}/s"
        command = [sys.executable, "-m", _LOOP]
        server = subprocess.Popen([*command, "serve", _CONTENDER, path, "0"], stdin=subprocess.PIPE, cwd=ROOT)
        try:
            _connected(path).close()
            run = subprocess.run(
                [*command, "large", _CONTENDER, path, str(_LONG)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                timeout=_TIMEOUT,
                check=True,
            )
        finally:
            server.communicate()  # closes its input, at which it ends
    return Count(float(run.stdout), {})


# --- Bounds -------------------------------------------------------------------------------------------------

#: By their names in counted.json.
COUNTED: Final[dict[str, tuple[str, Callable[[], Count]]]] = {
    "server-call": ("system calls of a server, for a call", lambda: _system_calls(server_calls)),
    "server-burst": (
        f"system calls of a server, for {DEPTH} requests that come at once",
        lambda: _system_calls(server_calls, burst=DEPTH),
    ),
    "server-connection": (
        "system calls of a server, for a connection with one call",
        lambda: _system_calls(server_calls, reconnect=True),
    ),
    "server-wake-ups": ("wake-ups of a server, for a call each 25 ms", _wake_ups),
    "server-waiting-wake-ups": (
        "wake-ups of a server, for a call each 25 ms whose handler sleeps for 1 ms",
        lambda: _wake_ups(task=SLOW),
    ),
    "client-call": ("system calls of a client, for a call", lambda: _system_calls(client_calls)),
    "client-connection": (
        "system calls of a client, for connecting, a call and closing",
        lambda: _system_calls(client_calls, role="connect"),
    ),
    "client-large": ("page faults of a client, for a result of almost 1 MiB", _page_faults),
    "round-trip": (
        "instructions of a round trip, polling off, by those of a bare Trio echo",
        lambda: _instruction_ratio(_CONTENDER),
    ),
}

_RATIOS: Final = frozenset({"round-trip"})
_WAKE_UPS: Final = frozenset({"server-wake-ups", "server-waiting-wake-ups"})
_FAULTS: Final = frozenset({"client-large"})


def bound_for(name: str, value: float) -> float:
    """Return the bound that a value is recorded with."""
    if name in _RATIOS:
        return value * (1 + _RATIO_ALLOWED)
    if name in _WAKE_UPS:
        return value + _WAKE_UPS_ALLOWED
    return value + max(value * _SHARE_ALLOWED, _FAULTS_ALLOWED if name in _FAULTS else _CALLS_ALLOWED)


def complaints(found: Mapping[str, Count], bounds: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say what is over its bound, and what to do about it."""
    said = []
    for name, count in found.items():
        recorded = bounds.get(name)
        if recorded is None or count.value > recorded["bound"]:
            limit = "no bound" if recorded is None else f"the bound {recorded['bound']:g}"
            said.append(
                f"{name}: {count.value:.2f} {COUNTED[name][0]}; {limit} is in tests/benchmarks/counted.json"
                f" (measured then: {recorded['measured'] if recorded else 'nothing'}). They are: "
                + ", ".join(f"{part} {value:,.2f}" for part, value in count.parts.items())
                + ". If it has to be so, record it by `make counted ARGS=--renew`, and say why."
            )
    return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.counted", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(COUNTED)}")
    parser.add_argument("--renew", action="store_true", help="record what is counted, with new bounds")
    options = parser.parse_args()
    unknown = set(options.names) - COUNTED.keys()
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(COUNTED)}")
    for program in ("strace", "valgrind"):
        if shutil.which(program) is None:
            parser.error(f"{program} is missing: install the package of that name")
    names = options.names or list(COUNTED)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(names, pool.map(lambda name: COUNTED[name][1](), names), strict=True))
    with open(BOUNDS, encoding="utf-8") as file:
        bounds = json.load(file)
    for name, count in found.items():
        parts = ", ".join(f"{part} {value:,.2f}" for part, value in count.parts.items())
        print(f"{name:23} {count.value:8.2f}   {COUNTED[name][0]}: {parts}")
    if options.renew:
        for name, count in found.items():
            bounds[name] = {
                "measured": round(count.value, 3),
                "bound": round(bound_for(name, count.value), 3),
            }
        with open(BOUNDS, "w", encoding="utf-8") as file:
            file.write(json.dumps(bounds, indent=2) + "\n")
        return 0
    said = complaints(found, bounds)
    print(*said, sep="\n", file=sys.stderr, end="\n" if said else "")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
