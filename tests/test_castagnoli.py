"""CRC-32C by each of its libraries, and without any."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import STRICT_PYTHON, forget_libraries
from trio_ipc import Crc32Variant, castagnoli
from trio_ipc.castagnoli import Crc32c, crc32c
from trio_ipc.legacy.frames import checksum_of
from trio_ipc.wire import checksum_for

#: RFC 3720, B.4, and the check value of catalogues of CRCs.
KNOWN = {
    b"": 0,
    b"123456789": 0xE3069283,
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
}

IN_PYTHON = castagnoli._in_python(castagnoli._table())


def by_every_library() -> Iterator[Crc32c]:
    for find in (castagnoli._by_fastcrc, castagnoli._by_google):
        found = find()
        if found is not None:
            yield found
    yield IN_PYTHON


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes libraries impossible to import, as where they are not installed."""

    def hide(*libraries: str) -> None:
        for library in libraries:
            monkeypatch.setitem(sys.modules, library, None)
        forget_libraries()

    yield hide
    monkeypatch.undo()
    forget_libraries()


@pytest.mark.parametrize("data", KNOWN, ids=range(len(KNOWN)))
def test_each_of_them_knows_the_known_values(data: bytes) -> None:
    for compute in by_every_library():
        assert compute(data) == KNOWN[data]


@given(st.binary(), st.binary())
def test_each_of_them_goes_on_from_what_came_before(first: bytes, second: bytes) -> None:
    whole = IN_PYTHON(first + second)
    for compute in by_every_library():
        assert compute(second, compute(first)) == compute(first + second, 0) == whole


def test_the_environment_of_development_has_a_library() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        forget_libraries()
        assert crc32c()(b"123456789") == 0xE3069283
    assert not warned


def test_googles_library_without_its_c_part_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, hide: Callable[..., None]
) -> None:
    google_crc32c = pytest.importorskip("google_crc32c")
    monkeypatch.setattr(google_crc32c, "implementation", "python")
    hide("fastcrc", "fastcrc.crc32")
    with pytest.warns(RuntimeWarning, match="CRC-32C is computed in Python"):
        compute = crc32c()
    assert compute(b"123456789") == 0xE3069283


def test_without_a_library_both_transports_warn_once_and_work(hide: Callable[..., None]) -> None:
    hide("google_crc32c", "fastcrc", "fastcrc.crc32")
    with pytest.warns(RuntimeWarning, match="about 0.2 s for each MiB.*Install one of them") as warned:
        computed = [find(Crc32Variant.CASTAGNOLI)(b"123456789", 0) for find in (checksum_for, checksum_of)]
    assert computed == [0xE3069283] * 2
    assert len(warned) == 1


def test_without_a_library_ieee_is_the_standard_librarys_and_nobody_is_warned(
    hide: Callable[..., None],
) -> None:
    hide("fastcrc", "fastcrc.crc32")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert checksum_for(Crc32Variant.IEEE)(b"123456789") == 0xCBF43926
    assert not warned


@pytest.mark.parametrize("transport", ["interprocess", "legacy"])
def test_who_speaks_ieee_loads_no_library_of_the_other_variant(transport: str) -> None:
    code = """
import sys
import trio
from trio_ipc import IpcConfig
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import open_pair

async def handle(task, call):
    return DetectionResult(task_id=task.task_id, success=True)

async def main():
    async with open_pair(handle, DETECTION, over=sys.argv[1]) as pair:
        assert (await pair.client.call(DetectionTask(task_id="1"))).success

for library in ("google_crc32c", "fastcrc"):
    sys.modules[library] = None
trio.run(main)
print(sys.modules["trio_ipc.castagnoli"].crc32c.cache_info().currsize, end="")
"""
    run = subprocess.run([*STRICT_PYTHON, "-c", code, transport], capture_output=True, text=True, check=True)
    assert run.stdout == "0"
