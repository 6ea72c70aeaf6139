"""``trio-ipc doctor``: the cause in each of many broken set-ups, and nothing broken where all is well."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

if sys.platform == "win32":
    pytest.skip("speaks of files, which pipes have not", allow_module_level=True)

import grp
import pwd

from tests.cli import broken_servers
from tests.cli.broken_setups import OF_ROOT, SETUPS, USER, Place, SetUp, acting_as, served
from tests.cli.processes import command
from tests.cli.terminal import at_terminal, plain
from tests.support import succeed
from trio_ipc import EndpointUnsafeError, IpcConfig, PeerPolicy
from trio_ipc.cli.ending import Status
from trio_ipc.cli.examining import examine
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import open_server, temporary_endpoint
from trio_ipc.transports import findings, unix_paths
from trio_ipc.transports.findings import Finding

#: Loaded here: they note set-ups, and a user without rights may not be able to read the interpreter's files.
LOADED = (broken_servers, grp, pwd)


@pytest.fixture
def place() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="doctor-"))
    yield Place(directory)
    directory.chmod(0o700)
    for inner in directory.iterdir():
        if inner.is_dir() and not inner.is_symlink():
            inner.chmod(0o700)
    shutil.rmtree(directory)


async def examined(place: Place) -> list[Finding]:
    settings: dict[str, Any] = {"crc32_variant": "auto", **place.settings}
    name = settings.pop("name", place.name or str(place.path))

    def load(endpoint: str) -> IpcConfig:
        return IpcConfig(endpoint_path=endpoint, **settings)

    return await examine(name, DETECTION, load, PeerPolicy.own_user_and_root(), 0.5)


def told(found: list[Finding]) -> str:
    return "\n".join(
        f"{one.about}: {one.seen}; {one.advice}" for one in found if one.verdict != findings.GOOD
    )


def test_there_are_thirty_broken_set_ups() -> None:
    assert len(SETUPS) >= 30


@pytest.mark.parametrize(("name", "set_up", "said"), SETUPS, ids=[name for name, *_ in SETUPS])
async def test_the_cause_is_named(place: Place, name: str, set_up: SetUp, said: str) -> None:
    if name in OF_ROOT and os.geteuid() != 0:
        pytest.skip("takes root to be a stranger")
    async with served(place):  # what is loaded when it is needed must be loaded while it can be read
        await examined(Place(place.directory))
    if os.geteuid() == 0:
        os.chown(place.directory, USER, USER)
    with acting_as(USER):
        async with set_up(place):
            found = await examined(place)
    assert re.search(said, told(found)), told(found)
    assert all(one.advice for one in found if one.verdict != findings.GOOD)


async def test_where_all_is_well_nothing_is_broken(place: Place) -> None:
    async with served(place):
        found = await examined(place)
    assert told(found) == ""
    assert any(one.about == "server" and f"uid {os.geteuid()}" in one.seen for one in found)
    abouts = [one.about for one in found if one.about != "namespace"]
    assert abouts == ["name", "settings", "way", "directory", "file", "server", "trust", "answer"]


async def test_a_contract_that_does_not_understand_a_response_is_told(place: Place) -> None:
    health: Any = DETECTION.health
    health = attrs.evolve(health, says_well=lambda _: bool(1 / 0))
    contract, policy = attrs.evolve(DETECTION, health=health), PeerPolicy.own_user_and_root()
    async with served(place):
        found = await examine(
            str(place.path), contract, lambda endpoint: IpcConfig(endpoint_path=endpoint), policy, 5
        )
    assert re.search(rf"answer: says_well of the contract {contract.name} raised ZeroDivision", told(found))


async def test_who_has_no_number_in_a_user_namespace_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "hidden_uid", os.geteuid)
    async with served(place):
        assert "this process itself has uid" in told(await examined(place))


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="takes root: another user's directory"
)
@pytest.mark.parametrize("trusted", [True, False])
async def test_the_directory_of_a_trusted_user_is_judged_as_theirs(directory: str, trusted: bool) -> None:
    os.chown(directory, 12_345, -1)
    policy = PeerPolicy.users([12_345] if trusted else [])
    found = [
        one for one in findings.of_files(f"{directory}/s.sock", None, policy) if one.about == "directory"
    ]
    if trusted:
        assert [one.verdict for one in found] == [findings.GOOD]
        Path(directory).chmod(0o777)
        found = [*findings.of_files(f"{directory}/s.sock", None, policy)]
    assert [one.verdict for one in found if one.about == "directory"] == [findings.BROKEN]
    assert "a server would refuse it" in told(found)


@pytest.mark.parametrize("judged", [None, EndpointUnsafeError("unsafe", endpoint="x", hint="mend it")])
async def test_a_directory_that_goes_while_it_is_looked_at_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged: Exception | None
) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()

    def judge(*_: object, **__: object) -> None:
        directory.rmdir()
        if judged is not None:
            raise judged

    monkeypatch.setattr(unix_paths, "judge", judge)
    policy = PeerPolicy.own_user_and_root()
    found = [*findings.of_files(str(directory / "s.sock"), None, policy)]
    assert "directory: it cannot be looked at: No such file or directory; check the path" in told(found)
    assert "file: there is no socket at the path" in told(found)


async def test_a_link_on_the_way_that_goes_while_it_is_looked_at_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "islink", lambda _: True)
    found = [*findings.of_files(str(tmp_path / "none" / "s.sock"), None, PeerPolicy.anyone())]
    assert told(found) == "way: it cannot be looked at: No such file or directory; check the path"


async def test_as_a_process_it_tells_by_its_status(tmp_path: Path) -> None:
    with temporary_endpoint() as endpoint:
        run = await command("doctor", endpoint.path)
        assert (run.returncode, run.stderr) == (Status.NO, "")
        assert "\nbroken   file      there is no socket at the path; " in run.stdout
        async with open_server(succeed, DETECTION, endpoint):
            run = await command("doctor", "--json", endpoint.path)
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert json.loads(run.stdout)["ok"] is True
    (tmp_path / "wrong.toml").write_text("[ipc]\nread_timeout_ms = 0\n")
    run = await command("doctor", endpoint.path, "--config", str(tmp_path / "wrong.toml"))
    assert run.returncode == Status.NO
    assert "broken   settings  " in run.stdout
    run = await command("doctor", endpoint.path, "--config", str(tmp_path / "none.toml"))
    assert run.returncode == Status.NO
    assert "none.toml" in run.stdout


@pytest.mark.parametrize(("columns", "colour"), [(40, True), (120, False)])
async def test_at_a_terminal_it_is_a_table_that_fits(columns: int, colour: bool) -> None:
    environ = {} if colour else {"NO_COLOR": "1"}
    with temporary_endpoint() as endpoint:
        status, said = await at_terminal("doctor", endpoint.path, columns=columns, **environ)
    assert status == Status.NO
    assert ("\x1b[1;31mbroken" in said) is colour
    lines = plain(said).splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.split()[:2] == ["broken", "file"] for line in lines)
