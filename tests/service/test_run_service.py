"""A whole server program, from outside: how it starts, stops, reloads and fails, and what it says."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.examples.support import Program, spawn
from tests.platforms import exists, unix_only
from tests.support import succeed
from trio_ipc import ExitStatus, IpcConfig, PeerPolicy, run_service
from trio_ipc.daemoneye import DETECTION

from .support import ask, at, running, service

pytestmark = unix_only

if sys.platform == "win32":
    pytest.skip("signals are as Unix has them; examples/procmond is tested there", allow_module_level=True)
assert sys.platform != "win32"


@pytest.fixture
def endpoint(directory: str) -> str:
    return f"{directory}/s"


async def fails(
    endpoint: str, setup: str = "", environ: dict[str, str] | None = None
) -> tuple[int, list[str]]:
    """Expect a service not to start; return its status and what it said."""
    async with spawn(*service(setup), environ=at(endpoint) | (environ or {})) as program:
        status = await program.end()
        assert program.stdout.seen == []
        return status, program.stderr.seen


# --- Stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_well_and_it_says_what_it_did(endpoint: str, number: int) -> None:
    async with running(endpoint, "options['log_level'] = 'WARNING'") as program:
        assert (await ask(endpoint)).success
        await program.signal(number)
        assert await program.end() == 0
        (line,) = program.stderr.seen
        assert line.startswith("svc: served: transport=interprocess ")
        assert "requests=1" in line.split()
        assert not exists(endpoint)


#: A service that ends by what it is told alone, however long that takes to come.
PATIENT = {"TRIO_IPC_SHUTDOWN_GRACE_MS": "600000", "TRIO_IPC_HANDLER_TIMEOUT_MS": "600000"}


async def test_requests_in_flight_are_answered_after_the_first_signal(endpoint: str) -> None:
    async with running(endpoint, environ=PATIENT) as program, trio.open_nursery() as nursery:
        answers: list[bool] = []

        async def call() -> None:
            answers.append((await ask(endpoint, "wait")).success)

        nursery.start_soon(call)
        assert await program.stdout.next() == "waiting"
        await program.signal(signal.SIGTERM)
        while exists(endpoint):  # noqa: ASYNC110 - another process removes it
            await trio.sleep(0.001)
        await program.write(b"go on\n")
        assert await program.end() == 0
    assert answers == [True]


async def test_the_second_signal_ends_it_at_once(endpoint: str) -> None:
    async with running(endpoint, environ=PATIENT) as program, trio.open_nursery() as nursery:
        cut_off = pytest.raises(Exception, match="closed the connection")

        async def call() -> None:
            with cut_off:
                await ask(endpoint, "wait")

        nursery.start_soon(call)
        assert await program.stdout.next() == "waiting"
        await program.signal(signal.SIGTERM)
        await program.signal(signal.SIGINT)
        assert await program.end() == 0
        assert "requests_failed.cut_off=1" in program.stderr.seen[-1].split()
        assert not exists(endpoint)


async def test_a_handler_that_ends_the_program_does(endpoint: str) -> None:
    async with running(endpoint) as program:
        with pytest.raises(Exception, match="closed the connection"):
            await ask(endpoint, "exit")
        assert await program.end() == 5
        assert not exists(endpoint)


# --- Failing ------------------------------------------------------------------------------------------------


async def test_a_wrong_setting_has_its_status_and_one_line(endpoint: str) -> None:
    status, said = await fails(endpoint, environ={"TRIO_IPC_MAX_CONNECTIONS": "none"})
    assert (status, ExitStatus.CONFIG) == (78, 78)
    (line,) = said
    assert line.startswith("svc: max_connections is 'none', must be")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("log_style='xml'", 'svc: log_style is \'xml\', must be "text" or "json"'),
        ("log_level='loud'", "svc: log_level is 'loud', must be a number or one of CRITICAL"),
        ("metrics_file='/tmp/x.txt'", "svc: metrics_file is '/tmp/x.txt', must be a name that ends in .prom"),
        ("metrics_file='/tmp/x.prom', metrics_interval=0", "svc: metrics_interval is 0, must be a number"),
    ],
)
async def test_a_wrong_option_has_the_same(endpoint: str, option: str, said: str) -> None:
    status, lines = await fails(endpoint, f"options = dict({option})")
    assert status == ExitStatus.CONFIG
    (line,) = lines
    assert line.startswith(said)


async def test_an_endpoint_in_use_has_its_status(endpoint: str) -> None:
    async with running(endpoint) as program:
        status, said = await fails(endpoint)
        assert (status, ExitStatus.IN_USE) == (69, 69)
        assert said[-1].startswith(f"svc: {endpoint}: in use by process {program.pid}")


async def test_an_endpoint_that_others_could_replace_has_its_status(endpoint: str) -> None:
    os.chmod(os.path.dirname(endpoint), 0o777)
    status, said = await fails(endpoint)
    assert (status, ExitStatus.UNSAFE) == (77, 77)
    assert "others can write the directory" in said[-1]


async def test_an_endpoint_that_cannot_be_made_has_its_status(endpoint: str) -> None:
    with open(endpoint, "w"):
        pass
    status, said = await fails(f"{endpoint}/below/a/file")
    assert (status, ExitStatus.ENDPOINT) == (73, 73)
    assert "cannot listen" in said[-1]


async def test_an_output_that_takes_nothing_has_its_status(endpoint: str) -> None:
    command = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *service()]
    async with spawn(*command, environ=at(endpoint)) as program:
        assert (await program.end(), ExitStatus.OUTPUT) == (74, 74)
        assert program.stderr.seen[-1] == "svc: standard output: No space left on device"
    assert not exists(endpoint)


async def test_an_announcement_that_nobody_reads_is_no_failure(endpoint: str) -> None:
    async with spawn(*service(), environ=at(endpoint)) as program:
        await program.stdout.close()
        await program.stderr.until(lambda line: "listening at" in line)
        assert (await ask(endpoint)).success
        await program.signal(signal.SIGTERM)
        await program.stderr.rest()
        assert await program.process.wait() == 0


async def test_too_few_descriptors_have_their_status(endpoint: str) -> None:
    # Enough for Python to import, which opens one file at a time; too few for an event loop.
    setup = "import resource, trio_ipc.service\nresource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))"
    status, said = await fails(endpoint, setup)
    assert (status, ExitStatus.SYSTEM) == (71, 71)
    assert "Too many open files" in said[-1]


@pytest.mark.parametrize("style", ["text", "json"])
async def test_a_defect_has_its_status_and_a_traceback(endpoint: str, style: str) -> None:
    status, said = await fails(
        endpoint, f"def config(): raise ValueError('broken')\noptions['log_style'] = {style!r}"
    )
    assert (status, ExitStatus.DEFECT) == (70, 70)
    if style == "text":
        assert said[0] == "svc: a defect, ValueError: broken"
        assert said[1].startswith("Traceback")
    else:
        (line,) = said
        entry = json.loads(line)
        assert (entry["level"], entry["message"]) == ("CRITICAL", "a defect, ValueError: broken")
        assert "in config" in entry["exception"]


async def test_a_configuration_of_another_type_is_a_defect(endpoint: str) -> None:
    status, said = await fails(endpoint, "def config(): return 3")
    assert status == ExitStatus.DEFECT
    assert said[0].endswith("the function config returned 3, must be an IpcConfig")


@pytest.mark.parametrize(
    "wrong",
    [
        {"handler": succeed.__name__},
        {"contract": "DETECTION"},
        {"config": 3},
        {"peers": "me"},
        {"on_reload": succeed},
    ],
)
def test_a_wrong_argument_is_the_programs_own_mistake(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"handler": succeed, "contract": DETECTION, "config": IpcConfig(), **wrong}
    with pytest.raises(TypeError, match=next(iter(wrong))):
        run_service(**arguments)


def test_another_thread_than_the_main_one_is_refused() -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            run_service(succeed, DETECTION, IpcConfig(), peers=PeerPolicy.anyone())
        except RuntimeError as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "must be called in the main thread" in str(raised[0])


async def test_a_program_that_runs_trio_already_is_told_what_to_use() -> None:
    with pytest.raises(RuntimeError, match="in a program that does, use serve"):
        run_service(succeed, DETECTION, IpcConfig())


# --- Reloading ----------------------------------------------------------------------------------------------


RELOADS = """
import pathlib
settings = pathlib.Path(sys.argv[-1])
def config():
    return IpcConfig.load(settings)
def reloaded(config):
    if config.max_connections == 3:
        raise ValueError("three")
    print("reloaded", config.max_connections, flush=True)
options.update(on_reload=reloaded, log_level="WARNING")
"""


async def test_sighup_takes_over_what_it_can_and_calls_the_program(endpoint: str, directory: str) -> None:
    def write(text: str) -> None:
        with open(f"{directory}/new", "w") as file:
            file.write(f"[ipc]\n{text}")
        os.rename(f"{directory}/new", f"{directory}/settings")

    async def hang_up(program: Program) -> str | None:
        await program.signal(signal.SIGHUP)
        return await program.stderr.next()

    write("max_connections = 2\n")
    command = [*service(RELOADS), f"{directory}/settings"]
    async with spawn(*command, environ=at(endpoint)) as program:
        assert await program.stdout.next() == f"listening on {endpoint}"
        write('transport = "legacy"\nmax_connections = 2\n')
        said = await hang_up(program)
        assert said == "svc: reloaded: the transport was interprocess, is now legacy"
        assert await program.stdout.next() == "reloaded 2"
        write('transport = "legacy"\nmax_connections = 4\n')
        assert await hang_up(program) == "svc: reloaded: the transport stays legacy"
        assert await program.stderr.next() == "svc: these changes need a restart: max_connections"
        assert await program.stdout.next() == "reloaded 4"
        write('transport = "pigeon"\n')
        assert "svc: not reloaded: transport is 'pigeon'" in (await hang_up(program) or "")
        write('transport = "legacy"\nmax_connections = 3\n')
        await hang_up(program)
        await program.stderr.until(lambda line: line == "svc: not reloaded: ValueError: three")
        assert (await ask(endpoint)).success
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0


# --- What it says -------------------------------------------------------------------------------------------


async def test_json_lines_are_json_each_of_them(endpoint: str) -> None:
    async with running(endpoint, "options['log_style'] = 'json'") as program:
        await ask(endpoint)
        await program.signal(signal.SIGUSR1)
        await program.stderr.until(lambda line: '"telemetry"' in line)
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0
    entries = [json.loads(line) for line in program.stderr.seen]
    for entry in entries:
        assert {"time", "level", "logger", "message"} <= set(entry)
        assert entry["time"].endswith("Z")
    opened = next(entry for entry in entries if "opened by" in entry["message"])
    assert (opened["logger"], opened["endpoint"], opened["connection"]) == ("trio_ipc.server", endpoint, 1)
    told = next(entry for entry in entries if entry["message"] == "telemetry")
    assert (told["logger"], told["telemetry"]["requests"]) == ("svc", 1)
    assert entries[-1]["message"].startswith("served: ")


async def test_a_log_that_the_program_configured_stays_as_it_is(endpoint: str) -> None:
    setup = "logging.basicConfig(level=logging.INFO, format='MINE %(message)s')"
    async with running(endpoint, setup) as program:
        await program.stderr.until(lambda line: line.startswith("MINE listening at"))
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0
    assert program.stderr.seen[-1].startswith("svc: served: ")


# --- Metrics for node_exporter ------------------------------------------------------------------------------


#: Has a service say on standard error whenever it has put a file in its place.
TELLING = """
replace = os.replace

def told(*paths):
    replace(*paths)
    print("replaced", file=sys.stderr, flush=True)

os.replace = told
"""


async def until_told(program: Program, file: str, holds: Callable[[str], bool]) -> None:
    """Wait until a service has written a file of which this holds. It is whole whenever there is one."""
    while True:
        await program.stderr.until(lambda line: line == "replaced")
        with open(file) as opened:
            text = opened.read()
        assert text.endswith("\n")
        if holds(text):
            return


async def test_metrics_are_written_at_intervals_and_gone_at_the_end(endpoint: str, directory: str) -> None:
    file = f"{directory}/svc.prom"
    setup = f"{TELLING}\nos.umask(0o077)\noptions.update(metrics_file={file!r}, metrics_interval=0.05)"
    labels = f'{{contract="daemoneye.detection",endpoint="{endpoint}",transport="interprocess"}}'
    count = f"trio_ipc_server_requests_total{labels}"
    async with running(endpoint, setup) as program:
        await until_told(program, file, lambda text: f"\n{count} 0.0\n" in text)
        assert os.stat(file).st_mode & 0o777 == 0o644, "node_exporter is another user"
        await ask(endpoint)
        await until_told(program, file, lambda text: f"\n{count} 1.0\n" in text)
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0
    assert os.listdir(directory) == []


async def test_a_snapshot_is_written_at_intervals_and_stays_at_the_end(endpoint: str, directory: str) -> None:
    file = f"{directory}/svc.json"
    setup = f"{TELLING}\noptions.update(snapshot_file={file!r}, snapshot_interval=0.05)"
    async with running(endpoint, setup) as program:
        await ask(endpoint)
        await until_told(program, file, lambda text: bool(json.loads(text)["requests"] == 1))
        assert os.stat(file).st_mode & 0o777 == 0o600
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0
    assert os.listdir(directory) == ["svc.json"]
    with open(file) as opened:
        assert json.loads(opened.read())["connections_active"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"snapshot_interval": 1.0}, "svc: snapshot_interval is 1.0, and there is no snapshot_file; give"),
        (
            {"snapshot_interval": 0, "snapshot_file": "s"},
            "svc: snapshot_interval is 0, must be a number",
        ),
    ],
)
async def test_a_wrong_interval_of_snapshots_is_refused(
    endpoint: str, options: dict[str, object], said: str
) -> None:
    async with spawn(*service(f"options.update({options})"), environ=at(endpoint)) as program:
        assert await program.end() == 78
        assert program.stderr.seen[0].startswith(said)


async def test_metrics_that_cannot_be_written_are_one_line(endpoint: str, directory: str) -> None:
    setup = f"options.update(metrics_file='{directory}/no/svc.prom', metrics_interval=0.01)"
    async with running(endpoint, setup + "\noptions['log_level'] = 'WARNING'") as program:
        said = f"svc: {directory}/no/svc.prom: telemetry cannot be written: No such file or directory; "
        assert (await program.stderr.next() or "").startswith(said)
        for _ in range(3):
            await ask(endpoint)
        os.mkdir(f"{directory}/no")
        assert await program.stderr.next() == f"svc: {directory}/no/svc.prom: telemetry is written again"
        await program.signal(signal.SIGTERM)
        assert await program.end() == 0
