"""A program with a server forks, starts another and ends: no socket is taken along, inherited or removed."""

from __future__ import annotations

import subprocess

from tests.hardening.record import ROOT, Attack
from tests.hardening.system_support import command, running
from tests.platforms import needs_proc, unix_only
from tests.support import serving, succeed, success, task
from trio_ipc import IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION

FORKING = """
async def handle(request, call):
    if request.task_id == "fork":
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    return await succeed(request, call)

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, handle, DETECTION, config)
        print("ready", flush=True)

trio.run(main)
"""


@unix_only
async def test_a_child_that_the_host_program_forks_takes_nothing_with_it(
    config: IpcConfig, attack: Attack
) -> None:
    async with running(FORKING, config), open_client(DETECTION, config) as client:
        for _ in range(20):
            assert await client.call(task("fork")) == success("fork")
            async with open_client(DETECTION, config) as other:
                assert await other.call(task()) == success()
    attack(
        "the server's program forks, and the child leaves by `os._exit`",
        tried=20,
        outcome="connections and endpoint as before",
    )


CLOSING_IN_THE_CHILD = """
from trio_ipc.opening import open_channel_listener
from trio_ipc import PeerPolicy

async def main():
    listener = await open_channel_listener(config, PeerPolicy.own_user_and_root())
    if os.fork() == 0:
        closing = threading.Thread(target=trio.run, args=(listener.aclose,))
        closing.start()
        closing.join()
        os._exit(0)
    os.wait()
    assert os.path.exists(config.endpoint_path)
    await listener.aclose()
    assert not os.path.exists(config.endpoint_path)

trio.run(main)
print("it stayed")
"""


@unix_only
def test_a_forked_child_that_closes_the_listener_leaves_the_file(config: IpcConfig, attack: Attack) -> None:
    done = subprocess.run(
        command(CLOSING_IN_THE_CHILD, config), capture_output=True, cwd=ROOT, timeout=60, check=True
    )
    assert done.stdout == b"it stayed\n"
    attack(
        "the server's program forks, and the child closes the listener",
        tried=1,
        outcome="the socket file stays; only the process that made it removes it",
    )


@needs_proc
async def test_a_program_that_is_started_from_a_server_has_none_of_its_sockets(
    config: IpcConfig, attack: Attack
) -> None:
    async with serving(succeed, config), open_client(DETECTION, config) as client:
        assert await client.call(task()) == success()
        listing = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, check=True
        )
    assert b"socket:" not in listing.stdout
    attack(
        "a program started with `close_fds=False` from a process with a server and a client",
        tried=1,
        outcome="it inherits none of their sockets",
    )


EXITING = """
def serve_and_talk():
    async def main():
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, succeed, DETECTION, config)
            async with open_client(DETECTION, config) as client:
                await client.call(task())
                talking.set()
                await trio.sleep_forever()
    trio.run(main)

talking = threading.Event()
threading.Thread(target=serve_and_talk, daemon=True).start()
talking.wait()
"""


@unix_only
def test_an_interpreter_that_ends_with_connections_open_ends_quietly(
    config: IpcConfig, attack: Attack
) -> None:
    for _ in range(5):
        done = subprocess.run(
            command(EXITING, config), capture_output=True, cwd=ROOT, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    attack(
        "an interpreter that ends while a server and a client run in another thread",
        tried=5,
        outcome="it ends, without a word; the next start takes over the socket it left",
    )
