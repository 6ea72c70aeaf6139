"""Sockets that a service manager passes: systemd's protocol by hand, and by its own program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import trio

if sys.platform == "win32":
    pytest.skip("there is no such service manager", allow_module_level=True)
assert sys.platform != "win32"

from tests.examples.support import spawn  # noqa: E402
from trio_ipc import EndpointError, ExitStatus  # noqa: E402
from trio_ipc.transports import ActivatedSocket, activated_sockets  # noqa: E402

from .support import ask, at, service  # noqa: E402

#: What systemd does between fork and exec: descriptors from 3 on, and variables that say so.
_ACTIVATE = """
import fcntl, os, sys
count = int(sys.argv[1])
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[2:2 + count]]
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ["LISTEN_FDS"] = str(count)
os.environ["LISTEN_PID"] = str(os.getpid())
if sys.argv[2 + count]:
    os.environ["LISTEN_FDNAMES"] = sys.argv[2 + count]
os.execvp(sys.argv[3 + count], sys.argv[3 + count:])
"""


def activated(sockets: Sequence[socket.socket], names: str, command: Sequence[str]) -> list[str]:
    """Return the command line that starts a program as systemd would. The sockets have to be passed."""
    fds = [str(sock.fileno()) for sock in sockets]
    return [sys.executable, "-c", _ACTIVATE, str(len(fds)), *fds, names, *command]


@contextmanager
def listening(*paths: str) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        made = []
        for path in paths:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(path)
            os.chmod(path, 0o600)
            sock.listen()
            made.append(sock)
        yield made


def fds_of(sockets: Sequence[socket.socket]) -> list[int]:
    return [sock.fileno() for sock in sockets]


TELL = """
import json, os, sys
from trio_ipc.transports import activated_sockets
first = [[one.name, one.fd, os.get_inheritable(one.fd)] for one in activated_sockets()]
left = sorted(name for name in os.environ if name.startswith("LISTEN_"))
print(json.dumps([first, list(activated_sockets()), left]))
"""


@pytest.mark.parametrize(("names", "told"), [("main:admin", ["main", "admin"]), ("", ["unknown", "unknown"])])
async def test_the_sockets_are_told_with_their_names_once(
    directory: str, names: str, told: list[str]
) -> None:
    with listening(f"{directory}/a", f"{directory}/b") as both:
        command = activated(both, names, [sys.executable, "-c", TELL])
        async with spawn(*command, pass_fds=fds_of(both)) as program:
            assert await program.end() == 0, program.stderr.seen
    found = json.loads(program.stdout.seen[0])
    assert found == [[[told[0], 3, False], [told[1], 4, False]], [], []]


async def test_a_service_serves_on_the_socket_that_was_passed_and_leaves_it(directory: str) -> None:
    path = f"{directory}/s"
    with listening(path) as made:
        # A client that connects before the service is there waits for it, across a restart, too.
        for _ in range(2):
            answered = trio.Event()

            async def call(answered: trio.Event = answered) -> None:
                assert (await ask(path)).success
                answered.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                command = activated(made, "main", service())
                environ = at(f"{directory}/not-this-one")
                async with spawn(*command, environ=environ, pass_fds=fds_of(made)) as program:
                    assert await program.stdout.next() == f"listening on {path}"
                    await answered.wait()
                    await program.signal(signal.SIGTERM)
                    assert await program.end() == 0, program.stderr.seen
            assert stat.S_ISSOCK(os.lstat(path).st_mode)
    assert sorted(os.listdir(directory)) == ["s"]


async def test_a_service_of_one_endpoint_refuses_several_sockets(directory: str) -> None:
    with listening(f"{directory}/a", f"{directory}/b") as both:
        command = activated(both, "main:admin", service())
        async with spawn(*command, environ=at(f"{directory}/s"), pass_fds=fds_of(both)) as program:
            assert await program.end() == ExitStatus.ENDPOINT
    (line,) = program.stderr.seen
    assert line.startswith("svc: the service manager passed 2 sockets ('main', 'admin'), and this program")


CHOOSES = """
from trio_ipc.transports import activated_sockets
[chosen] = [one.fd for one in activated_sockets() if one.name == "admin"]
options["fd"] = chosen
"""


async def test_a_program_chooses_among_several_by_their_names(directory: str) -> None:
    with listening(f"{directory}/a", f"{directory}/b") as both:
        command = activated(both, "main:admin", service(CHOOSES))
        async with spawn(*command, environ=at(f"{directory}/s"), pass_fds=fds_of(both)) as program:
            assert await program.stdout.next() == f"listening on {directory}/b"
            assert (await ask(f"{directory}/b")).success


async def test_a_passed_socket_of_another_kind_is_one_line(directory: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        command = activated([sock], "", service())
        async with spawn(*command, environ=at(f"{directory}/s"), pass_fds=[sock.fileno()]) as program:
            assert await program.end() == ExitStatus.ENDPOINT
    (line,) = program.stderr.seen
    assert line.startswith("svc: descriptor 3 is a socket of the family AF_INET, must be a listening Unix")


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="takes systemd-socket-activate(1)"
)
async def test_systemds_own_program_activates_a_service(directory: str) -> None:
    path = f"{directory}/s"
    command = ["systemd-socket-activate", "--listen", path, "--fdname", "main", *service()]
    # Its socket is everybody's by its umask (systemd makes it 0666 by default, too).
    private = ["sh", "-c", 'umask 077; exec "$@"', "sh", *command]
    async with spawn(*private, environ=at(f"{directory}/not-this-one")) as program:
        await program.stderr.until(lambda line: line.startswith("Listening on"))
        assert (await ask(path)).success, "the first client starts it"
        assert await program.stdout.next() == f"listening on {path}"
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0, program.stderr.seen
    assert stat.S_ISSOCK(os.lstat(path).st_mode)


# --- The variables ------------------------------------------------------------------------------------------


def said_by(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[ActivatedSocket, ...]:
    for name, value in {"LISTEN_PID": str(os.getpid()), **variables}.items():
        monkeypatch.setenv(name, value)
    return activated_sockets()


def test_nothing_passed_is_nothing_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert activated_sockets() == ()
    assert said_by(monkeypatch, LISTEN_FDS="0") == ()
    assert said_by(monkeypatch, LISTEN_FDS="1", LISTEN_PID="1") == (), "another process's"
    assert said_by(monkeypatch, LISTEN_FDS="") == ()
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS in the environment is '-1', must be a whole number"),
        ({"LISTEN_FDS": "9" * 5_000}, "LISTEN_FDS in the environment is '999"),
        ({"LISTEN_FDS": "9999999"}, "must be at most 1048576"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "me"}, "LISTEN_PID in the environment is 'me', must be"),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "'a:b', must be 1 name, as LISTEN_FDS says"),
        ({"LISTEN_FDS": "1000000"}, "passed 1000000 sockets, but descriptor .* is not open"),
    ],
)
def test_variables_that_contradict_themselves_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(EndpointError, match=said):
        said_by(monkeypatch, **variables)


def test_the_variables_may_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "0")
    assert activated_sockets(unset=False) == ()
    assert os.environ["LISTEN_FDS"] == "0"
