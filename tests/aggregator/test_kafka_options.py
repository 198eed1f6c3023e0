"""The options of the destination `kafka`, and what it needs; no broker is there."""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from flowvis.aggregator.destinations import kafka
from flowvis.aggregator.destinations.json_lines import json_lines
from flowvis.aggregator.destinations.kafka import connection_keys
from flowvis.aggregator.destinations.kafka_client import Message
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.destinations.loads import Load
from flowvis.aggregator.destinations.protobuf import Messages
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.errors import SettingsError
from flowvis.fields import AGGREGATED, Kind
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import load

from .records import records


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"brokers": []}, "kafka.brokers: is needed when kafka.enable is true"),
        ({"brokers": ["a b"]}, "is no broker: write <host>"),
        ({"brokers": ["a:70000"]}, "is no broker: write <host>"),
        ({"topic": "flows/all"}, "is no topic"),
        ({"sasl": {"mechanism": "PLAIN", "username": "x"}}, "and password: give both"),
        ({"tls": {"keyFile": "/k"}}, "goes with keyFile"),
        ({"compression": "brotli"}, "none, gzip, snappy, lz4, zstd"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], problem: str) -> None:
    section = {"enable": True, "brokers": ["kafka"], **options}
    with pytest.raises(SettingsError, match=problem.replace("(", r"\(")):
        load(AggregatorSettings, json.dumps({"kafka": section}).encode(), {})


def test_brokers_and_secrets() -> None:
    document = {"kafka": {"enable": True, "brokers": ["kafka", "[fd00::1]:9093", "10.0.0.1:1"]}}
    env = {"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p"}
    section = load(AggregatorSettings, json.dumps(document).encode(), env).kafka
    assert section.brokers == ("kafka:9092", "[fd00::1]:9093", "10.0.0.1:1")
    assert (section.sasl.username, section.sasl.password) == ("u", "p")


@pytest.mark.parametrize("package", ["aiokafka", "cramjam"])
def test_without_its_packages_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    place = Place(Stage("kafka"), 1 << 20, Surroundings(1.0, 1 << 30, lambda: 7))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        with pytest.raises(SettingsError, match=r"pip install 'flowvis\[kafka\]'"):
            kafka.make(kafka.Kafka(True, ("127.0.0.1:9092",)), place, None)


def test_one_that_is_made_and_never_begins_leaves_nothing() -> None:
    """As where another destination of the same configuration cannot be made."""
    before = list(logging.getLogger("aiokafka").handlers)
    section = {"enable": True, "brokers": ["kafka"]}
    chosen = load(AggregatorSettings, json.dumps({"kafka": section}).encode(), {}).kafka
    kafka.make(chosen, Place(Stage("kafka"), 1 << 20, Surroundings(1.0, 1 << 30, lambda: 7)), None)
    assert logging.getLogger("aiokafka").handlers == before


@pytest.mark.parametrize("protobuf", [False, True])
def test_messages_of_long_texts_are_made_a_few_at_a_time(protobuf: bool) -> None:
    """A text is in memory once, however many records have it."""
    text = "\x01" * 16_000
    long = {field.name: text for field in AGGREGATED if field.kind is Kind.TEXT}
    batch = records(*(long | {"octetTotalCount": number} for number in range(40)))
    values = Messages().each if protobuf else lambda batch: json_lines(batch, AGGREGATED, 1)
    work = kafka._Work(Load([batch]), map(Message, connection_keys(batch), values(batch)), 1 << 30)
    made, times = 0, 0
    while work.fill():
        assert work.fill(), "those that are not done with stay"
        assert sum(len(message.value) for message in work.messages[:-1]) <= kafka.AT_ONCE_BYTES
        made += len(work.messages)
        times += 1
        work.messages = []
    assert made == 40
    assert times == (1 if protobuf else 5)


def test_messages_that_cannot_be_made_are_not_taken_for_appended_ones() -> None:
    def some() -> Iterator[Message]:
        yield Message(b"key", b"value")
        raise ZeroDivisionError

    work = kafka._Work(Load([]), some(), 1 << 30)
    with pytest.raises(ZeroDivisionError):
        work.fill()
    assert work.broken
