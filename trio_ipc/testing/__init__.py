"""What this package's own tests, and users' tests, test with. docs/testing.md is the guide.

Endpoints in memory, a server and client in one line, faults, a recorder, and a server that misbehaves by
script. Importing :mod:`trio_ipc` does not import this; it needs nothing that a program does not need.
"""

from .behaviours import (
    answer,
    bad_checksum,
    close_instead,
    close_mid_frame,
    drip,
    fail,
    garbage,
    hang,
    slow,
    too_large,
    undecodable,
    unsolicited_response,
)
from .cancelling import CancelledAttempt, Moment, cancel_everywhere
from .collector import SimulatedCollector, same_task, simulate_collector, wrong_task_id
from .conformance import (
    CLIENT_RULES,
    SERVER_RULES,
    Conformance,
    Finding,
    Verdict,
    WireRule,
    check_client,
    check_server,
)
from .endpoints import IpcEndpoint, StreamWrapper, SystemEndpoint, temporary_endpoint
from .faultrules import (
    Delay,
    Dribble,
    Drop,
    Duplicate,
    EndOfFile,
    Fault,
    Flip,
    Merge,
    Reset,
    Rule,
    Split,
    Stall,
    Truncate,
    at_byte,
    at_each_frame,
    at_frame,
    at_random,
)
from .faults import Faults
from .fixtures import OpenClient, StartServer
from .memory import MemoryEndpoint, MemoryListener, MemoryNetwork
from .memorystream import MemoryStream, memory_streams
from .pair import Pair, open_client_at, open_pair, open_server
from .recorder import Recorder
from .recording import Exchange, RecordedFrame, Recording, RecordingError, read_recording
from .reference import close_on_failure, simulate_reference
from .relay import relay
from .replay import Difference, RecordedHandler, replay_requests
from .reply import Behaviour, Reply
from .simulator import SimulatedServer, simulate_server

__all__ = [
    "CLIENT_RULES",
    "SERVER_RULES",
    "Behaviour",
    "CancelledAttempt",
    "Conformance",
    "Delay",
    "Difference",
    "Dribble",
    "Drop",
    "Duplicate",
    "EndOfFile",
    "Exchange",
    "Fault",
    "Faults",
    "Finding",
    "Flip",
    "IpcEndpoint",
    "MemoryEndpoint",
    "MemoryListener",
    "MemoryNetwork",
    "MemoryStream",
    "Merge",
    "Moment",
    "OpenClient",
    "Pair",
    "RecordedFrame",
    "RecordedHandler",
    "Recorder",
    "Recording",
    "RecordingError",
    "Reply",
    "Reset",
    "Rule",
    "SimulatedCollector",
    "SimulatedServer",
    "Split",
    "Stall",
    "StartServer",
    "StreamWrapper",
    "SystemEndpoint",
    "Truncate",
    "Verdict",
    "WireRule",
    "answer",
    "at_byte",
    "at_each_frame",
    "at_frame",
    "at_random",
    "bad_checksum",
    "cancel_everywhere",
    "check_client",
    "check_server",
    "close_instead",
    "close_mid_frame",
    "close_on_failure",
    "drip",
    "fail",
    "garbage",
    "hang",
    "memory_streams",
    "open_client_at",
    "open_pair",
    "open_server",
    "read_recording",
    "relay",
    "replay_requests",
    "same_task",
    "simulate_collector",
    "simulate_reference",
    "simulate_server",
    "slow",
    "temporary_endpoint",
    "too_large",
    "undecodable",
    "unsolicited_response",
    "wrong_task_id",
]
