"""The options of the destination `kafka`, and what it needs; no broker is there."""

import json
import logging
import sys
from typing import Any

import pytest

from flowvis.aggregator.destinations import kafka
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.errors import SettingsError
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import load


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
