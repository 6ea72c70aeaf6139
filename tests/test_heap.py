"""The memory of large payloads is kept by one block that is taken and given back, as seldom as possible."""

from __future__ import annotations

import sys

from trio_ipc.heap import LARGE, Heap


def test_a_block_of_four_times_the_size_is_enough_for_payloads_of_twice_the_size() -> None:
    blocks: list[int] = []
    heap = Heap(blocks.append)
    for size in (LARGE, LARGE + 1, LARGE + 1, 2 * (LARGE + 1), 2 * (LARGE + 1) + 1, LARGE):
        heap.keep(size)
    assert blocks == [4 * (LARGE + 1), 8 * (LARGE + 1) + 4]


def test_no_block_is_larger_than_what_glibc_learns_from_and_after_that_one_there_is_no_more() -> None:
    blocks: list[int] = []
    heap = Heap(blocks.append)
    for size in (16 << 20, 64 << 20, sys.maxsize):
        heap.keep(size)
    assert blocks == [33_488_896]


def test_where_there_is_no_memory_to_be_kept_nothing_is_raised() -> None:
    def allocate(_size: int) -> None:
        raise MemoryError

    Heap(allocate).keep(LARGE + 1)
