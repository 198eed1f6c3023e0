"""The older collector's files, against what the aggregator sends; Logstash itself is not run."""

import ipaddress
import json
import re
from datetime import datetime
from typing import Any

import pytest
import yaml
from tools import logstash

from aggregator.records import records
from deploy.rendered import DEPLOY
from flowvis.aggregator.destinations.flow_collector import FlowCollector
from flowvis.aggregator.destinations.json_lines import json_lines
from flowvis.aggregator.enrichment.uids import with_uids
from flowvis.elements import REGISTRY
from flowvis.fields import AGGREGATED

FILES = DEPLOY / "logstash"
SIZES = {"uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "ip4_addr": 4, "ip6_addr": 16}
VARIABLE = {"string": "string", "octetarray": "octetArray"}

SOME = {
    "sourceIP": "10.0.0.1", "destinationIP": "10.0.0.2", "flowEndSeconds": 1_706_702_400,
    "octetTotalCount": 2**64 - 1, "protocolIdentifier": 6, "sourcePodName": "größe",
    "sourcePodLabels": '{"app":"web"}', "throughput": 800, "throughputFromSourceNode": 800,
}  # fmt: skip


def properties() -> dict[str, dict[str, Any]]:
    template = json.loads((FILES / "flow.json").read_text())
    assert template["index_patterns"] == ["flow-*"]
    found: dict[str, dict[str, Any]] = template["template"]["mappings"]["properties"]["ipfix"][
        "properties"
    ]
    return found


def takes(mapping: dict[str, Any], value: object) -> bool:
    """Whether an index with this mapping takes a value, and as what it is."""
    kind = mapping["type"]
    if kind == "ip":
        return bool(ipaddress.ip_address(str(value)))
    if kind == "date":
        assert mapping["format"].split("||") == ["strict_date_optional_time", "epoch_second"]
        return isinstance(value, int) or bool(datetime.fromisoformat(str(value)))
    if kind == "long":
        return isinstance(value, int) and (value < 2**63 or mapping["ignore_malformed"])
    return kind == "keyword" and isinstance(value, str)


@pytest.mark.parametrize("version", [4, 6])
def test_the_index_takes_each_field_of_a_line(version: int) -> None:
    row = SOME if version == 4 else SOME | {"sourceIP": "fd00::1", "destinationIP": "fd00::2"}
    (line,) = json_lines(records(row), AGGREGATED, 1_706_702_400)
    mapped, document = properties(), json.loads(line)["ipfix"]
    words = set(logstash.WORDS) & set(logstash.MADE)
    assert words == {"protocolIdentifier"}  # a word by then
    for name in document.keys() - words:
        assert takes(mapped[name], document[name]), name
    assert not takes(mapped["sourcePodName"], 7)
    assert not takes(mapped["octetTotalCount"], "7")
    assert len(document) > 50


def test_the_codec_knows_all_elements_that_may_come() -> None:
    """One that it does not know costs it the template."""
    known = yaml.safe_load((FILES / "ipfix.yaml").read_text())
    fields = with_uids(AGGREGATED)
    assert set(fields) > set(AGGREGATED)
    assert FlowCollector(include_k8s_uids=True).fields == fields
    names = [name for field in fields for name in field.elements]
    for name in names:
        element = REGISTRY.named(name)
        codec_type, called = known[element.enterprise][element.id]
        assert called == f":{name}"
        kind = codec_type.removeprefix(":")
        if element.type.size is None:
            assert VARIABLE[kind] == element.type.registry_name
        else:
            assert SIZES[kind] == element.type.size
    assert sum(map(len, known.values())) == len(names)


def test_the_pipeline_reads_and_writes_fields_of_the_index() -> None:
    text = (FILES / "logstash.conf").read_text()
    named = set(re.findall(r"\[ipfix\]\[(\w+)\]", text))
    assert named <= properties().keys()
    made = {name for name in logstash.MADE if name != "version"}  # which the codec makes
    assert made <= named
    assert set(logstash.WORDS) <= named


def test_numbers_become_words() -> None:
    text = (FILES / "logstash.conf").read_text()
    found = {}
    for part in text.split("  translate {")[1:]:
        (source,) = re.findall(r'source => "\[ipfix\]\[(\w+)\]"', part)
        found[source] = dict(
            re.findall(r'^      "(\d+)" => "([^"]+)"$', part.split("fallback")[0], re.MULTILINE)
        )
    assert found["protocolIdentifier"] == {"6": "TCP", "17": "UDP", "132": "SCTP"}
    assert found["flowType"]["3"] == "To External"
    for direction in ("ingress", "egress"):
        actions = found[f"{direction}NetworkPolicyRuleAction"]
        assert [actions[str(n)] for n in range(4)] == ["No Action", "Allow", "Drop", "Reject"]
        assert len(actions) == 6
        assert found[f"{direction}NetworkPolicyType"]["2"] == "Antrea NetworkPolicy"


def test_ports_and_balance() -> None:
    """What Logstash's grammar asks for at least: each brace and quote is closed."""
    text = (FILES / "logstash.conf").read_text()
    lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
    assert sorted(re.findall(r"port => (\d+)", text)) == ["4736", "4736", "4739", "4739"]
    depth = 0
    for line in lines:
        assert line.count('"') % 2 == 0
        bare = re.sub(r'"[^"]*"', "", line)
        depth += bare.count("{") - bare.count("}")
        assert depth >= 0
    assert depth == 0
    assert [line.split()[0] for line in lines if re.match(r"\w+ \{", line)] == [
        "input",
        "filter",
        "output",
    ]
