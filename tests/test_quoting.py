from __future__ import annotations

import unicodedata
from ast import literal_eval

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import UNPRINTABLE
from trio_ipc.errors import escape, quote

#: The bidirectional controls (Unicode Standard Annex #9, table 4): they turn the order of what is shown.
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

#: Invisible, or the end of a line to some readers.
INVISIBLE = "\u200b\u2060\ufeff\u00ad\U000e0041\u0085\u2028\u2029\x7f\x9b\r\n\t"


@pytest.mark.parametrize("char", BIDIRECTIONAL + INVISIBLE, ids=lambda char: f"U+{ord(char):04X}")
def test_what_cannot_be_seen_is_shown_by_its_number(char: str) -> None:
    for shown in (escape(f"a{char}b", 10), quote(f"a{char}b", 10)):
        assert char not in shown
        assert literal_eval(f'"{shown.strip(chr(39))}"') == f"a{char}b"


@given(text=st.text(), longest=st.integers(1, 20))
def test_nothing_that_moves_or_hides_is_ever_left(text: str, longest: int) -> None:
    for shown in (escape(text, longest), quote(text, longest)):
        assert not [char for char in shown if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
        assert len(shown) <= 10 * longest + 6


def test_what_people_write_stays_readable() -> None:
    assert escape("Größe 日本語 'a' \\ 🦉", 100) == "Größe 日本語 'a' \\ 🦉"
    assert escape(UNPRINTABLE, 100) == "\\x1b[31m\\u202eé\\n"


def test_more_than_the_longest_is_cut_and_that_is_shown() -> None:
    assert (escape("abcdef", 3), quote("abcdef", 3)) == ("abc ...", "'abc...'")
    assert (escape("abc", 3), quote("abc", 3)) == ("abc", "'abc'")
