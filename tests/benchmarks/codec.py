"""Protobuf and frames alone, without any I/O: ``python -m tests.benchmarks.codec SECONDS`` prints JSON.

In a process of its own, as everything that is measured. What comes out is microseconds for each message
and step.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

from trio_ipc import Crc32Variant
from trio_ipc.wire import FrameDecoder, FrameEncoder

from .messages import MESSAGES, DetectionResult, DetectionTask, prepared, request

_MAX_FRAME_BYTES = 1024 * 1024
_BATCH_NS = 20_000
#: What a channel asks for by one read.
_READ = 65_536


def steps(name: str) -> dict[str, Callable[[], object]]:
    """What is measured for the message of this name."""
    result, task = prepared(name), request(name)
    payload = result.SerializeToString()
    encoder = FrameEncoder(_MAX_FRAME_BYTES, Crc32Variant.IEEE)
    decoder = FrameDecoder(_MAX_FRAME_BYTES, Crc32Variant.IEEE)
    frame = encoder.encode(payload)
    reads = [frame[start : start + _READ] for start in range(0, len(frame), _READ)]

    def decode_frame() -> None:
        found = None
        for read in reads:
            decoder.feed(read)
            found = decoder.next_payload()
        assert found is not None

    def protobuf_of_a_call() -> None:
        DetectionTask.FromString(task.SerializeToString())
        DetectionResult.FromString(result.SerializeToString())

    return {
        "protobuf_encode_us": result.SerializeToString,
        "protobuf_decode_us": lambda: DetectionResult.FromString(payload),
        "frame_encode_us": lambda: encoder.encode(payload),
        "frame_decode_us": decode_frame,
        "protobuf_call_us": protobuf_of_a_call,
    }


def microseconds(step: Callable[[], object], seconds: float) -> float:
    """Return what a step takes: the median of batches, each too long to be lost in the clock's own time."""
    begin = time.perf_counter_ns()
    step()
    batch = max(1, _BATCH_NS // max(1, time.perf_counter_ns() - begin))
    until = begin + int(seconds * 1e9)
    times: list[float] = []
    now = time.perf_counter_ns()
    while now < until or not times:
        begin = now
        for _ in range(batch):
            step()
        now = time.perf_counter_ns()
        times.append((now - begin) / batch)
    return statistics.median(times) / 1000


def main(seconds: str) -> None:
    found = {}
    for name in MESSAGES:
        found[name] = {label: microseconds(step, float(seconds)) for label, step in steps(name).items()}
        found[name]["bytes"] = len(prepared(name).SerializeToString())
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
