from __future__ import annotations

import attrs
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from trio_ipc import Contract, UndecodableMessageError

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
