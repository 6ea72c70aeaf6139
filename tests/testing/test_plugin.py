"""The plugin, in pytest runs of their own."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from tests.platforms import UNDER_WINE, unix_only
from tests.testing.inner_pytest import long_under_wine, run
from trio_ipc import ConfigError, IpcConfig

HANDLER = """
import pytest
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

async def handler(task, call):
    return DetectionResult(task_id=task.task_id, success=True)

async def answers(ipc_server, ipc_client, **settings):
    server = await ipc_server(handler, DETECTION, **settings)
    client = await ipc_client(DETECTION, **settings)
    result = await client.call(DetectionTask(task_id="1"))
    assert result.success
    return server, client
"""


def has_legacy() -> bool:
    try:
        IpcConfig(transport="legacy")
    except ConfigError:
        return False
    return True


def test_a_server_and_a_client_are_two_lines_at_an_endpoint_of_their_own(pytester: pytest.Pytester) -> None:
    code = (
        HANDLER
        + """
seen = set()

async def test_it(ipc_server, ipc_client, autojump_clock):
    server, client = await answers(ipc_server, ipc_client)
    assert server.snapshot().requests == 1
    second = await ipc_client(DETECTION, read_timeout_ms=5)
    assert (await second.call(DetectionTask(task_id="2"))).task_id == "2"

@pytest.mark.parametrize("turn", range(3))
@pytest.mark.ipc_transport("memory", "interprocess")
async def test_own(ipc_endpoint, ipc_server, ipc_client, turn):
    await answers(ipc_server, ipc_client)
    assert ipc_endpoint not in seen
    seen.add(ipc_endpoint)
"""
    )
    run(pytester, code).assert_outcomes(passed=7)


def test_the_marker_runs_a_test_over_each_kind_and_skips_what_there_is_not(pytester: pytest.Pytester) -> None:
    code = (
        HANDLER
        + """
@pytest.mark.ipc_transport("memory", "interprocess", "legacy")
async def test_it(ipc_endpoint, ipc_server, ipc_client):
    await answers(ipc_server, ipc_client)

@pytest.mark.ipc_transport("interprocess")
class TestAll:
    def test_of_another_kind(self):
        pass

    async def test_that(self, ipc_endpoint):
        assert ipc_endpoint.config().transport == "interprocess"
"""
    )
    result = run(pytester, code, "-rs", "-v")
    if has_legacy():
        result.assert_outcomes(passed=5)
    else:
        result.assert_outcomes(passed=4, skipped=1)
        result.stdout.fnmatch_lines(["*SKIPPED*transport is 'legacy'*"])
    result.stdout.fnmatch_lines(
        ["*test_it[[]memory[]]*", "*test_it[[]interprocess[]]*", "*test_it[[]legacy[]]*"]
    )


@long_under_wine
def test_a_wrong_marker_is_told_at_once(pytester: pytest.Pytester) -> None:
    code = """
import pytest

@pytest.mark.ipc_transport({arguments})
async def test_it({fixture}):
    raise AssertionError("it ran")
"""
    pytester.makepyfile(
        test_a=code.format(arguments='"pigeon"', fixture="ipc_endpoint"),
        test_b=code.format(arguments="", fixture="ipc_endpoint"),
        test_c=code.format(arguments='"memory"', fixture="tmp_path"),
    )
    result = run(pytester, "", "--continue-on-collection-errors")
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(
        [
            "*'pigeon'* must name some of memory, interprocess, legacy*",
            "*ipc_transport() must name some of*",
            "*is for tests that use ipc_endpoint, ipc_server or ipc_client*",
        ]
    )
    assert "it ran" not in result.stdout.str()
    assert "pytest_generate_tests" not in result.stdout.str(), "the plugin's own code tells nobody anything"


@unix_only  # speaks of a socket's path
def test_an_endpoint_that_cannot_be_made_is_an_error_and_no_skip(pytester: pytest.Pytester) -> None:
    code = f"""
import tempfile
import pytest

tempfile.tempdir = {str(pytester.mkdir("x" * 100))!r}

@pytest.mark.ipc_transport("interprocess")
def test_it(ipc_endpoint):
    pass
"""
    result = run(pytester, code)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*set TMPDIR to a shorter path*"])


@long_under_wine
def test_a_server_that_dies_fails_its_test(pytester: pytest.Pytester) -> None:
    code = (
        HANDLER
        + """
import trio

async def test_it(ipc_endpoint, ipc_server):
    await ipc_server(handler, DETECTION)
    ipc_endpoint.fail_accept(OSError(5, "the disk is on fire"))
    await trio.sleep_forever()
"""
    )
    result = run(pytester, code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the listener failed*the disk is on fire*"])


@long_under_wine
def test_what_a_handler_asserts_fails_its_test(pytester: pytest.Pytester) -> None:
    code = """
import trio
from trio_ipc.daemoneye import DETECTION, DetectionTask

async def handler(task, call):
    assert task.task_id == "expected"

async def test_it(ipc_server, ipc_client):
    await ipc_server(handler, DETECTION)
    client = await ipc_client(DETECTION)
    await client.call(DetectionTask(task_id="another"))
    await trio.sleep_forever()
"""
    result = run(pytester, code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert task.task_id == *expected*"])


@long_under_wine
def test_what_pytest_raises_in_a_handler_is_how_the_test_comes_out(pytester: pytest.Pytester) -> None:
    """Whatever comes first: a task that waits and the one that ends it run in random order."""
    code = """
import pytest
from trio_ipc.daemoneye import DETECTION, DetectionTask

async def skips(task, call):
    pytest.skip("not on this system")

async def asserts(task, call):
    assert task.task_id == "expected"

async def ask(ipc_server, ipc_client, handler):
    await ipc_server(handler, DETECTION)
    client = await ipc_client(DETECTION)
    await client.call(DetectionTask(task_id="another"))

@pytest.mark.parametrize("turn", range(10))
async def test_skipped(ipc_server, ipc_client, turn):
    await ask(ipc_server, ipc_client, skips)

@pytest.mark.parametrize("turn", range(10))
async def test_asserted(ipc_server, ipc_client, turn):
    await ask(ipc_server, ipc_client, asserts)
"""
    result = run(pytester, code)
    result.assert_outcomes(skipped=10, failed=10)
    result.stdout.no_fnmatch_line("*PeerClosedError*")


def test_a_failure_tells_the_seed_and_the_option_repeats_it(pytester: pytest.Pytester) -> None:
    code = (
        HANDLER
        + """
from trio_ipc.testing import Flip, at_random

async def test_it(ipc_server, ipc_client, ipc_faults, autojump_clock):
    faults = ipc_faults(receiving=[at_random(0.2, Flip())])
    await ipc_server(handler, DETECTION)
    client = await ipc_client(DETECTION, wrap=faults.wrap)
    for number in range(100):
        await client.call(DetectionTask(task_id=str(number)))

def test_that_passes(ipc_faults):
    ipc_faults(seed=1)
"""
    )
    first = run(pytester, code)
    first.assert_outcomes(failed=1, passed=1)
    first.stdout.fnmatch_lines(
        ["*trio_ipc faults*", "Faults(seed=*, receiving=[[]at_random(0.2, Flip(bit=None))[]])"]
    )
    report = first.stdout.str().partition("- trio_ipc faults -")[2].splitlines()
    hits = [line for line in report if line.startswith("  stream 1 receiving byte")]
    assert hits
    seed = report[1].partition("seed=")[2].partition(",")[0]
    second = run(pytester, code, "--ipc-seed", seed)
    for hit in hits:
        assert hit in second.stdout.lines


def test_the_option_is_for_the_first_faults_that_the_test_gives_no_seed(pytester: pytest.Pytester) -> None:
    code = """
def test_it(ipc_faults):
    assert [ipc_faults(seed=seed).seed for seed in (7, None, 8, None)] == [7, 41, 8, 42]
"""
    run(pytester, code, "--ipc-seed", "41").assert_outcomes(passed=1)


def test_loading_it_imports_nothing_of_the_package(pytester: pytest.Pytester) -> None:
    code = """
import re
import sys
from pathlib import Path

def test_nothing():
    assert "pytest_trio_ipc" in sys.modules
    assert not [name for name in sys.modules if name == "trio_ipc" or name.startswith("trio_ipc.")]
    assert "trio" not in sys.modules

def test_it_is_told_what_there_is(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("pytest_trio_ipc")
"""
    pytester.makepyfile(code)
    # Other plugins import Trio, and would hide whether this one does.
    plugin = ["-p", "pytest_trio_ipc"] if UNDER_WINE else []
    others = ("trio", "hypothesispytest", "anyio", "randomly", "xdist")
    arguments = [*(part for name in others for part in ("-p", f"no:{name}")), *plugin]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=2)


@long_under_wine
def test_another_event_loop_that_takes_the_fixtures_is_told_what_to_do(pytester: pytest.Pytester) -> None:
    """As pytest-asyncio does in its automatic mode, which need not be installed here."""
    pytester.makeconftest(
        """
import asyncio
import inspect
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    if not inspect.isasyncgenfunction(fixturedef.func):
        return None
    arguments = {name: request.getfixturevalue(name) for name in fixturedef.argnames}
    return asyncio.run(anext(fixturedef.func(**arguments)))
"""
    )
    code = """
import pytest

@pytest.mark.parametrize("name", ["ipc_server", "ipc_client"])
def test_it(request, name):
    request.getfixturevalue(name)
"""
    result = run(pytester, code, trio_mode=False)
    result.assert_outcomes(errors=0, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*ipc_server needs Trio*Set asyncio_mode = strict*anyio_backend be 'trio'*",
            "*ipc_client needs Trio*",
        ]
    )


@long_under_wine
def test_it_may_be_loaded_by_name_as_well_and_tells_what_it_has(pytester: pytest.Pytester) -> None:
    result = run(pytester, "", "-p", "pytest_trio_ipc", "--fixtures")
    result.stdout.fnmatch_lines_random(["ipc_endpoint*", "ipc_server*", "ipc_client*", "ipc_faults*"])


def test_the_harness_needs_no_test_framework() -> None:
    import subprocess

    code = "import sys, trio_ipc.testing, trio_ipc.testing.fixtures; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pytest", "pytest_trio_ipc", "_pytest", "hypothesis"} & set(done.stdout.split())
    assert importlib.util.find_spec("pytest_trio_ipc") is not None


@long_under_wine
def test_the_tests_of_the_guide_pass_as_printed(pytester: pytest.Pytester) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    [printed] = [
        code
        for code in re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
        if "def test_" in code
    ]
    result = run(pytester, printed, "-rs", trio_mode=False)
    result.assert_outcomes(passed=4 if has_legacy() else 3, skipped=0 if has_legacy() else 1)


@long_under_wine
def test_the_report_of_a_test_that_runs_again_has_the_faults_of_that_run(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for _ in range(2):
        item._initrequest()  # as pytest-rerunfailures does, which need not be installed here
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
    )
    code = """
import itertools

seeds = itertools.count(7)

def test_it(ipc_faults):
    ipc_faults(seed=next(seeds))
    assert False
"""
    result = run(pytester, code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("Faults(seed=8)")
    result.stdout.no_fnmatch_line("Faults(seed=7)")
