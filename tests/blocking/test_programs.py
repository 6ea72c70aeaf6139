"""Synchronous programs outside of the tree: those that forget to close, and those that fork."""

from __future__ import annotations

import pytest

from tests.adapters import Gate, program, served
from tests.platforms import unix_only
from trio_ipc import IpcConfig

FORGETS = """
import sys
from trio_ipc import IpcConfig
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
client = open_client(DETECTION, config)
print(client.call(DetectionTask(task_id="1")).success)
"""

#: Ends while a thread of its own waits for a response.
ENDS_IN_A_CALL = (
    FORGETS
    + """
import threading
threading.Thread(target=client.call, args=(DetectionTask(task_id="wait"),), daemon=True).start()
"""
)

FORKS = """
import os, sys
from trio_ipc import IpcConfig, IpcError
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
with open_client(DETECTION, config) as client:
    client.call(DetectionTask(task_id="1"))
    child = os.fork()
    if child == 0:
        try:
            client.call(DetectionTask(task_id="2"))
        except IpcError as exc:
            said = exc.message.replace(str(os.getppid()), "P").replace(str(os.getpid()), "C")
            print(said, exc.hint, sep="\\n")
    else:
        assert os.waitpid(child, 0) == (child, 0)
        print(client.call(DetectionTask(task_id="3")).task_id)
"""


def test_a_program_that_forgets_to_close_ends_and_is_told(config: IpcConfig, directory: str) -> None:
    arguments = (config.endpoint_path, str(config.transport))
    for text in (FORGETS, FORGETS + "del client\nprint(True)\n"):
        with (
            served(config) as server,
            program(text, *arguments, directory=directory, options=("-W", "always")) as caller,
        ):
            status, out, errors = caller.end()
            assert (status, set(out.split())) == (0, {"True"})
            assert errors.count("ResourceWarning: unclosed <trio_ipc.blocking.Client at") == 1, errors
            assert "Traceback" not in errors
            server.stop()


def test_a_program_may_end_while_a_thread_of_its_own_calls(config: IpcConfig, directory: str) -> None:
    gate = Gate()
    arguments = (config.endpoint_path, str(config.transport))
    with served(config, gate), program(ENDS_IN_A_CALL, *arguments, directory=directory) as caller:
        status, out, _ = caller.end()
        assert (status, out) == (0, "True\n")


@unix_only
@pytest.mark.parametrize("max_in_flight", ["1", "64"])
def test_a_forked_child_is_told_and_its_parent_goes_on(
    config: IpcConfig, directory: str, max_in_flight: str
) -> None:
    text = FORKS.replace("DETECTION, config)", f"DETECTION, config, max_in_flight={max_in_flight})")
    arguments = (config.endpoint_path, str(config.transport))
    # Python itself warns of a fork beside threads, which is what is tried here.
    options = ("-W", "ignore::DeprecationWarning")
    with served(config), program(text, *arguments, directory=directory, options=options) as caller:
        status, out, errors = caller.end()
        assert (status, errors) == (0, "")
        assert out.splitlines() == [
            "it was opened by process P, and this is a fork of it, process C",
            "open a new one in each process, after the fork",
            "3",
        ]
