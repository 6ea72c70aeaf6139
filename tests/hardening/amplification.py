"""``python -m tests.hardening.amplification``: the memory that frames of 1 MiB take once they are decoded.

Each message below is made to take as much as can be, and the kernel says what that was. `docs/security.md`
computes its bounds with the largest. Linux only: other systems have no ``VmHWM``.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import google.protobuf
from google.protobuf.internal import api_implementation

from trio_ipc.daemoneye import DetectionResult, DetectionTask

MIB: Final = 1024 * 1024

#: The decoder's memory grows in steps, so that a frame just above a step takes most for each of its bytes.
LIMITS: Final = (MIB, MIB * 9 // 16)

_THRESHOLDS: Final = "thresholds with fields that nobody knows"
_GROUPS: Final = "groups that nobody knows"
WORST_RESPONSE: Final = "empty process records"


@attrs.frozen
class Decoder:
    """What docs/security.md computes with for a decoder of protobuf, in bytes for each byte of a frame.

    Attributes:
        requests, responses: the most that is expected of any message.
        worst: the request that takes most.
    """

    requests: int
    responses: int
    worst: str


#: By whether protobuf is older than 7.36, the compiled decoder and the one in Python.
COMPILED_OF: Final = {False: Decoder(32, 100, _THRESHOLDS), True: Decoder(72, 100, _THRESHOLDS)}
IN_PYTHON_OF: Final = {False: Decoder(96, 240, _GROUPS), True: Decoder(192, 240, _GROUPS)}

_IS_OLD: Final = tuple(map(int, google.protobuf.__version__.split(".")[:2])) < (7, 36)

#: Those of the protobuf of this process, and the one that it uses.
COMPILED: Final = COMPILED_OF[_IS_OLD]
IN_PYTHON: Final = IN_PYTHON_OF[_IS_OLD]
DECODER: Final = IN_PYTHON if api_implementation.Type() == "python" else COMPILED


def _field(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _within(number: int, content: bytes) -> bytes:
    """A field that is a string or a message."""
    return _field(number, 2) + _varint(len(content)) + content


def _many(piece: bytes, limit: int, around: int = 16) -> bytes:
    return piece * ((limit - around) // len(piece))


def _entries(number: int, limit: int) -> bytes:
    """A map of as many keys as there is room for."""
    entries = bytearray()
    key = 0
    while True:
        entry = _within(number, _within(1, _base(key)))
        if len(entries) + len(entry) > limit - 16:
            return bytes(entries)
        entries += entry
        key += 1


def _base(value: int) -> bytes:
    digits = bytearray()
    while True:
        digits.append(1 + value % 127)
        value //= 127
        if not value:
            return bytes(digits)


#: What a client can send to a server.
REQUESTS: Final[Mapping[str, Callable[[int], bytes]]] = {
    "one long string": lambda limit: _within(1, b"x" * (limit - 16)),
    "empty names": lambda limit: _within(3, _many(_within(1, b""), limit)),
    "names of one byte": lambda limit: _within(3, _many(_within(1, b"x"), limit)),
    "packed pids": lambda limit: _within(3, _within(2, bytes(limit - 32))),
    "pids one by one": lambda limit: _within(3, _many(_field(2, 0) + b"\0", limit)),
    "pids and names in turns": lambda limit: _within(3, _many(_within(1, b"") + _field(2, 0) + b"\0", limit)),
    "thresholds": lambda limit: _within(8, _entries(3, limit)),
    "one threshold again and again": lambda limit: _within(8, _many(_within(3, b""), limit)),
    "fields that nobody knows": lambda limit: _many(_field(15, 0) + b"\0", limit),
    "fields that nobody knows, and names, in turns": lambda limit: _within(
        3, _many(_field(15, 0) + b"\0" + _within(1, b""), limit)
    ),
    "empty fields that nobody knows, and pids, in turns": lambda limit: _many(
        _field(15, 0) + b"\0" + _field(2, 0) + b"\0", limit
    ),
    "filters again and again": lambda limit: _many(_within(3, b""), limit),
    _GROUPS: lambda limit: _many(_field(15, 3) + _field(15, 4), limit),
    _THRESHOLDS: lambda limit: _within(8, _many(_within(3, _field(15, 0) + b"\0"), limit)),
    "the same and empty names in turns": lambda limit: _within(
        8, _many(_within(3, _field(15, 0) + b"\0") + _within(1, b""), limit)
    ),
}

#: What a server can send to a client.
RESPONSES: Final[Mapping[str, Callable[[int], bytes]]] = {
    WORST_RESPONSE: lambda limit: _many(_within(4, b""), limit),
    "empty network records": lambda limit: _many(_within(6, b""), limit),
    "empty filesystem records": lambda limit: _many(_within(7, b""), limit),
    "empty performance records": lambda limit: _many(_within(8, b""), limit),
    "process records with an empty argument": lambda limit: _many(_within(4, _within(5, b"")), limit),
    "process records with a field that nobody knows": lambda limit: _many(
        _within(4, _field(15, 0) + b"\0"), limit
    ),
}

_MESSAGES: Final[Mapping[str, type[DetectionTask] | type[DetectionResult]]] = {
    "request": DetectionTask,
    "response": DetectionResult,
}
KINDS: Final[Mapping[str, Mapping[str, Callable[[int], bytes]]]] = {
    "request": REQUESTS,
    "response": RESPONSES,
}


def payload(kind: str, name: str, limit: int = MIB) -> bytes:
    """Return a message of at most ``limit`` bytes that takes much when it is decoded."""
    made = KINDS[kind][name](limit)
    if len(made) > limit:
        raise AssertionError(f"{name}: {len(made)} bytes")
    return made


def memory(pid: int | str = "self", name: str = "VmRSS") -> int:
    """Return a figure of /proc/PID/status (proc(5)) in bytes: ``VmRSS``, or its peak ``VmHWM``."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def _factor(kind: str, data: bytes) -> float:
    message = _MESSAGES[kind]
    # Nothing that is free must be used again unseen, and the peak is to be this message's.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = memory()
    decoded = message.FromString(data)
    taken = memory(name="VmHWM") - before
    del decoded
    return taken / len(data)


def factors(*names: str, in_python: bool = False) -> list[tuple[str, str, list[float]]]:
    """Return the bytes of memory that each byte of each message takes, one figure for each of ``LIMITS``.

    Args:
        names: of the messages; all if there are none.
        in_python: whether protobuf's decoder in Python is to be taken, whatever else there is.
    """
    command = [sys.executable, "-m", "tests.hardening.amplification", *names]
    environ = {**os.environ, **({"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"} if in_python else {})}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=root, env=environ)
    lines = [line.split(maxsplit=1 + len(LIMITS)) for line in done.stdout.splitlines()]
    return [(kind, name, [float(figure) for figure in figures]) for kind, *figures, name in lines]


def main() -> None:
    wanted = sys.argv[1:]
    for kind, names in KINDS.items():
        for name in names if not wanted else [name for name in names if name in wanted]:
            figures = "  ".join(f"{_factor(kind, payload(kind, name, limit)):6.1f}" for limit in LIMITS)
            print(f"{kind:8}  {figures}  {name}")


if __name__ == "__main__":
    main()
