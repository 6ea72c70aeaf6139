"""Where one core is all that there is, nothing looks again before it sleeps."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import IN_MEMORY
from trio_ipc import IpcConfig
from trio_ipc.channel import FramedChannel
from trio_ipc.channel.cores import Cores, Quota, quota, usable_cores
from trio_ipc.testing import memory_streams


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, math.inf),
        ({"a/b/cpu.max": "max 100000\n"}, math.inf),
        ({"a/b/cpu.max": "100000 100000\n"}, 1),
        ({"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ({"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "100000 50000\n"}, 2),
        ({"a/b/cpu.max": "nonsense\n"}, math.inf),
        ({"a/b/cpu.max": "1 0\n"}, math.inf),
        ({"a/b/cpu.max": ""}, math.inf),
        ({"other/cpu.max": "50000 100000\n"}, math.inf),
    ],
)
def test_the_least_quota_on_the_way_up_counts(tmp_path: Path, limits: dict[str, str], cores: float) -> None:
    for name, text in limits.items():
        written(tmp_path / "cgroup" / name, text)
    written(tmp_path / "own", "0::/a/b\n")
    assert quota(str(tmp_path / "cgroup"), str(tmp_path / "own")) == cores


@pytest.mark.parametrize(("limit", "cores"), [("-1", math.inf), ("50000", 0.5), ("", math.inf)])
def test_the_first_version_of_cgroups_tells_it_too(tmp_path: Path, limit: str, cores: float) -> None:
    written(tmp_path / "cgroup/cpu/a/cpu.cfs_quota_us", f"{limit}\n")
    written(tmp_path / "cgroup/cpu/a/cpu.cfs_period_us", "100000\n")
    written(tmp_path / "own", "4:memory:/x\n3:cpu,cpuacct:/a\n")
    assert quota(str(tmp_path / "cgroup"), str(tmp_path / "own")) == cores


@pytest.mark.parametrize("own", ["", "nonsense\n", "0::/\n", "0::/../..\n", "0::/\udcff\n"])
def test_what_tells_nothing_limits_nothing(tmp_path: Path, own: str) -> None:
    (tmp_path / "own").write_bytes(own.encode("utf-8", "surrogateescape"))
    assert quota(str(tmp_path / "cgroup"), str(tmp_path / "own")) == math.inf
    assert quota(str(tmp_path / "cgroup"), str(tmp_path / "missing")) == math.inf


def test_there_is_a_core() -> None:
    assert usable_cores() > 0


_COUNT = """
import ctypes, os, sys
from trio_ipc.channel.cores import usable_cores
if sys.platform == "win32":
    this_process = ctypes.c_void_p(-1)
    assert ctypes.windll.kernel32.SetProcessAffinityMask(this_process, ctypes.c_size_t(1))
else:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(usable_cores() <= 1)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="this system has no affinity")
def test_affinity_counts() -> None:
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("cores", "is_enough"), [(0.5, False), (1, False), (1.5, False), (2, True), (8, True)]
)
def test_two_whole_cores_are_needed(monkeypatch: pytest.MonkeyPatch, cores: float, is_enough: bool) -> None:
    # Not by its dotted name: the package has a function of the module's name.
    monkeypatch.setattr(sys.modules["trio_ipc.channel.cores"], "usable_cores", lambda: cores)
    assert Cores().are_two(0.0) is is_enough


def test_a_quota_is_read_again_after_a_second() -> None:
    now, cores, reads = 100.0, math.inf, 0

    def read() -> float:
        nonlocal reads
        reads += 1
        return cores

    quota_now = Quota(read, lambda: now).now
    assert quota_now() == math.inf
    cores = 0.5
    now += 0.9
    assert quota_now() == math.inf
    now += 0.1
    assert (quota_now(), quota_now()) == (0.5, 0.5)
    cores = 4
    now += 1
    assert quota_now() == 4
    assert reads == 3


async def test_who_gives_no_attempts_never_spins() -> None:
    config = IpcConfig(endpoint_path=IN_MEMORY, poll_attempts=0)
    assert FramedChannel(memory_streams()[0], config, endpoint="memory", peer=None).poll_attempts == 0
