from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from trio_ipc import (
    Contract,
    ContractError,
    IpcError,
    Negotiation,
    ResponseMismatchError,
    UndecodableMessageError,
)

LENGTH = Contract(name="length", request_type=StringValue, response_type=Int64Value)


def test_any_pair_of_protobuf_messages_is_a_contract() -> None:
    assert LENGTH.decode_request(StringValue(value="x").SerializeToString()) == StringValue(value="x")
    assert LENGTH.decode_response(bytearray(b"\x08\x05")) == Int64Value(value=5)


def test_what_does_not_decode_is_named_by_type_and_size() -> None:
    with pytest.raises(UndecodableMessageError, match="3 bytes does not decode as google.protobuf.StringV"):
        LENGTH.decode_request(b"\xff\xff\xff")
    with pytest.raises(UndecodableMessageError, match="Int64Value"):
        LENGTH.decode_response(b"\xff")


def test_a_request_may_be_repeated_only_where_the_contract_says_so() -> None:
    assert not LENGTH.may_repeat(StringValue())
    assert attrs.evolve(LENGTH, repeatable=True).may_repeat(StringValue())
    some = attrs.evolve(LENGTH, repeatable=lambda request: request.value.startswith("read "))
    assert some.may_repeat(StringValue(value="read a"))
    assert not some.may_repeat(StringValue(value="write a"))


def test_without_a_rule_every_response_answers_every_request() -> None:
    assert LENGTH.mismatch(StringValue(), Int64Value()) is None


# --- What a contract's functions return, and what they may be ---


async def later(*_: object) -> Any:
    raise AssertionError("nobody awaits it")


class Later:
    async def __call__(self, *_: object) -> Any:
        raise AssertionError("nobody awaits it")


def returning(value: object) -> Any:
    return lambda *_: value


def coroutine() -> Any:
    """A coroutine of a function that does not look like one."""
    return later()


NEGOTIATION = Negotiation[StringValue, Int64Value](
    ask=StringValue, learn=lambda response: response.value, can_do=lambda least, request: least > 0
)
NEGOTIATING = attrs.evolve(LENGTH, negotiation=NEGOTIATION)


@pytest.mark.parametrize("value", [True, False, 0, 1, b"no", ("no",), StringValue()], ids=repr)
def test_a_mismatch_that_is_neither_a_text_nor_none_is_the_contracts_own_error(value: object) -> None:
    contract = attrs.evolve(LENGTH, mismatch=returning(value))
    says = f"mismatch of the contract length returned {type(value).__name__}, must be a str that says why, or"
    with pytest.raises(ContractError, match=says) as caught:
        contract.decode_answer(StringValue(), Int64Value(value=1).SerializeToString())
    assert isinstance(caught.value, IpcError)
    assert isinstance(caught.value, TypeError)


def test_a_mismatch_may_be_a_text_or_none() -> None:
    payload = Int64Value(value=1).SerializeToString()
    right = attrs.evolve(LENGTH, mismatch=returning(None))
    assert right.decode_answer(StringValue(), payload) == Int64Value(value=1)
    with pytest.raises(ResponseMismatchError, match="another one"):
        attrs.evolve(LENGTH, mismatch=returning("another one")).decode_answer(StringValue(), payload)


@pytest.mark.parametrize("value", [None, 0, 1, "yes", []], ids=repr)
def test_whether_a_request_may_be_repeated_is_a_bool(value: object) -> None:
    contract = attrs.evolve(LENGTH, repeatable=returning(value))
    says = f"repeatable of the contract length returned {type(value).__name__}, must be a bool"
    with pytest.raises(ContractError, match=says):
        contract.may_repeat(StringValue())


@pytest.mark.parametrize("value", [None, False, "no", StringValue()], ids=repr)
def test_a_failed_response_is_of_the_response_type(value: object) -> None:
    contract = attrs.evolve(LENGTH, failure=returning(value))
    says = f"failure of the contract length returned {type(value).__name__}, must be Int64Value"
    with pytest.raises(ContractError, match=says):
        contract.failed_response(None, "why")
    assert LENGTH.failed_response(None, "why") is None
    good = attrs.evolve(LENGTH, failure=lambda _request, reason: Int64Value(value=len(reason)))
    assert good.failed_response(None, "why") == Int64Value(value=3)


def test_what_a_negotiations_functions_return_is_checked() -> None:
    assert NEGOTIATING.capabilities_request() == StringValue()
    assert NEGOTIATING.capabilities_in(Int64Value(value=5)) == 5
    assert NEGOTIATING.can_do(5, StringValue()) is True

    def with_one(**function: Any) -> Contract[StringValue, Int64Value]:
        return attrs.evolve(LENGTH, negotiation=attrs.evolve(NEGOTIATION, **function))

    with pytest.raises(
        ContractError, match="ask of the contract length returned Int64Value, must be StringV"
    ):
        with_one(ask=Int64Value).capabilities_request()
    with pytest.raises(ContractError, match="ask of the contract length returned NoneType, must be StringV"):
        with_one(ask=returning(None)).capabilities_request()
    with pytest.raises(ContractError, match="can_do of the contract length returned int, must be a bool"):
        with_one(can_do=returning(1)).can_do(5, StringValue())
    with pytest.raises(
        ContractError, match="learn of the contract length returned coroutine, must be the cap"
    ):
        with_one(learn=lambda _: coroutine()).capabilities_in(Int64Value())
    with pytest.raises(ContractError, match="probe of the contract length returned int, must be StringValue"):
        with_one(probe=returning(1)).probe_request()
    assert with_one(probe=StringValue).probe_request() == StringValue()
    assert (NEGOTIATING.has_probe, with_one(probe=StringValue).has_probe, LENGTH.has_probe) == (
        False,
        True,
        False,
    )
    with pytest.raises(TypeError, match="the negotiation of the contract length has no probe"):
        NEGOTIATING.probe_request()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("function", ["mismatch", "repeatable", "failure", "ask", "learn", "can_do", "probe"])
def test_a_coroutine_is_none_of_it_and_is_not_left_unawaited(function: str) -> None:
    made: Any = lambda *_: coroutine()  # noqa: E731
    if function in {"ask", "learn", "can_do", "probe"}:
        contract = attrs.evolve(LENGTH, negotiation=attrs.evolve(NEGOTIATION, **{function: made}))
    else:
        contract = attrs.evolve(LENGTH, **{function: made})
    uses: dict[str, Callable[[], object]] = {
        "mismatch": lambda: contract.decode_answer(StringValue(), b"\x08\x05"),
        "repeatable": lambda: contract.may_repeat(StringValue()),
        "failure": lambda: contract.failed_response(None, "why"),
        "ask": contract.capabilities_request,
        "learn": lambda: contract.capabilities_in(Int64Value()),
        "can_do": lambda: contract.can_do(5, StringValue()),
        "probe": contract.probe_request,
    }
    with pytest.raises(ContractError, match=f"{function} of the contract length returned coroutine"):
        uses[function]()
    gc.collect()


@pytest.mark.parametrize("function", ["mismatch", "repeatable", "failure"])
@pytest.mark.parametrize(
    "wrong", [later, Later(), functools.partial(later, 1)], ids=["def", "object", "partial"]
)
def test_an_async_function_is_refused_when_the_contract_is_made(function: str, wrong: Any) -> None:
    says = f"{function} of the contract length is .*, which is async: it must be an ordinary function"
    with pytest.raises(TypeError, match=says):
        attrs.evolve(LENGTH, **{function: wrong})


@pytest.mark.parametrize("function", ["ask", "learn", "can_do"])
def test_an_async_function_is_refused_when_the_negotiation_is_made(function: str) -> None:
    wrong: dict[str, Any] = {function: later}
    with pytest.raises(TypeError, match=f"{function} of a Negotiation is .*, which is async"):
        attrs.evolve(NEGOTIATION, **wrong)
    none: dict[str, Any] = {function: None}
    with pytest.raises(TypeError, match=f"{function} of a Negotiation is None, which cannot be called"):
        attrs.evolve(NEGOTIATION, **none)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": b"length"}, "name"),
        (
            {"request_type": StringValue()},
            "request_type of the contract length is .*must be a class of proto",
        ),
        (
            {"response_type": str},
            "response_type of the contract length is .*must be a class of pro",
        ),
        ({"mismatch": None}, "mismatch of the contract length is None, which cannot be called"),
        (
            {"mismatch": "no"},
            "mismatch of .* is 'no', which cannot be called: it must be an ordinary function$",
        ),
        ({"failure": Int64Value()}, "failure of .*, which cannot be called: it must be None or an ordinary"),
        ({"repeatable": None}, "repeatable of the contract length is None, which cannot be called"),
        (
            {"repeatable": 1},
            "repeatable of .* is 1, which cannot be called: it must be a bool or an ordinary",
        ),
        ({"negotiation": StringValue}, "negotiation"),
    ],
    ids=str,
)
def test_a_field_of_the_wrong_type_is_refused_when_the_contract_is_made(wrong: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        attrs.evolve(LENGTH, **wrong)


def test_without_a_negotiation_there_is_nothing_to_ask() -> None:
    with pytest.raises(TypeError, match="the contract length has no negotiation"):
        LENGTH.capabilities_request()


def test_an_async_probe_is_refused_and_none_is_no_probe() -> None:
    wrong: Any = later
    with pytest.raises(TypeError, match=r"probe of a Negotiation is .*, which is async"):
        attrs.evolve(NEGOTIATION, probe=wrong)
    assert attrs.evolve(NEGOTIATION, probe=None) == NEGOTIATION
