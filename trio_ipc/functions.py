"""Functions that users hand over: whether one has to be awaited, and what one has returned by mistake.

This module must never call one.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any


def is_async(function: Any) -> bool:
    """Return whether this is an async function, or a partial, method, wrapper or object that is one."""
    while isinstance(function, functools.partial):
        function = function.func
    wrapped, called = getattr(function, "__wrapped__", None), getattr(type(function), "__call__", None)  # noqa: B004
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)  # by these alone AsyncMock says so
    says_so = isinstance(flags, int) and bool(flags & inspect.CO_COROUTINE)
    return says_so or any(map(inspect.iscoroutinefunction, (function, wrapped, called)))


def is_ordinary(function: Any) -> bool:
    """Return whether this is a function, or an object like one, that need not be awaited."""
    return callable(function) and not is_async(function)


def dismiss(returned: object) -> None:
    """Close a coroutine that a function returned by mistake: Python would say that it was never awaited."""
    if inspect.iscoroutine(returned):
        returned.close()
