"""Counters as one line for people. This module must never know who counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def counters_line(counters: Mapping[str, object]) -> str:
    """Write counters as ``name=value``: the active transport first, and of the others what is not zero.

    Of counters by their kind each is ``name.kind=value``. What is no number is left out.

    Args:
        counters: by their names, such as ``server.snapshot().as_dict()``. ``transport`` has to be among them.
    """
    numbers = (f"{name}={value}" for name, value in _numbers(counters) if value)
    return " ".join([f"transport={counters['transport']}", *numbers])


def _numbers(counters: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in counters.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{kind}", count) for kind, count in _numbers(value))
        elif isinstance(value, float):
            yield name, round(value, 3)
        elif isinstance(value, int):
            yield name, value
