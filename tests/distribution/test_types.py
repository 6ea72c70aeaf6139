"""docs/types.md: what it tells users of mypy to set is needed, and is enough."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distribution.making import ROOT, TOOL_LIMIT

SCHEMA = """\
syntax = "proto3";

package example.types.v1;

enum Tone { PLAIN = 0; LOUD = 1; }
message Name { string first = 1; repeated string others = 2; }
message Question { string id = 1; Name name = 2; Tone tone = 3; }
message Answer { string id = 1; string text = 2; map<string, int32> counts = 3; }
"""

PROGRAM = """\
from greeting_pb2 import Answer, Name, Question
from trio_ipc import Call, Client, Contract, IpcConfig, open_client

GREETING = Contract(
    name="greeting",
    request_type=Question,
    response_type=Answer,
    failure=lambda request, reason: Answer(id="" if request is None else request.id, text=reason),
)


async def greet(question: Question, call: Call) -> Answer:
    return Answer(id=question.id, text=question.name.first, counts={"others": len(question.name.others)})


async def ask(config: IpcConfig) -> str:
    async with open_client(GREETING, config) as client:
        known: Client[Question, Answer] = client
        return (await known.call(Question(id="1", name=Name(first="A")))).text
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("types")
    (folder / "greeting.proto").write_text(SCHEMA)
    (folder / "program.py").write_text(PROGRAM)
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--pyi_out=."]
    subprocess.run([*protoc, "greeting.proto"], cwd=folder, timeout=TOOL_LIMIT, check=True)
    return folder


def mypy(folder: Path, settings: str) -> str:
    (folder / "mypy.ini").write_text(settings)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "."]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TOOL_LIMIT, check=False
    )
    assert not done.stderr
    return done.stdout


def settings_of_the_page() -> str:
    [settings] = re.findall(
        r"^```ini\n(.*?)^```$", (ROOT / "docs" / "types.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return str(settings)


def test_with_the_settings_of_the_page_mypy_has_nothing_to_say(checked: Path) -> None:
    assert mypy(checked, settings_of_the_page()).startswith("Success: no issues found")


def test_without_the_one_for_the_generated_module_it_has(checked: Path) -> None:
    strict, _, _ = settings_of_the_page().partition("[mypy-greeting_pb2]")
    assert "type-arg" in mypy(checked, strict)
