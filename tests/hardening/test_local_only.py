"""Nothing leaves the machine: no socket but local ones and no name looked up, as long as programs run.

Seen from two sides. strace sees every system call of the example programs and their children. Python's audit
events see what Python code asks for, on every system.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.examples.support import agent, procmond, spawn
from tests.hardening.record import Attack
from tests.platforms import unix_only
from trio_ipc import TransportType

#: What the C library reads before it asks for a host's address (resolv.conf(5), hosts(5), gai.conf(5)).
RESOLVERS = {"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf"}

#: And before it asks for anything by name, a user as well (nsswitch.conf(5)).
NAMES = "/etc/nsswitch.conf"


def traced(log: Path, command: list[str]) -> list[str]:
    """A program of ours under strace, which stands beside it (-D), so that signals are the program's."""
    return ["strace", "-D", "-f", "-q", "-s", "256", "-o", str(log), "-e", "trace=%network,%file", *command]


async def whole(log: Path, pid: int) -> str:
    """What strace wrote, once it has seen the program's end."""
    with trio.fail_after(30):
        while True:
            text = log.read_text(errors="replace")
            if re.search(rf"^{pid} +\+\+\+ (exited|killed)", text, re.MULTILINE):
                return text
            await trio.sleep(0.01)


def families_in(text: str) -> set[str]:
    return set(re.findall(r"\b[AP]F_\w+", text))


def files_in(text: str) -> set[str]:
    return set(re.findall(r'\b(?:open|openat|openat2|stat|newfstatat|access)\([^"\n]*"([^"]*)"', text))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("transport", TransportType, ids=str)
async def test_the_example_programs_make_no_system_call_that_leads_off_the_machine(
    tmp_path: Path, directory: str, transport: TransportType, attack: Attack
) -> None:
    assert sys.platform != "win32"
    endpoint = f"{directory}/s"
    served, asked = tmp_path / "collector", tmp_path / "agent"
    settings = {"TRIO_IPC_TRANSPORT": str(transport)}
    async with spawn(*traced(served, procmond(endpoint)), environ=settings) as collector:
        assert await collector.stdout.next() == f"listening on {endpoint}", await collector.stderr.rest()
        async with spawn(*traced(asked, agent(endpoint, "--once", "--hash")), environ=settings) as once:
            assert await once.end() == 0, once.stderr.seen
        collector.process.send_signal(signal.SIGTERM)
        assert await collector.end() == 0
    for log, pid in ((served, collector.pid), (asked, once.pid)):
        text = await whole(log, pid)
        assert families_in(text) == {"AF_UNIX"}
        assert endpoint in text, "it was seen"
        files = files_in(text)
        assert any(".so" in name for name in files), "they were seen"
        assert not files & RESOLVERS
        # A user of this machine, for whom the examples' libraries ask. Ours alone does not: see below.
        assert NAMES not in files or "/etc/passwd" in files
    attack(
        "system calls of a collector and an agent, from start to end",
        tried=1,
        outcome="no address family but AF_UNIX, and no file of the resolver is opened",
    )


#: Runs a server and clients from start to end, and prints what Python was asked for.
_PROGRAM = """
import json, socket, sys

seen = []

def listen(event, arguments):
    if event.startswith("socket."):
        kept = [repr(one) if isinstance(one, (tuple, bytes, str)) else int(one)
                for one in arguments[1:] if isinstance(one, (int, tuple, bytes, str))]
        seen.append([event, kept])

sys.addaudithook(listen)

import trio
from trio_ipc import Endpoint, IpcConfig, open_client, open_resilient_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

async def handler(task, call):
    return DetectionResult(task_id=task.task_id, success=True)

async def main():
    config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, handler, DETECTION, config)
        async with open_client(DETECTION, config) as client:
            await client.call(DetectionTask(task_id="1"))
            await server.switch_transport("legacy" if sys.argv[2] == "interprocess" else "interprocess")
        async with open_resilient_client(DETECTION, [Endpoint(config)]) as resilient:
            await resilient.call(DetectionTask(task_id="2"))
        server.stop()

trio.run(main)
print(json.dumps(seen))
"""


async def events_of(endpoint: str, transport: TransportType) -> list[tuple[str, list[int | str]]]:
    async with spawn(sys.executable, "-c", _PROGRAM, endpoint, str(transport)) as program:
        assert await program.end() == 0, program.stderr.seen
        [line] = program.stdout.seen
        return [(name, arguments) for name, arguments in json.loads(line)]


def no_name_is_looked_up(events: list[tuple[str, list[int | str]]]) -> None:
    harmless = {"socket.__new__", "socket.bind", "socket.connect", "socket.sendmsg", "socket.sendto"}
    assert {name for name, _ in events} <= harmless


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("transport", TransportType, ids=str)
async def test_the_library_by_itself_looks_up_not_even_a_user(
    tmp_path: Path, directory: str, transport: TransportType
) -> None:
    log, endpoint = tmp_path / "log", f"{directory}/s"
    command = [sys.executable, "-c", _PROGRAM, endpoint, str(transport)]
    async with spawn(*traced(log, command)) as program:
        assert await program.end() == 0, program.stderr.seen
    text = await whole(log, program.pid)
    assert families_in(text) == {"AF_UNIX"}
    assert f'sun_path="{endpoint}"' in text, "it was seen"
    assert not files_in(text) & (RESOLVERS | {NAMES})


@unix_only
@pytest.mark.parametrize("transport", TransportType, ids=str)
async def test_python_is_asked_for_unix_sockets_alone(
    directory: str, transport: TransportType, attack: Attack
) -> None:
    import socket

    endpoint = f"{directory}/s"
    events = await events_of(endpoint, transport)
    no_name_is_looked_up(events)
    assert {arguments[0] for name, arguments in events if name == "socket.__new__"} == {int(socket.AF_UNIX)}
    addresses = {arguments[0] for name, arguments in events if name in {"socket.bind", "socket.connect"}}
    assert addresses == {repr(endpoint)}
    attack(
        "audit events of Python from a server's start to its end, with clients and a switch of transports",
        tried=1,
        outcome="sockets of AF_UNIX alone, at this endpoint alone, and no name is looked up",
    )


@pytest.mark.skipif(sys.platform != "win32", reason="speaks of Windows' pipes")
@pytest.mark.parametrize("transport", TransportType, ids=str)
async def test_on_windows_the_only_socket_is_trios_own_by_which_it_wakes_itself(
    directory: str, transport: TransportType
) -> None:
    """Windows has no socketpair: Python makes one of sockets on the loopback address."""
    events = await events_of(rf"\\.\pipe\{Path(directory).name}\local", transport)
    no_name_is_looked_up(events)
    bound = [str(arguments[0]) for name, arguments in events if name == "socket.bind"]
    assert len(bound) <= 1
    addresses = {str(arguments[0]) for name, arguments in events if name in {"socket.bind", "socket.connect"}}
    assert all(one.startswith(("('127.0.0.1',", "('::1',")) for one in addresses), addresses
