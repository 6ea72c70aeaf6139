"""Names of Windows pipes. Pure functions, so that they are tested on every system."""

from __future__ import annotations

import pytest

from trio_ipc import ConfigError
from trio_ipc.endpoint import DEFAULT_PIPE, MAX_PIPE_CHARACTERS, PIPE_FOLDER, pipe_name_problem, pipe_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("procmond", r"\\.\pipe\procmond"),
        ("proc mond-1.2", r"\\.\pipe\proc mond-1.2"),
        (r"\\.\pipe\procmond", r"\\.\pipe\procmond"),
        (r"\\.\pipe\daemoneye\procmond", r"\\.\pipe\daemoneye\procmond"),
        (r"\\.\PIPE\procmond", r"\\.\PIPE\procmond"),
        (DEFAULT_PIPE, r"\\.\pipe\daemoneye\procmond"),
        ("ä" * 247, PIPE_FOLDER + "ä" * 247),
    ],
)
def test_a_bare_name_is_put_under_the_folder_and_a_full_one_is_left_alone(name: str, path: str) -> None:
    assert pipe_name_problem(name) is None
    assert pipe_path(name) == path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "not empty"),
        ("a\0b", "NUL"),
        ("/var/run/procmond.sock", "slashes"),
        ("//./pipe/procmond", "slashes"),
        (r"\\server\pipe\procmond", "this machine"),
        (r"\\?\pipe\procmond", "question mark"),
        (r"\\.\pipe", "another device"),
        (r"\\.\COM1", "another device"),
        (r"C:\procmond", "file's path"),
        ("C:procmond", "file's path"),
        (r"daemoneye\procmond", "file's path"),
        (r"\procmond", "file's path"),
        (PIPE_FOLDER, "empty part"),
        (r"\\.\pipe\\procmond", "empty part"),
        ("\\\\.\\pipe\\procmond\\", "empty part"),
        (r"\\.\pipe\..\C:\Windows\win.ini", "Windows would drop it"),
        ("procmond.", "Windows would drop it"),
        ("procmond ", "Windows would drop it"),
        ("x" * 248, "it has 257"),
        ("\U0001f600" * 124, "it has 257"),
    ],
)
def test_what_is_no_pipe_of_this_machine_is_refused_and_says_why(name: str, said: str) -> None:
    problem = pipe_name_problem(name)
    assert problem is not None
    assert said in problem
    with pytest.raises(ConfigError, match="the endpoint is .*, must be "):
        pipe_path(name)


def test_the_longest_name_is_counted_with_its_folder() -> None:
    longest = "x" * (MAX_PIPE_CHARACTERS - len(PIPE_FOLDER))
    assert pipe_name_problem(longest) is None
    assert pipe_name_problem(PIPE_FOLDER + longest) is None
    assert pipe_name_problem(PIPE_FOLDER + longest + "x") is not None
