from __future__ import annotations

import sys

import pytest

from trio_ipc.endpoint import MAX_PATH_BYTES, default_endpoint, endpoint_problem


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_the_longest_path_is_sun_path_less_its_nul() -> None:
    assert MAX_PATH_BYTES == 107


def test_the_default_is_daemoneyes_and_good() -> None:
    assert endpoint_problem(default_endpoint()) is None
