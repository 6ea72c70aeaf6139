"""Checks of what a test gives, so that what can't be is refused where it is written.

This module must never change a value: 1.0 is no count, and True is none either.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TypeVar

from trio_ipc.errors import shown, shown_argument
from trio_ipc.functions import dismiss, is_async

_T = TypeVar("_T")


def checked(name: str, value: object, kind: type[_T], wanted: str) -> _T:
    """Return a value that is of this class; ``wanted`` says what belongs there.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {shown_argument(value)}, must be {wanted}")
    return value


def checked_all(name: str, values: object, kind: type[_T], wanted: str) -> list[_T]:
    """Return a list of values that all are of this class; ``wanted`` says what belongs there.

    Raises:
        TypeError: one of them is something else, or there is no list.
    """
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} is {shown_argument(values)}, must be a list that has {wanted}")
    found = list(values)
    for value in found:
        if not isinstance(value, kind):
            raise TypeError(f"{name} has {shown_argument(value)}, must have {wanted}")
    return found


def returned_message(function: str, value: object, kind: type[_T]) -> _T:
    """Return the message that a function of the test has returned.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, kind):
        dismiss(value)
        raise TypeError(f"{function} returned {type(value).__name__}, must be {kind.__name__}")
    return value


def check_whole(
    name: str, value: object, least: int, most: float = math.inf, *, optional: bool = False
) -> None:
    """Raise if this is no int from ``least`` to ``most``, nor None where that may be.

    Raises:
        TypeError: it is no int.
        ValueError: it is out of range.
    """
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}, must be an int{' or None' if optional else ''}")
    if not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} is {shown(value)}, must be {limits}")


def check_bool(name: str, value: object) -> None:
    """Raise if this is neither True nor False: ``"no"`` would count as True.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}, must be a bool")


def check_seconds(name: str, value: object) -> None:
    """Raise if this is no number of seconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, or not finite.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}, must be a number of seconds")
    # An int may be larger than any float, and could not be added to a time.
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} is {shown(value)}, must be at least 0 and finite")


def check_callable(name: str, value: object, *, optional: bool = False, awaited: bool = False) -> None:
    """Raise if this can't be called, nor is None where that may be; or is async where nobody awaits it.

    Raises:
        TypeError: it is something else.
    """
    wanted = f"function{' or None' if optional else ''}"
    if not (callable(value) or (value is None and optional)):
        raise TypeError(f"{name} is {shown_argument(value)}, must be a {wanted}")
    if is_async(value) and not awaited:
        raise TypeError(f"{name} is {shown_argument(value)}, which is async: must be an ordinary {wanted}")
