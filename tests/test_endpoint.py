from __future__ import annotations

import os
import re
import sys

import pytest

from tests.platforms import unix_only
from trio_ipc import ConfigError, IpcConfig
from trio_ipc.endpoint import MAX_PATH_BYTES, default_endpoint, endpoint_in_full, endpoint_problem


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_the_longest_path_is_sun_path_less_its_nul() -> None:
    assert MAX_PATH_BYTES == 107


def test_the_default_is_daemoneyes_and_good() -> None:
    assert endpoint_problem(default_endpoint()) is None


@unix_only
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("@daemoneye", "an abstract socket has neither owner nor mode.*write /run/daemoneye/daemoneye.sock$"),
        (
            "\0daemoneye",
            "an abstract socket has neither owner nor mode.*write /run/daemoneye/daemoneye.sock$",
        ),
        ("@a/b c", "write /run/a-b-c/a-b-c.sock$"),
        ("@", "write /run/NAME/NAME.sock$"),
        ("~/x.sock", "only a shell knows what ~ is.*write /home/NAME/x.sock$"),
        ("~collector/x.sock", "only a shell knows what ~ is.*write /home/collector/x.sock$"),
        ("~", "write /home/NAME$"),
        ("unix:///run/x.sock", "not a URL.*write /run/x.sock$"),
        ("unix:/run/x.sock", "not a URL.*write /run/x.sock$"),
        ("unix://run/x.sock", "not a URL.*write /run/x.sock$"),
        ("UNIX:run/x.sock", "not a URL.*write /run/x.sock$"),
        ("ipc:///run/x.sock", "not a URL.*write /run/x.sock$"),
        ("file:///run/x.sock", "not a URL.*write /run/x.sock$"),
    ],
)
def test_how_other_programs_name_sockets_is_refused_with_what_to_write(name: str, says: str) -> None:
    problem = endpoint_problem(name)
    assert problem is not None
    assert re.search(f"^an absolute path.*{says}", problem), problem
    with pytest.raises(ConfigError, match="endpoint_path is .*, must be an absolute path") as caught:
        IpcConfig(endpoint_path=name)
    assert caught.value.field == "endpoint_path"
    # A program that puts its working directory before a path leaves it as it is, to be refused.
    assert endpoint_in_full(name) == name


@unix_only
def test_a_file_of_such_a_name_is_written_with_its_directory() -> None:
    for name in ("@x", "~x", "unix:x"):
        assert endpoint_in_full(f"./{name}") == f"{os.getcwd()}/{name}"
        assert endpoint_problem(f"/run/{name}") is None
