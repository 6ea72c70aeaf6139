"""What a call is told in the end, where it has no response: one error that says what happened and where.

Wording only. This module must never decide whether a call has failed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import trio

from trio_ipc.contract import OTHER_VARIANT
from trio_ipc.errors import (
    AttemptsFailedError,
    CallTimeoutError,
    ChecksumMismatchError,
    CircuitOpenError,
    IpcError,
    NoEndpointError,
    PoolTimeoutError,
    ResponseMismatchError,
    ends_the_program,
    leaves,
    plural,
)

from .calls import PendingCall, Step
from .endpoints import Upstream

#: Servers, or steps, that one error tells of: hundreds would hide what happened. Its ``attempts`` are all.
_MOST_TOLD: Final = 8

#: Steps that took less than this of a call's time, in seconds, are not worth to be told of.
_WORTH_TELLING: Final = 0.001


def is_failure(exc: BaseException) -> bool:
    """Return whether users' code has failed, by an :exc:`Exception` or by what is none, as a panic in Rust.

    Else its task is cancelled, or the program ends.
    """
    others = (trio.Cancelled, GeneratorExit)
    return ends_the_program(exc) is None and not any(isinstance(leaf, others) for leaf in leaves(exc))


def failure(errors: list[IpcError]) -> IpcError:
    """Return the error of a call that has no server left to ask.

    Args:
        errors: what its attempts ended by. A single one is the call's error as it is.
    """
    if not errors:
        return NoEndpointError(
            "this client has no endpoint to ask", hint="add an endpoint, or open the client with one"
        )
    if len(errors) == 1:
        return errors[0]
    if all(isinstance(error, CircuitOpenError) for error in errors):
        return _all_open([error for error in errors if isinstance(error, CircuitOpenError)])
    if all(isinstance(error, PoolTimeoutError) for error in errors):
        in_use = PoolTimeoutError(
            f"no connection became free to any of {len(errors)} endpoints: {_told(errors)}",
            hint=errors[0].hint,
        )
        in_use.attempts = tuple(errors)
        return in_use
    error = AttemptsFailedError(
        f"no server answered, {len(errors)} attempts failed{_told_why(errors)}",
        hint="see whether they run, and what they log",
    )
    error.attempts = tuple(errors)
    error.__cause__ = ExceptionGroup("the attempts of one call", errors)
    error.endpoint = _where(errors)
    return error


def _of_variants(errors: list[IpcError]) -> IpcError | None:
    """Return the error that points to different checksum variants, the clearest one; None if none does.

    It is nearly always the cause, and all other attempts say only that a connection was closed.
    """
    for error in errors:
        if isinstance(error, ChecksumMismatchError) and error.peer_variant is not None:
            return error
    for error in errors:
        if isinstance(error, ResponseMismatchError) and OTHER_VARIANT in error.message:
            return error
    return next((error for error in errors if "crc32_variant" in error.hint), None)


def _all_open(errors: list[CircuitOpenError]) -> CircuitOpenError:
    error = CircuitOpenError(
        f"the circuit breakers of all {len(errors)} endpoints are open: {_told(errors)}",
        hint=errors[0].hint,
    )
    error.retry_after = min(one.retry_after for one in errors)
    error.attempts = tuple(errors)
    return error


def timed_out(call: PendingCall) -> CallTimeoutError:
    """Return the error of a call whose deadline passed."""
    spent = _time_spent(call)
    told = _joined([f"{seconds * 1000:.0f} ms {step.told(who)}" for (step, who), seconds in spent], ", ")
    (longest, whose), _ = spent[0]
    _, latest, last = call.steps[-1]
    failed = len(call.errors)
    error = CallTimeoutError(
        f"no response within the call's timeout of {(call.deadline - call.began) * 1000:.0f} ms; it was "
        + latest.told(last)
        + (f"; it had spent {told}" if len(spent) > 1 else "")
        + (f"; {failed} {plural(failed, 'attempt')} had failed{_told_why(call.errors)}" if failed else ""),
        endpoint=_where(call.errors) if whose is None else whose.path,
        hint=longest.hint,
    )
    error.attempts = tuple(call.errors)
    if call.errors:
        error.__cause__ = ExceptionGroup("the attempts of one call", call.errors)
    return error


def _time_spent(call: PendingCall) -> list[tuple[tuple[Step, Upstream | None], float]]:
    """Return what took how many seconds, the longest first; at least the step that it is at."""
    ends = [began for began, _, _ in call.steps[1:]] + [trio.current_time()]
    spent: dict[tuple[Step, Upstream | None], float] = {}
    for (began, step, upstream), ended in zip(call.steps, ends, strict=True):
        spent[step, upstream] = spent.get((step, upstream), 0.0) + ended - began
    longest_first = sorted(spent.items(), key=lambda one: -one[1])
    worth = [one for one in longest_first if one[1] >= _WORTH_TELLING]
    return worth or [(call.steps[-1][1:], 0.0)]


def _where(errors: list[IpcError]) -> str | None:
    """Return the endpoint of all errors, None if there are several."""
    where = {error.endpoint for error in errors}
    return where.pop() if len(where) == 1 else None


def _told_why(errors: list[IpcError]) -> str:
    """Return what is said of failed attempts: why they most likely failed, if that is known, and each one."""
    likeliest = _of_variants(errors)
    hint = "" if likeliest is None else f"; {likeliest.hint}"
    return f"{hint}: {_told(sorted(errors, key=lambda one: one is not likeliest))}"


def _told(errors: list[Any]) -> str:
    counted = Counter(f"{error.endpoint}: {error.message}" for error in errors)
    texts = [f"{text} ({times} times)" if times > 1 else text for text, times in counted.items()]
    return _joined(texts, "; ")


def _joined(texts: list[str], separator: str) -> str:
    more = [f"and {len(texts) - _MOST_TOLD} more"] if len(texts) > _MOST_TOLD else []
    return separator.join(texts[:_MOST_TOLD] + more)


def not_healthy(seconds: float, errors: list[IpcError]) -> CallTimeoutError:
    """Return the error of a wait in which no server was well.

    Args:
        seconds: how long it was.
        errors: by what each server was not, when it was checked last.
    """
    error = CallTimeoutError(
        f"no endpoint was healthy within the timeout of {seconds * 1000:.0f} ms"
        + (_told_why(errors) if errors else ""),
        endpoint=_where(errors),
        hint="see whether the servers run, and what they log",
    )
    error.attempts = tuple(errors)
    if errors:
        error.__cause__ = ExceptionGroup("the last check of each endpoint", errors)
    return error
