"""The program around the peer, for the tests: ``python -S -m tests.interop.stdlib serve|call``.

tests/interop/README.md says what it reads and prints. With ``-S`` nothing but the standard library is there.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator

from .messages import Message, decode, encode
from .peer import Connection, PeerError, Settings, call, connect, listen, serve


def main(command: str, *arguments: str) -> None:
    if command == "call":
        Client().run()
        return
    endpoint, variant, limit, places, timeout = arguments
    try:
        listener = listen(endpoint)
    except OSError as exc:
        sys.exit(f"{endpoint}: {exc}")
    settings = Settings(variant, int(limit), int(timeout) / 1000)
    threading.Thread(target=serve, args=(listener, answer, int(places), settings), daemon=True).start()
    print("listening", flush=True)
    sys.stdin.read()
    os.unlink(endpoint)


# --- The client's commands ----------------------------------------------------------------------------------


class Client:
    def __init__(self) -> None:
        self._connection: Connection | None = None

    def run(self) -> None:
        for line in sys.stdin:
            command, *words = line.split()
            try:
                for said in self._do(command, words):
                    print(said, flush=True)
            except PeerError as exc:
                self._close()
                print("error", exc, flush=True)

    def _do(self, command: str, words: list[str]) -> Iterator[str]:
        if command == "open":
            endpoint, variant, limit, timeout = words
            self._close()
            self._connection = connect(endpoint, Settings(variant, int(limit), int(timeout) / 1000))
            yield "ok"
        elif command == "recode":
            kind = {"task": "DetectionTask", "result": "DetectionResult"}[words[0]]
            try:
                message = decode(kind, bytes.fromhex(words[1].strip("-")))
            except ValueError as exc:
                raise PeerError("decode", str(exc)) from exc
            yield f"message {_hex(kind, message)}"
        elif command == "close":
            self._close()
            yield "ok"
        else:
            yield from self._call(words, last=command == "last")

    def _call(self, words: list[str], *, last: bool) -> Iterator[str]:
        if self._connection is None:
            raise PeerError("closed", "there is no connection")
        tasks = [decode("DetectionTask", bytes.fromhex(word.strip("-"))) for word in words]
        for result in call(self._connection, tasks, last=last):
            yield f"result {_hex('DetectionResult', result)}"
        if last:
            if self._connection.receive("DetectionResult") is not None:
                raise PeerError("mismatch", "a result that nobody asked for")
            yield "end"

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _hex(kind: str, message: Message) -> str:
    return encode(kind, message).hex() or "-"


# --- The server's responses ---------------------------------------------------------------------------------


def answer(task: Message) -> Message:
    command, _, rest = task.get("metadata", "").partition(" ")
    result: Message = {"task_id": task["task_id"], "success": True}
    if command == "fail":
        result |= {"success": False, "error_message": rest}
    elif command == "pad":
        result["error_message"] = "x" * int(rest)
    elif command == "records":
        result["processes"] = [_record(number) for number in range(int(rest))]
    elif command == "sleep":
        print("sleeping", flush=True)
        time.sleep(int(rest) / 1000)
    else:
        result |= _mirrored(task)
    return result


def _mirrored(task: Message) -> Message:
    result: Message = {}
    if asked := task.get("process_filter"):
        result["processes"] = [_process(index, pid, asked) for index, pid in enumerate(asked["pids"])]
    if asked := task.get("hash_check"):
        result["hash_result"] = {
            "hash_value": asked["expected_hash"],
            "algorithm": asked["hash_algorithm"],
            "file_path": asked["executable_path"],
            "success": bool(asked["expected_hash"]),
            "error_message": "",
        }
    if asked := task.get("network_filter"):
        result["network_events"] = [
            {
                "connection_id": str(index),
                "source_address": ",".join(asked["source_addresses"]),
                "destination_address": ",".join(asked["destination_addresses"]),
                "protocol": protocol,
                "state": ",".join(asked["connection_states"]),
                "pid": index,
                "bytes_sent": 2**64 - 1 - index,
                "bytes_received": index,
                "collection_time": -index,
            }
            for index, protocol in enumerate(asked["protocols"])
        ]
    if asked := task.get("filesystem_filter"):
        result["filesystem_events"] = [
            {
                "operation_id": str(index),
                "path": path,
                "operation_type": ",".join(asked["operation_types"]),
                "file_size": 2**63 + index,
                "permissions": "",
                "file_hash": ",".join(asked["file_extensions"]),
                "collection_time": 2**63 - 1 - index,
            }
            for index, path in enumerate(asked["path_patterns"])
        ]
    if asked := task.get("performance_filter"):
        result["performance_events"] = [
            {
                "metric_id": threshold["key"],
                "metric_name": ",".join(asked["metric_names"]),
                "value": threshold["value"],
                "unit": unit,
                "component": ",".join(asked["components"]),
            }
            for unit in ("min", "max")
            # A key that comes twice has its last value.
            for threshold in sorted(
                {entry["key"]: entry for entry in asked[f"{unit}_thresholds"]}.values(),
                key=lambda entry: entry["key"],
            )
        ]
    return result


def _process(index: int, pid: int, asked: Message) -> Message:
    names = asked["process_names"]
    record: Message = {
        "pid": pid,
        "ppid": pid // 2,
        "name": names[index] if index < len(names) else "",
        "command_line": names,
        "start_time": -pid,
        "cpu_usage": pid / 4,
        "memory_usage": pid << 32,
        "accessible": True,
        "file_exists": pid % 2 == 1,
        "collection_time": -1 - pid,
    }
    if "executable_pattern" in asked:
        record["executable_path"] = asked["executable_pattern"]
    return record


def _record(number: int) -> Message:
    return {
        "pid": 1_000 + number,
        "ppid": 1,
        "name": f"process-{number}",
        "executable_path": f"/usr/lib/program/bin/process-{number}",
        "command_line": [
            f"/usr/lib/program/bin/process-{number}",
            "--config",
            "/etc/program/program.conf",
        ],
        "start_time": 1_700_000_000 + number,
        "cpu_usage": number / 10,
        "memory_usage": 4096 * number,
        "user_id": "1000",
        "accessible": True,
        "file_exists": True,
        "collection_time": 1_700_000_000_000 + number,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
