"""Several operations in one contract, and what can be put around handlers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from google.protobuf.wrappers_pb2 import StringValue
from trio.testing import MockClock

from tests.platforms import unix_only
from trio_ipc import (
    Call,
    ConnectError,
    Contract,
    ContractError,
    Health,
    HealthCheck,
    PeerClosedError,
    PeerCredentials,
    PeerPolicy,
    ProtocolError,
    Router,
    answering_health,
    authorized,
    check_health,
    logged,
    serve,
    testing,
    timed,
)
from trio_ipc.daemoneye import DETECTION, Capabilities, CapabilityGate, DetectionResult, DetectionTask

CALL = Call(peer=PeerCredentials(pid=7, uid=1_000, gid=1_000), deadline=0.0, connection=3)


def failed(request: Value | None, reason: str) -> StringValue:
    return StringValue(value=f"failed: {reason}")


#: google.protobuf.Value has a oneof "kind" of six fields.
VALUES = Contract(name="values", request_type=Value, response_type=StringValue, failure=failed)
SILENT = Contract(name="values", request_type=Value, response_type=StringValue)


async def shout(request: Value, _: Call) -> StringValue:
    return StringValue(value=request.string_value.upper())


async def double(request: Value, _: Call) -> StringValue:
    return StringValue(value=str(2 * request.number_value))


async def other(_request: Value, _call: Call) -> StringValue:
    return StringValue(value="something else")


def router(**more: Any) -> Router[Value, StringValue]:
    return Router(VALUES, {"string_value": shout, "number_value": double}, **({"default": other} | more))


# --- Routing ------------------------------------------------------------------------------------------------


async def test_each_operation_has_its_handler_through_a_real_server() -> None:
    async with testing.open_pair(router(), VALUES) as pair:
        assert (await pair.client.call(Value(string_value="hello"))).value == "HELLO"
        assert (await pair.client.call(Value(number_value=2))).value == "4.0"
        assert (await pair.client.call(Value(bool_value=True))).value == "something else"


async def test_a_request_without_a_known_operation_is_answered_by_the_contracts_failure() -> None:
    handlers = {
        "string_value": shout,
        "number_value": double,
        "bool_value": other,
        "null_value": other,
        "list_value": other,
        "struct_value": other,
    }
    route = Router(VALUES, handlers)
    assert route.oneof == "kind"
    assert route.operations == tuple(field.name for field in Value.DESCRIPTOR.oneofs[0].fields)
    answer = await route(Value(), CALL)
    assert answer.value.startswith("failed: the request has no operation that this server knows: set one of ")
    assert "string_value" in answer.value
    with pytest.raises(ProtocolError, match="has no operation that this server knows"):
        await Router(SILENT, handlers)(Value(), CALL)


async def test_what_a_handler_raises_comes_out_of_the_router() -> None:
    async def broken(_request: Value, _call: Call) -> StringValue:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Router(VALUES, {"string_value": broken}, default=other)(Value(string_value="x"), CALL)


def test_what_does_not_fit_the_schema_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="handlers has strings, and the oneof kind of google.protobuf.Value"):
        Router(VALUES, {"strings": shout}, default=other)
    with pytest.raises(TypeError, match="handlers lacks null_value, bool_value, struct_value, list_value of"):
        router(default=None)
    with pytest.raises(TypeError, match="oneof is 'sort', and google.protobuf.Value has kind"):
        router(oneof="sort")
    with pytest.raises(TypeError, match="for string_value the handler is .*, which is not async"):
        Router(VALUES, {"string_value": lambda *_: None}, default=other)  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="handlers is .'string_value'., must be a mapping"):
        Router(VALUES, ["string_value"])  # type: ignore[arg-type]


async def answer_task(task: DetectionTask, _: Call) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True)


def test_optional_fields_are_no_operations() -> None:
    assert DetectionTask.DESCRIPTOR.oneofs, "proto3 has a oneof for each optional field"
    with pytest.raises(TypeError, match="oneof=: .*DetectionTask has none"):
        Router(DETECTION, {}, default=answer_task)


def with_two_oneofs() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="two.proto", package="two", syntax="proto3")
    message = file.message_type.add(name="Two")
    for number, name in enumerate(("first", "second")):
        message.oneof_decl.add(name=name)
        field = message.field.add(name=f"of_{name}", number=number + 1, oneof_index=number)
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName("two.Two"))
    return made


async def test_of_several_oneofs_one_is_named() -> None:
    kind = with_two_oneofs()
    contract: Contract[Any, Any] = Contract(name="two", request_type=kind, response_type=StringValue)
    with pytest.raises(TypeError, match="needs the name of a oneof, oneof=: two.Two has first, second"):
        Router(contract, {"of_second": other})
    route = Router(contract, {"of_second": other}, oneof="second")
    assert (await route(kind(of_second="x"), CALL)).value == "something else"


# --- Around a handler ---------------------------------------------------------------------------------------


async def test_timing_tells_the_seconds_of_every_request_that_failed_too(autojump_clock: MockClock) -> None:
    async def slow(request: Value, _: Call) -> StringValue:
        await trio.sleep(request.number_value)
        if request.number_value > 2:
            raise ValueError
        return StringValue()

    seen: list[float] = []
    handler = timed(slow, seen.append)
    await handler(Value(number_value=2), CALL)
    with pytest.raises(ValueError, match="^$"):
        await handler(Value(number_value=3), CALL)
    with trio.move_on_after(1):
        await handler(Value(number_value=9), CALL)
    assert seen == pytest.approx([2, 3, 1])


@unix_only  # users have other names elsewhere
async def test_only_the_allowed_are_answered_and_the_others_get_the_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    root_only = authorized(shout, VALUES, PeerPolicy.users([0]))
    request = Value(string_value="x")
    root = Call(peer=PeerCredentials(pid=1, uid=0, gid=0), deadline=0.0, connection=1)
    assert (await root_only(request, root)).value == "X"
    refused = (await root_only(request, CALL)).value
    assert refused == "failed: not allowed: process 7, uid 1000, gid 1000 may not ask this"
    [line] = caplog.records
    assert (line.levelno, line.__dict__["connection"]) == (logging.WARNING, 3)
    with pytest.raises(ConnectError, match="not allowed: process 7"):
        await authorized(shout, SILENT, PeerPolicy.users([0]))(request, CALL)


async def test_a_function_may_decide_by_the_request_and_only_true_allows() -> None:
    def small(request: Value, _: Call) -> bool:
        return request.number_value < 10

    handler = authorized(double, VALUES, small)
    assert (await handler(Value(number_value=2), CALL)).value == "4.0"
    assert (await handler(Value(number_value=20), CALL)).value.startswith("failed: not allowed")
    truthy = authorized(double, VALUES, lambda *_: "yes")  # type: ignore[arg-type]
    assert (await truthy(Value(number_value=2), CALL)).value.startswith("failed: not allowed")


async def test_logging_says_who_asked_and_how_it_ended_and_nothing_of_what_was_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_request: Value, _call: Call) -> StringValue:
        raise ValueError("secret")

    caplog.set_level(logging.INFO, "trio_ipc.server")
    await logged(shout, "shout")(Value(string_value="secret"), CALL)
    with pytest.raises(ValueError, match="secret"):
        await logged(broken)(Value(), CALL)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("shout of connection 3, process 7, uid 1000, gid 1000: answered after 0.")
    assert "request of connection 3" in second
    assert "failed (ValueError) after" in second
    assert "secret" not in caplog.text.lower()


@pytest.mark.parametrize(
    ("raised", "ended"),
    [(SystemExit(5), "failed (SystemExit)"), (KeyboardInterrupt(), "failed (KeyboardInterrupt)")],
)
async def test_what_ends_the_program_is_not_called_a_cancellation(
    caplog: pytest.LogCaptureFixture, raised: BaseException, ended: str
) -> None:
    async def ends(_request: Value, _call: Call) -> StringValue:
        raise raised

    caplog.set_level(logging.INFO, "trio_ipc.server")
    with pytest.raises(type(raised)):
        await logged(ends)(Value(), CALL)
    assert f": {ended} after" in caplog.text


@pytest.mark.parametrize("in_nursery", [False, True])
async def test_a_cancelled_request_is_called_so(caplog: pytest.LogCaptureFixture, in_nursery: bool) -> None:
    async def hang(_request: Value, _call: Call) -> StringValue:
        if in_nursery:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    caplog.set_level(logging.INFO, "trio_ipc.server")
    with trio.CancelScope() as scope:
        scope.cancel()
        await logged(hang)(Value(), CALL)
    assert ": cancelled after" in caplog.text


def test_what_is_put_around_nothing_async_is_refused() -> None:
    def plain(_request: Value, _call: Call) -> StringValue:
        return StringValue()

    wraps: list[Callable[[], object]] = [
        lambda: timed(plain, print),  # type: ignore[arg-type]
        lambda: authorized(plain, VALUES, PeerPolicy.anyone()),  # type: ignore[arg-type]
        lambda: logged(plain),  # type: ignore[arg-type]
        lambda: answering_health(plain, ASKABLE),  # type: ignore[arg-type]
    ]
    for wrap in wraps:
        with pytest.raises(TypeError, match="handler is .*, which is not async"):
            wrap()
    with pytest.raises(TypeError, match="observe is .*must be an ordinary function"):
        timed(shout, shout)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="allow is 'root', must be an ordinary function"):
        authorized(shout, VALUES, "root")  # type: ignore[arg-type]


# --- Health -------------------------------------------------------------------------------------------------


def ask() -> Value:
    return Value(null_value=0)  # type: ignore[arg-type]


def is_asked(request: Value) -> bool:
    return request.HasField("null_value")


def answer(_: Value, well: bool) -> StringValue:
    return StringValue(value="well" if well else "ill")


def says_well(response: StringValue) -> bool:
    return response.value == "well"


ASKABLE = Contract(
    name="askable",
    request_type=Value,
    response_type=StringValue,
    failure=failed,
    health=HealthCheck(ask=ask, says_well=says_well, is_asked=is_asked, answer=answer),
)


async def health_of(handler: Any, contract: Contract[Any, Any]) -> Health:
    with testing.temporary_endpoint() as endpoint:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, handler, contract, endpoint.config())
            found = await check_health(contract, endpoint.config())
            server.stop()
        return found


async def test_a_server_says_whether_it_is_well_and_handlers_see_nothing_of_it() -> None:
    asked: list[Value] = []

    async def handler(request: Value, _: Call) -> StringValue:
        asked.append(request)
        return StringValue(value="x")

    assert await health_of(answering_health(handler, ASKABLE), ASKABLE) is Health.WELL
    assert await health_of(answering_health(handler, ASKABLE, lambda: True), ASKABLE) is Health.WELL
    assert await health_of(answering_health(handler, ASKABLE, lambda: False), ASKABLE) is Health.UNWELL
    assert asked == []
    assert await health_of(handler, ASKABLE) is Health.UNWELL, "who does not know the question is not well"
    assert len(asked) == 1
    wrapped = answering_health(handler, ASKABLE)
    assert (await wrapped(Value(string_value="y"), CALL)).value == "x"


async def test_of_a_contract_without_a_question_all_that_is_known_is_who_listens() -> None:
    assert await health_of(shout, VALUES) is Health.LISTENING
    with pytest.raises(TypeError, match="the contract values has no health with is_asked and answer"):
        answering_health(shout, VALUES)


async def test_collectors_of_daemoneye_are_asked_by_a_negotiation() -> None:
    gate = CapabilityGate(answer_task, Capabilities([]))
    assert await health_of(gate, DETECTION) is Health.WELL

    async def broken(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise ValueError("broken")

    assert await health_of(broken, DETECTION) is Health.UNWELL


async def test_nobody_to_ask_is_an_error_as_of_any_client() -> None:
    with testing.temporary_endpoint() as endpoint:
        with pytest.raises(ConnectError, match="no server"):
            await check_health(ASKABLE, endpoint.config())


async def test_a_server_that_hangs_up_is_an_error_too() -> None:
    async def broken(_request: Value, _call: Call) -> StringValue:
        raise ValueError

    silent = Contract(name="askable", request_type=Value, response_type=StringValue, health=ASKABLE.health)
    with pytest.raises(ExceptionGroup) as caught:
        await health_of(broken, silent)
    assert caught.group_contains(PeerClosedError)


async def test_what_a_health_check_returns_is_judged() -> None:
    def contract(**wrong: Any) -> Contract[Value, StringValue]:
        good: dict[str, Any] = {"ask": ask, "says_well": says_well, "is_asked": is_asked, "answer": answer}
        return Contract(
            name="bad",
            request_type=Value,
            response_type=StringValue,
            health=HealthCheck(
                **(good | {name: (lambda *_, value=value: value) for name, value in wrong.items()})
            ),
        )

    with pytest.raises(ContractError, match="ask of the contract bad returned int, must be Value"):
        contract(ask=3).health_request()
    with pytest.raises(ContractError, match="says_well of the contract bad returned int, must be a bool"):
        contract(says_well=1).says_well(StringValue())
    failing: HealthCheck[Value, StringValue] = HealthCheck(ask=ask, says_well=lambda _: bool(1 / 0))
    with pytest.raises(ContractError, match=r"says_well of the contract askable raised ZeroDivisionError\("):
        attrs.evolve(ASKABLE, health=failing).says_well(StringValue())
    with pytest.raises(ContractError, match="is_asked of the contract bad returned NoneType, must be a bool"):
        contract(is_asked=None).asks_for_health(Value())
    with pytest.raises(ContractError, match="answer of the contract bad returned str, must be StringValue"):
        contract(answer="x").health_response(Value(), True)


def test_a_health_check_is_whole_and_its_functions_ordinary() -> None:
    with pytest.raises(TypeError, match="has both is_asked and answer, or neither"):
        HealthCheck(ask=ask, says_well=says_well, is_asked=is_asked)
    with pytest.raises(TypeError, match="ask of a HealthCheck is .*, which is async"):
        HealthCheck(ask=shout, says_well=says_well)  # type: ignore[arg-type,type-var]
    with pytest.raises(TypeError, match="is_well is 3, must be an ordinary function"):
        answering_health(shout, ASKABLE, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the contract values has no health"):
        VALUES.health_request()
