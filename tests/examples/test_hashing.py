from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import time
from pathlib import Path

import pytest

from examples.procmond import hashing
from examples.procmond.bounded import BoundedCache
from examples.procmond.hashing import FileHasher, HashError, canonical_algorithm, canonical_digest
from tests.platforms import fails_under_wine, unix_only

FIXED_LENGTH = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"some bytes" * 1000)
    return path


@pytest.mark.parametrize("algorithm", FIXED_LENGTH)
def test_every_algorithm_of_a_fixed_length_gives_hashlibs_digest(file: Path, algorithm: str) -> None:
    expected = hashlib.new(algorithm, file.read_bytes()).hexdigest()
    assert FileHasher().digest(str(file), canonical_algorithm(algorithm.upper())) == expected


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1])
def test_sizes_around_the_block_size_are_hashed_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "sized"
    path.write_bytes(os.urandom(size))
    assert FileHasher().digest(str(path), "sha256") == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_algorithm_whose_library_is_missing_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(HashError, match=r"'blake3' is not to be had here: .*; install blake3, or use sha256"):
        canonical_algorithm("blake3")


@pytest.mark.parametrize(
    ("algorithm", "of_abc"),
    [  # the test vectors of FIPS 202 (NIST's examples) and of BLAKE3's own
        ("sha3-256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        pytest.param(
            "blake3",
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
            marks=fails_under_wine("has not all the libraries that blake3 asks for", versions=[8]),
        ),
    ],
)
def test_what_the_reference_names_is_known(tmp_path: Path, algorithm: str, of_abc: str) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    assert canonical_algorithm(algorithm.upper()) == algorithm
    assert canonical_digest(of_abc.upper(), algorithm) == of_abc
    assert FileHasher().digest(str(file), algorithm) == of_abc


def test_an_empty_algorithm_name_means_sha256() -> None:
    assert canonical_algorithm("") == "sha256"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("blake4", "unknown hash algorithm 'blake4'; known are blake2b, "),
        ("a\0b", "unknown hash algorithm"),
        ("\udcff", "unknown hash algorithm"),
        ("x" * 10_000, f"unknown hash algorithm '{'x' * 40}'"),
        ("shake_128", "no digest length of its own"),
        ("SHAKE_256", "no digest length of its own"),
    ],
)
def test_an_unusable_algorithm_is_refused_with_what_is_allowed(name: str, reason: str) -> None:
    with pytest.raises(HashError, match=reason):
        canonical_algorithm(name)


def test_an_expected_digest_is_compared_without_regard_to_case_or_white_space() -> None:
    assert canonical_digest(f" {'AB' * 32}\n", "sha256") == "ab" * 32


@pytest.mark.parametrize("text", ["ab", "zz" * 32, "ab" * 64])
def test_an_expected_digest_that_no_file_can_have_is_refused(text: str) -> None:
    with pytest.raises(HashError, match="is no sha256 digest: 64 hexadecimal digits"):
        canonical_digest(text, "sha256")


def later() -> int:
    """A time at which the files of a test have not been changed for long."""
    return time.time_ns() + 60 * 10**9


@unix_only  # Windows does not tell whether a file is unchanged
def test_an_unchanged_file_is_read_once(file: Path) -> None:
    hasher = FileHasher(clock=later)
    assert hasher.digest(str(file), "sha256") == hasher.digest(str(file), "sha256")
    assert hasher.files_read == 1


def test_each_algorithm_has_its_own_place_in_the_cache(file: Path) -> None:
    hasher = FileHasher()
    assert hasher.digest(str(file), "sha256") != hasher.digest(str(file), "sha512")
    assert hasher.files_read == 2


def test_a_file_rewritten_with_its_old_size_and_time_is_read_again(file: Path) -> None:
    hasher = FileHasher()
    before = file.stat()
    first = hasher.digest(str(file), "sha256")
    file.write_bytes(b"evil bytes" * 1000)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert hasher.digest(str(file), "sha256") != first


@unix_only  # Windows tells no time of a change
def test_nor_is_the_old_digest_given_of_one_that_was_not_changed_for_long(file: Path) -> None:
    hasher = FileHasher(clock=later)
    before = file.stat()
    first = hasher.digest(str(file), "sha256")
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the system's clock may go in steps
        file.write_bytes(b"evil bytes" * 1000)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hasher.digest(str(file), "sha256") != first


@unix_only
def test_a_change_within_one_step_of_the_systems_clock_is_noticed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel before Linux 6.13 gives both changes of a file the same time."""
    status = file.stat()
    monkeypatch.setattr(hashing, "_version", lambda _: (status.st_size, status.st_ctime_ns))
    now = status.st_ctime_ns
    hasher = FileHasher(clock=lambda: now)
    first = hasher.digest(str(file), "sha256")
    file.write_bytes(b"evil bytes" * 1000)
    assert hasher.digest(str(file), "sha256") != first
    assert hasher.files_read == 2


def test_a_file_that_changes_while_it_is_hashed_is_refused_and_not_remembered(file: Path) -> None:
    def rewrite() -> None:
        file.write_bytes(b"fewer")

    hasher = FileHasher()
    with pytest.raises(HashError, match="changed while it was being hashed; ask again"):
        hasher.digest(str(file), "sha256", checkpoint=rewrite)
    assert hasher.digest(str(file), "sha256") == hashlib.sha256(b"fewer").hexdigest()
    assert hasher.files_read == 1


def test_a_file_that_keeps_growing_does_not_keep_the_hasher(file: Path) -> None:
    def grow() -> None:
        with file.open("ab") as more:
            more.write(b"x" * 4096)

    with pytest.raises(HashError, match="changed while it was being hashed"):
        FileHasher().digest(str(file), "sha256", checkpoint=grow)


@unix_only
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    assert sys.platform != "win32"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(HashError, match=f"{fifo}: not a regular file"):
        FileHasher().digest(str(fifo), "sha256")


@unix_only
def test_a_fifo_that_takes_a_files_place_at_the_last_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"x")
    checks: list[str] = []

    def swap_after_first_check(name: str, status: os.stat_result) -> None:
        original(name, status)
        assert sys.platform != "win32"
        if not checks:
            path.unlink()
            os.mkfifo(path)
        checks.append(name)

    original = hashing._require_regular
    monkeypatch.setattr(hashing, "_require_regular", swap_after_first_check)
    with pytest.raises(HashError, match="not a regular file"):
        FileHasher().digest(str(path), "sha256")


@unix_only
def test_a_socket_a_directory_and_a_device_are_refused(short_dir: Path) -> None:
    assert sys.platform != "win32"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "socket"))
        for path in (short_dir / "socket", short_dir, Path("/dev/zero")):
            with pytest.raises(HashError, match="not a regular file"):
                FileHasher().digest(str(path), "sha256")


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(HashError, match=re.escape(f"{tmp_path / 'missing'}: ")):
        FileHasher().digest(str(tmp_path / "missing"), "sha256")


def test_a_path_with_a_nul_byte_is_an_error_like_others() -> None:
    with pytest.raises(HashError, match="null"):
        FileHasher().digest("/bin/a\0b", "sha256")


def test_a_checkpoint_that_raises_ends_the_work(file: Path) -> None:
    class StopHere(BaseException):
        pass

    def stop() -> None:
        raise StopHere

    with pytest.raises(StopHere):
        FileHasher().digest(str(file), "sha256", checkpoint=stop)


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert len(cache) == 2


@unix_only
def test_the_hashers_memory_is_bounded(tmp_path: Path) -> None:
    hasher = FileHasher(max_entries=2, clock=later)
    for number in range(5):
        path = tmp_path / str(number)
        path.write_bytes(b"x")
        hasher.digest(str(path), "sha256")
    assert len(hasher._digests) == 2
