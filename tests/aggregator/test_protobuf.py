"""Messages of Protocol Buffers, read by Google's compiler and reader with the schema of docs/."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.aggregator.destinations.file_lines import WHOLE
from flowvis.aggregator.destinations.protobuf import Messages, number, schema
from flowvis.batch import Batch
from flowvis.fields import BY_NAME, Field, Kind, Merge, Source
from waiting import PATIENCE_S

from .records import records
from .test_flow_log import SOME, STORED

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The class of messages that protoc makes of the schema."""
    made = tmp_path_factory.mktemp("schema") / "set"
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{DOCS}"]
    subprocess.run(
        [*compiler, f"--descriptor_set_out={made}", "flow-record.proto"],
        check=True,
        timeout=PATIENCE_S,
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("flowvis.FlowRecord"))


def values(batch: Batch, message: Any, row: int) -> None:
    """Compare all fields of a record with what was read."""
    for field in WHOLE:
        found = getattr(message, field.name)
        if field.name not in batch:
            assert found in {0, ""}
        elif field.kind is Kind.TEXT:
            assert found == batch.texts(field.name)[row]
        elif field.kind is not Kind.ADDRESS:
            assert found == int(batch[field.name][row]), field.name


def test_every_field_as_others_read_it(reader: Any) -> None:
    full = {f.name: 2 ** (8 * f.kind.dtype.itemsize) - 1 for f in STORED if not f.kind.shape}
    texts = {f.name: f"größe of {f.name}" for f in STORED if f.kind is Kind.TEXT}
    batch = records(SOME, {}, full | texts | {"sourceIP": "fd00::1"}, fields=STORED)
    messages = Messages()(batch)
    read = [reader.FromString(message) for message in messages]
    for row, message in enumerate(read):
        values(batch, message, row)
        assert message.SerializeToString(deterministic=True) == messages[row]
    assert [one.sourceIP for one in read] == ["10.0.0.1", "", "fd00::1"]
    assert read[0].destinationIP == "fd00::2"
    assert messages[1] == b""


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "octetTotalCount": st.integers(0, 2**64 - 1),
                "flowEndSeconds": st.integers(0, 2**32 - 1),
                "sourceTransportPort": st.integers(0, 2**16 - 1),
                "sourcePodName": st.text(max_size=300),
                "clusterId": st.text(max_size=5),
            },
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_values(reader: Any, rows: list[dict[str, Any]]) -> None:
    batch = records(*rows, fields=STORED)
    for row, message in enumerate(Messages()(batch)):
        values(batch, reader.FromString(message), row)


def test_a_record_that_lacks_fields(reader: Any) -> None:
    batch = records({"octetTotalCount": 300, "sourcePodName": "a"})
    (message,) = Messages()(batch.select(["octetTotalCount", "sourcePodName"]))
    assert reader.FromString(message).octetTotalCount == 300
    assert message == b"\xa8\x05\xac\x02" + b"\x8a\x64\x01a"


def test_numbers_stay_what_they_are(reader: Any) -> None:
    """Readers have the schema of yesterday: none of these may ever change."""
    known = {
        "octetDeltaCount": 1, "protocolIdentifier": 4, "sourceIP": 8, "octetTotalCount": 85,
        "flowEndSeconds": 151, "reverseOctetDeltaCount": 1001, "sourcePodName": 1601,
        "sourceWorkloadKind": 1900, "destinationWorkloadName": 1903,
    }  # fmt: skip
    named = {field.name: field.number for field in reader.DESCRIPTOR.fields}
    assert {name: named[name] for name in known} == known
    assert named == {field.name: number(field) for field in WHOLE}


def test_a_field_without_a_number_says_where_it_gets_one() -> None:
    odd = Field("newField", Kind.U8, Merge.KEY, Source.RECORD, "New")
    with pytest.raises(ValueError, match="newField has no information element: add it at the end"):
        schema([odd])
    assert number(BY_NAME["destinationWorkloadKind"]) == 1902
