from __future__ import annotations

import pickle

import pytest

import trio_ipc
from trio_ipc import IpcError
from trio_ipc.errors import plural

FAMILY = [kind for kind in vars(trio_ipc).values() if isinstance(kind, type) and issubclass(kind, IpcError)]


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = IpcError("it broke", endpoint="/run/x.sock", hint="mend it")
    assert str(error) == "/run/x.sock: it broke; mend it"
    assert str(IpcError("it broke")) == "it broke"


@pytest.mark.parametrize(("number", "said"), [(0, "0 calls"), (1, "1 call"), (2, "2 calls")])
def test_one_of_a_kind_is_no_plural(number: int, said: str) -> None:
    assert f"{number} {plural(number, 'call')}" == said


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_is_public_and_survives_pickling(kind: type[IpcError]) -> None:
    assert kind.__name__ in trio_ipc.__all__
    error = kind("it broke", endpoint="/run/x.sock", hint="mend it")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), str(copy)) == (kind, str(error))
