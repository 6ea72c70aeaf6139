"""What a block comes to when it fails, and something beside it as well: a handler, a behaviour, a server.

The first failure is raised in the test; later ones are notes of it. This module must
never hide a failure, and never tell that of a clean-up in place of the one that came first.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import trio

from trio_ipc.errors import leaves

#: What is no failure of a test, but the end of its program.
_ENDS_ALL: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Outcome:
    """What has failed in and beside one block, in its order."""

    def __init__(self) -> None:
        self._failures: list[BaseException] = []

    def failed(self, failure: BaseException) -> None:
        """Say that something has failed."""
        if not any(known is failure for known in self._failures):
            self._failures.append(failure)

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Have seen what comes out of a block, and when. It goes on its way."""
        try:
            yield
        except BaseException as exc:
            if any(map(is_failure, leaves(exc))):
                self.failed(exc)
            raise

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raise what failed first, for a nursery around it all, which is not the test's own.

        An exception that is alone in its group comes out by itself.
        """
        afterwards: list[BaseException] = []
        try:
            yield
        except BaseExceptionGroup as group:
            fatal, _ = group.split(_ENDS_ALL)
            if fatal is not None or not self._failures:
                _raise_as_it_is(group.exceptions[0] if len(group.exceptions) == 1 else group)
            afterwards = [leaf for leaf in leaves(group) if is_failure(leaf)]
        if self._failures:
            first, *others = self._failures
            for other in [*others, *afterwards]:
                _note(first, other)
            _raise_as_it_is(first)


def is_failure(exc: BaseException) -> bool:
    """Whether it says that something failed. pytest.fail() and pytest.skip() raise what is no Exception."""
    return not isinstance(exc, (*_ENDS_ALL, trio.Cancelled))


def is_the_tests(exc: BaseException) -> bool:
    """Whether a handler says by it how the test has come out: by an assertion, or by what pytest.fail() and
    pytest.skip() raise, which is no Exception.
    """
    return isinstance(exc, AssertionError) or (is_failure(exc) and not isinstance(exc, Exception))


def _note(first: BaseException, other: BaseException) -> None:
    own = leaves(first)
    if any(leaf is mine for leaf in leaves(other) for mine in own):
        return
    note = "afterwards failed: " + "".join(traceback.format_exception_only(other)).strip()
    if note not in getattr(first, "__notes__", ()):
        first.add_note(note)


def _raise_as_it_is(exc: BaseException) -> NoReturn:
    """Raise an exception again, with the cause and the context that it had."""
    cause, context, suppressed = exc.__cause__, exc.__context__, exc.__suppress_context__
    try:
        raise exc
    finally:
        exc.__cause__, exc.__context__, exc.__suppress_context__ = cause, context, suppressed
