"""A peer's own words, as an error or a log may show them.

Whoever reads them may do so at a terminal: they must not colour it, move its cursor, begin a line of their
own, or turn the order of what stands around them (Unicode's bidirectional controls). This module must never
let a character through that :meth:`str.isprintable` does not call printable.
"""

from __future__ import annotations


def escaped(text: str, longest: int) -> str:
    r"""Return a text on one line, cut, with what is not printable as ``\n``, ``\x1b`` or ``\u202e``.

    Quotes and backslashes stay as they are.

    Args:
        text: what a peer sent.
        longest: characters of it to keep. Each that is escaped takes up to ten.
    """
    kept = text if len(text) <= longest else f"{text[:longest]} ..."
    if kept.isprintable():
        return kept
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in kept)


def quoted(text: str, longest: int) -> str:
    """Return a text like :func:`escaped`, as Python would write it: in quotes, which no text can leave."""
    return repr(text if len(text) <= longest else f"{text[:longest]}...")
