"""Counters as one line for people. This module must never know who counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def counters_line(counters: Mapping[str, object]) -> str:
    """Write counters as ``name=value``: the active transport first, and of the others what is not zero.

    Of counters by their kind each is ``name.kind=value``. What is true or false, such as ``endpoint_intact``,
    is told where it is false. What is no number is left out.

    Args:
        counters: by their names, such as ``server.snapshot().as_dict()``. ``transport`` has to be among them.
    """
    return " ".join([f"transport={counters['transport']}", *_told(counters)])


def _told(counters: Mapping[str, object]) -> Iterator[str]:
    for name, value in counters.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{told}" for told in _told(value))
        elif isinstance(value, bool):
            if not value:
                yield f"{name}=False"
        elif isinstance(value, (int, float)) and (shown := round(value, 3)):
            yield f"{name}={shown}"
