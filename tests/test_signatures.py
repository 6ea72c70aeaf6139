"""What may be given by its place, and what only by its name: callers' code rests on it.

An argument that may be left out is given by its name, with the exceptions in ``BY_PLACE``, so that a further
one can be added without a thought for the order.
"""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trio_ipc
import trio_ipc.daemoneye
import trio_ipc.testing
import trio_ipc.transports

MODULES = (trio_ipc, trio_ipc.transports, trio_ipc.daemoneye, trio_ipc.testing)

#: What of each public function, class and method may be given by its place, in this order.
BY_PLACE = dict(
    line.split(":")
    for line in """\
Answer: response endpoint_id attempts duration
BreakerStatistics:
Call: peer deadline connection
Channel.receive_nowait: at_most
Channel.fill: deadline
Channel.send_nowait: payloads
Channel.check: payload
Channel.receive:
Channel.send: payload
Channel.send_many: payloads
Client: channel contract config
Client.call: request
Client.call_many: requests
ClientMetrics:
ClientSnapshot:
Contract:
Contract.may_repeat: request
Contract.failed_response: request reason
Contract.capabilities_in: response
Contract.can_do: capabilities request
Contract.decode_request: payload
Contract.decode_response: payload
Contract.decode_answer: request payload
Contract.check_request: request
Endpoint: config
EndpointStatistics:
FramedChannel: stream config
FramedChannel.receive_nowait: at_most
FramedChannel.fill: deadline
FramedChannel.send_nowait: payloads
FramedChannel.check: payload
FramedChannelListener: listener config
HistogramSnapshot:
IpcConfig:
Negotiation:
PeerCredentials: pid uid gid sid shown_uid groups process
PeerPolicy: allowed groups executables
PeerPolicy.users: users
PeerPolicy.group: group
PeerPolicy.of: policy
PeerPolicy.running:
PeerPolicy.allows: peer
PeerPolicy.judge: peer
PeerPolicy.said_of: verdict
ResilientClient: settings nursery
ResilientClient.add_endpoint: endpoint
ResilientClient.remove_endpoint: endpoint_id
ResilientClient.call: request
ResilientClient.ask: request
ResilientConfig:
Server: handler contract listener config peers
Server.switch_transport: transport
ServerCounts:
ServerSnapshot:
Traffic:
ResilientClient.wait_until_healthy: timeout
answering_health: handler contract is_well
check_health: contract config
check_client: contract endpoint config
check_server: contract endpoint config
in_threads: handler limiter
logged: handler operation
run_service: handler contract config
open_client: contract config
open_resilient_client: contract endpoints settings
serve: handler contract config
serve_listener: handler contract listener config
EndpointState:
EndpointState.of: endpoint inode root
EndpointState.changes: now
Executable: path file
open_local_stream: name
open_unix_listeners: path
open_unix_stream: path
serve_unix: handler path
UnixListener: detached
LocalStream.receive_some: max_bytes
UnixStream: sock endpoint
UnixStream.read: max_bytes
UnixStream.write: data
UnixStream.write_both: first second
UnixStream.write_some: data
Capabilities: domains
Capabilities.refusal: task
CapabilityGate: handler capabilities
failed: task message
is_capability_negotiation: task
stated_capabilities: result
unsupported: task domains
CancelledAttempt: moment number schedule
CancelledAttempt.task_spawned: task
CancelledAttempt.task_exited: task
CancelledAttempt.before_task_step: task
CancelledAttempt.after_task_step: task
Delay: seconds
Difference: connection number request expected got error
Dribble: size seconds count
Drop: count
Duplicate: count
Exchange: connection number request response
Faults:
Faults.wrap: stream
Faults.wrap_as: name
Flip: bit
IpcEndpoint.config:
IpcEndpoint.listen_streams: peers
IpcEndpoint.listen: config peers
IpcEndpoint.open_channel: config
MemoryEndpoint: name
MemoryEndpoint.refuse: error
MemoryEndpoint.fail_accept: error
MemoryEndpoint.listen_streams: peers
MemoryEndpoint.listen: config peers
MemoryEndpoint.open_channel: config
MemoryListener: owner
MemoryNetwork.endpoint: name
MemoryNetwork.add: endpoint
MemoryNetwork.open_channel: config
MemoryStream: endpoint peer inward outward
MemoryStream.read: max_bytes
MemoryStream.write: data
MemoryStream.write_some: data
Merge: count
OpenClient:
RecordedFrame: at connection by payload error
RecordedHandler: recording contract
Recorder: path contract config
Recorder.wrap: stream
Recorder.wrap_server: stream
Recording: started contract crc32_variant max_frame_bytes events damage
Recording.lines: contract
Reply: server stream call request encoder
Reply.frame: response
Reply.failed: message
Reply.framed: payload
Reply.send: response
Reply.send_bytes: data
Rule: fault byte frame each_frame offset probability
SimulatedCollector: handler endpoint config capabilities
SimulatedServer: handler contract endpoint config
SimulatedServer.script:
SimulatedServer.wait_asked: count
SimulatedServer.running:
StartServer:
SystemEndpoint: path transport
SystemEndpoint.listen_streams: peers
SystemEndpoint.listen: config peers
SystemEndpoint.open_channel: config
answer: handler
at_byte: byte fault
at_each_frame: fault
at_frame: frame fault
at_random: probability fault
cancel_everywhere: moments
close_mid_frame: after
drip: seconds size
fail: message
garbage: data
memory_streams: endpoint
open_client_at: contract endpoint config
open_pair: handler contract config
open_server: handler contract endpoint config
read_recording: path
relay: listen_at connect_to
replay_requests: recording contract connect
same_task: task recorded result
simulate_collector:
simulate_reference: records
simulate_server: handler contract
slow: seconds then
temporary_endpoint: transport
wrong_task_id: task_id
""".splitlines()
)


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """All that can be called, each once, by its name."""
    seen = set()
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            if not getattr(thing, "__module__", "").startswith("trio_ipc") or id(thing) in seen:
                continue
            seen.add(id(thing))
            if inspect.isfunction(thing):
                yield name, thing
            elif inspect.isclass(thing) and not issubclass(thing, (enum.Enum, BaseException)):
                yield from methods_of(thing)


def methods_of(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    if "__init__" in vars(kind) and not inspect.isabstract(kind):
        yield kind.__name__, kind
    # What a class has from a base beside it is its own; from Trio's and others, it is theirs to say.
    ours = [one for one in reversed(kind.__mro__) if one.__module__ == kind.__module__]
    members = {name: member for one in ours for name, member in vars(one).items()}
    for name, member in members.items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if inspect.isfunction(function) and not name.startswith("_"):
            yield f"{kind.__name__}.{name}", getattr(kind, name)


def by_place(thing: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(thing).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one for one in parameters if one.kind in kinds and one.name != "self"]


PUBLIC = dict(public())


@pytest.mark.parametrize("name", BY_PLACE)
def test_what_is_given_by_its_place_is_that_and_no_more(name: str) -> None:
    if name not in PUBLIC and sys.platform == "win32":
        pytest.skip("it is Unix' own")
    assert [one.name for one in by_place(PUBLIC[name])] == BY_PLACE[name].split()


def test_what_may_be_left_out_is_given_by_its_name_elsewhere() -> None:
    loose = {
        f"{name}({one.name}=…)"
        for name, thing in PUBLIC.items()
        if name not in BY_PLACE
        for one in by_place(thing)
        if one.default is not inspect.Parameter.empty
    }
    assert loose == set(), "give them by name, after a *, or put them into BY_PLACE"
