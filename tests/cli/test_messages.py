"""JSON as messages and back, and a stream of text as requests: without a process."""

from __future__ import annotations

import json

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    text_format,
    timestamp_pb2,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from tests.linear import costs_as, needs_thread_time
from tests.support import MIB
from trio_ipc import IpcError
from trio_ipc.cli import described
from trio_ipc.cli.messages import (
    OTHER_FORMS,
    NotAMessageError,
    Splitter,
    failed_by,
    message_in,
    request_in,
    splitter_of,
    value_of,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, ProcessRecord

#: What has the messages of OTHER_FORMS known.
_LOADED = (duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2)


def test_a_message_goes_to_json_and_back() -> None:
    task = message_in('{"task_id": "1", "taskType": "CHECK_PROCESS_HASH"}', DetectionTask)
    assert task == DetectionTask(task_id="1", task_type="CHECK_PROCESS_HASH")
    assert value_of(task) == {"task_id": "1", "task_type": "CHECK_PROCESS_HASH"}


def test_a_field_that_is_false_or_empty_is_there() -> None:
    value = value_of(DetectionResult(task_id="1", processes=[ProcessRecord(start_time=7)]))
    assert value["success"] is False
    assert value["network_events"] == []
    assert value["processes"][0]["start_time"] == "7"  # 64 bits are a string in protobuf's JSON
    assert "error_message" not in value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        '{"task": 1}',
        '{"task_id": 1}',
        '{"task_type": "NONE"}',
        '{"task_id": "\\ud800"}',
        "[" * 100_000,
        '{"task_id": "1", "task_id": "2"}',
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_message_is_said(text: str) -> None:
    with pytest.raises(NotAMessageError, match=r"it is no trio_ipc\.daemoneye\.v1\.DetectionTask: "):
        message_in(text, DetectionTask)


def test_what_json_has_no_form_for_is_an_error_of_ours() -> None:
    with pytest.raises(IpcError, match=r"the google\.protobuf\.Any has no form in JSON"):
        value_of(AnyMessage(type_url="types.example/no.such.Type", value=b"x"))


def test_a_failed_response_is_known_by_its_field() -> None:
    assert failed_by(DetectionResult(), None)
    assert not failed_by(DetectionResult(success=True), "success")
    assert not failed_by(Empty(), None)
    for field in ("task_id", "none", "processes"):
        with pytest.raises(KeyError):
            failed_by(DetectionResult(), field)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_objects_are_parted_wherever_they_are_cut(size: int) -> None:
    objects = ['{"a": "}{\\"\\\\"}', "{\n  'b': [{}, {}]\n}".replace("'", '"'), "{}", '{"c":{"d":"\\\\"}}']
    text = "\ufeff" + "\n".join(objects[:2]) + "".join(objects[2:]) + "  \r\n"
    splitter = Splitter()
    found = [whole for at in range(0, len(text), size) for whole in splitter.feed(text[at : at + size])]
    splitter.close()
    assert found == objects


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "it is no JSON object"),
        ("{}, {}", "it is no JSON object"),
        ('"{}"', "it is no JSON object"),
        ("}", "it is no|it ends within"),
        ('{"a": "}', "it ends within an object"),
    ],
)
def test_what_is_no_object_is_said(text: str, said: str) -> None:
    def read() -> None:
        splitter = Splitter()
        for whole in splitter.feed(text):
            message_in(whole, Empty)
        splitter.close()

    with pytest.raises(NotAMessageError, match=said):
        read()


@needs_thread_time
@pytest.mark.parametrize(("kind", "sizes"), [(Empty, (4 * MIB, 1_024)), (StringValue, (8 * MIB, 4_096))])
@pytest.mark.parametrize(("begin", "inside", "end"), [('{"a": "', "x", '"}\n'), ("", " ", "{}\n")])
def test_what_comes_in_many_pieces_is_looked_through_once(
    kind: type[Message], sizes: tuple[int, int], begin: str, inside: str, end: str
) -> None:
    size, at_a_time = sizes

    def part(piece: str) -> None:
        splitter, told = splitter_of(kind), list[str]()
        for text in (begin, *[piece] * (size // len(piece)), end):
            told += splitter.feed(text)
        splitter.close()
        assert [len(one) for one in told] == [len((begin + inside * size + end).strip())]

    assert costs_as(lambda: part(inside * size), lambda: part(inside * at_a_time))


def test_a_contract_is_described_with_all_that_may_stand_in_its_messages() -> None:
    said = described.described(DETECTION)
    assert said["request"] == "trio_ipc.daemoneye.v1.DetectionTask"
    names = {one["name"].rpartition(".")[2]: one for one in said["messages"]}
    assert {"DetectionTask", "ProcessRecord", "AdvancedCapabilities"} <= names.keys()
    assert not any("Entry" in name for name in names)  # maps are fields, not messages
    thresholds = {field["name"]: field for field in names["PerformanceFilter"]["fields"]}
    assert thresholds["min_thresholds"]["type"] == "map<string, double>"
    assert thresholds["metric_names"]["label"] == "repeated"
    text = "\n".join(described.lines(DETECTION))
    assert "  optional trio_ipc.daemoneye.v1.ProcessFilter process_filter = 3;" in text
    assert "  CHECK_PROCESS_HASH = 1;" in text


def test_the_example_is_a_request() -> None:
    example = described.described(DETECTION)["example"]
    assert message_in(json.dumps(example), DetectionTask) == DetectionTask(task_id="task_id")


#: A schema whose messages have no field without presence, or one that is not seen in an example by itself.
_SCHEMA = """
name: "example.proto" package: "example" syntax: "proto3" dependency: "google/protobuf/any.proto"
message_type { name: "Submit" field { name: "command" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "Nothing" }
message_type {
  name: "Choice" oneof_decl { name: "operation" }
  field { name: "submit" number: 1 type: TYPE_MESSAGE type_name: ".example.Submit" oneof_index: 0 }
  field { name: "nothing" number: 2 type: TYPE_MESSAGE type_name: ".example.Nothing" oneof_index: 0 }
}
message_type {
  name: "EmptyChoice" oneof_decl { name: "operation" }
  field { name: "nothing" number: 2 type: TYPE_MESSAGE type_name: ".example.Nothing" oneof_index: 0 }
}
message_type {
  name: "Tree" field { name: "branch" number: 1 type: TYPE_MESSAGE type_name: ".example.Tree" }
}
message_type {
  name: "Optional" oneof_decl { name: "_count" }
  field { name: "count" number: 1 type: TYPE_UINT64 oneof_index: 0 proto3_optional: true }
}
message_type { name: "Bytes" field { name: "data" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL } }
message_type { name: "Repeated" field { name: "names" number: 1 type: TYPE_STRING label: LABEL_REPEATED } }
message_type {
  name: "Any" field { name: "any" number: 1 type: TYPE_MESSAGE type_name: ".google.protobuf.Any" }
}
message_type {
  name: "Map"
  field { name: "sizes" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: "SizesEntry" }
  nested_type {
    name: "SizesEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_BOOL label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_MESSAGE label: LABEL_OPTIONAL type_name: ".example.Submit" }
  }
}
"""


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("Choice", {"submit": {"command": "command"}}),
        ("EmptyChoice", {"nothing": {}}),
        ("Tree", {"branch": {}}),
        ("Optional", {"count": 1}),
        ("Bytes", {"data": "Ynl0ZXM="}),
        ("Repeated", {"names": ["names"]}),
        ("Any", {"any": {}}),
        ("Map", {"sizes": {"true": {"command": "command"}}}),
    ],
)
def test_the_example_of_any_request_can_be_sent(name: str, example: object) -> None:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    kind = pool.FindMessageTypeByName(f"example.{name}")
    assert described.example(kind) == example
    request_in(json.dumps(example), message_factory.GetMessageClass(kind))


@pytest.mark.parametrize(
    ("text", "kind"), [("{}", DetectionTask), ('{"task_id": ""}', DetectionTask), ('""', StringValue)]
)
def test_a_request_of_no_bytes_is_refused_before_it_is_sent(text: str, kind: type[Message]) -> None:
    message_in(text, kind)
    with pytest.raises(NotAMessageError, match=rf"an empty {kind.DESCRIPTOR.full_name} encodes to no bytes"):
        request_in(text, kind)


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_each_form_that_is_no_object_is_one(name: str) -> None:
    kind = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
    message = message_in(json.dumps(OTHER_FORMS[name]), kind)
    assert value_of(message) == OTHER_FORMS[name]
    with pytest.raises(NotAMessageError):
        message_in("", kind)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_values_are_parted_by_lines_wherever_they_are_cut(size: int) -> None:
    splitter, text = splitter_of(StringValue), '"a"\r\n\n "}" \n1\n'
    assert [one for at in range(0, len(text), size) for one in splitter.feed(text[at : at + size])] == [
        '"a"',
        '"}"',
        "1",
    ]
    splitter.close()
