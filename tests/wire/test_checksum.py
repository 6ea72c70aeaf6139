from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ipc import Crc32Variant
from trio_ipc.wire import checksum_for


@pytest.mark.parametrize(
    ("variant", "check"), [(Crc32Variant.IEEE, 0xCBF43926), (Crc32Variant.CASTAGNOLI, 0xE3069283)]
)
def test_the_check_value_is_the_polynomials(variant: Crc32Variant, check: int) -> None:
    assert checksum_for(variant)(b"123456789") == check


@given(st.binary())
def test_ieee_is_zlibs_crc32(data: bytes) -> None:
    assert checksum_for(Crc32Variant.IEEE)(data) == zlib.crc32(data)


@given(st.binary(), st.binary(), st.sampled_from(Crc32Variant))
def test_a_checksum_goes_on_from_what_came_before(first: bytes, second: bytes, variant: Crc32Variant) -> None:
    checksum = checksum_for(variant)
    assert checksum(second, checksum(first)) == checksum(first + second)
