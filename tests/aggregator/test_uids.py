"""`includeK8sUIDs`: the objects' UIDs beside, or instead of, their names."""

import json
from typing import Any
from uuid import UUID, uuid5

import pytest

from flowvis.aggregator.destinations.flow_collector import FlowCollector, RecordFormat
from flowvis.aggregator.destinations.json_lines import json_lines
from flowvis.aggregator.destinations.table import DestinationSettings
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.aggregator.enrichment.uids import AFTER, UIDS
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.batch import Batch
from flowvis.fields import BY_NAME, FlowType
from flowvis.inventory.index import Inventory
from flowvis.ipfix.exporter import ExporterSession
from flowvis.ipfix.template import Template, read_templates
from flowvis.policies import Egresses, Policies
from flowvis.policies.model import PolicyType
from flowvis.runtime.settings import load
from inventory.kubernetes_objects import node, service
from policies.cluster import admin_policy, antrea, network_policy

from .records import records
from .test_complete import START_MS, START_S, pod

NAMESPACE = UUID(int=7)


def uid(name: str) -> str:
    return str(uuid5(NAMESPACE, name))


def identified(item: dict[str, Any], name: str) -> dict[str, Any]:
    item["metadata"]["uid"] = uid(name)
    item["metadata"].setdefault("creationTimestamp", "2020-01-01T00:00:00Z")
    return item


class Known:
    """A cluster whose objects have UIDs."""

    def __init__(self) -> None:
        self.inventory, self.policies, self.egresses = Inventory(), Policies(), Egresses()
        for name, address in (("client", "10.0.1.1"), ("server", "10.0.2.1")):
            item = identified(pod(name, address, f"n-{name}"), name)
            self.inventory.upsert(item, START_MS)
            self.inventory.upsert(identified(node(f"n-{name}", "", ""), f"n-{name}"), START_MS)
        self.inventory.upsert(identified(node("gw", "192.0.2.9", ""), "gw"), START_MS)
        web = service("web", ["10.96.0.1"], {"name": "http", "port": 80})
        self.inventory.upsert(identified(web, "web"), START_MS)
        plain = service("plain", ["10.96.0.2"], {"port": 81})
        self.inventory.upsert(identified(plain, "plain"), START_MS)
        for item, name in (
            (network_policy("one", "shop"), "k8s"),
            (antrea("NetworkPolicy", "one", "shop", appliedTo=[], priority=1), "antrea"),
            (antrea("ClusterNetworkPolicy", "one", appliedTo=[], priority=1), "acnp"),
            (admin_policy("AdminNetworkPolicy", "one", priority=1, subject={}), "anp"),
        ):
            self.policies.upsert(identified(item, name), START_MS)
        leaving = antrea("Egress", "out", appliedTo={"podSelector": {}}, egressIP="192.0.2.7")
        leaving["status"] = {"egressNode": "gw", "egressIP": "192.0.2.7"}
        self.egresses.upsert(identified(leaving, "out"), START_MS)
        self.completer = Completer(
            self.inventory,
            lambda: "east",
            pod_labels=False,
            policies=self.policies,
            egresses=self.egresses,
        )
        self.completer.with_uids = True

    def complete(self, *rows: dict[str, Any]) -> Batch:
        batch = records(*({"flowStartSeconds": START_S} | row for row in rows))
        self.completer.complete(batch)
        return batch


def found(batch: Batch, name: str) -> list[str]:
    """Names of objects by their UIDs."""
    names = ("client", "server", "n-client", "n-server", "gw", "web", "plain", "out")
    known = {UUID(uid(each)).bytes: each for each in (*names, "k8s", "antrea", "acnp", "anp")}
    return [known.get(row.tobytes(), row.tobytes().hex().strip("0")) for row in batch[name]]


def test_a_pod_that_was_made_anew_under_its_name_is_another_one() -> None:
    known, later = Known(), "2027-01-15T08:10:00Z"  # ten minutes after START_S
    again = pod("server", "10.0.2.7", "n-server")
    again["metadata"] |= {"uid": uid("client"), "creationTimestamp": later}
    for now in (START_MS + 600_000, START_MS + 900_000):
        known.inventory.upsert(again, now)
        known.inventory.expire(now)
    server = {"destinationPodName": "server", "destinationPodNamespace": "shop"}
    late = server | {"destinationIP": "10.0.2.1"}
    batch = known.complete(
        late,
        late | {"flowStartSeconds": START_S + 599},  # its node's clock may be off a little
        late | {"flowStartSeconds": START_S + 900},
        server | {"destinationIP": "10.0.2.7", "flowStartSeconds": START_S + 900},
        late | {"destinationPodName": "nobody"},
    )
    assert found(batch, "destinationPodUUID") == ["", "client", "client", "client", ""]


def test_what_has_a_name_has_its_uid() -> None:
    batch = Known().complete(
        {
            "sourceIP": "10.0.1.1",
            "destinationIP": "10.0.2.1",
            "flowType": FlowType.INTER_NODE,
            "destinationServiceIP": "10.96.0.1",
            "destinationServicePort": 80,
            "protocolIdentifier": 6,
        },
        {
            "sourceIP": "10.0.1.1",
            "destinationIP": "203.0.113.9",
            "flowType": FlowType.TO_EXTERNAL,
            "destinationServicePortName": "shop/plain",
        },
        {"sourceIP": "198.51.100.1", "destinationIP": "10.0.2.1", "destinationNodeName": "gone"},
        {"sourceIP": "198.51.100.1", "sourcePodName": "server", "sourcePodNamespace": "shop"},
    )
    assert found(batch, "sourcePodUUID") == ["client", "client", "", "server"]
    assert found(batch, "destinationPodUUID") == ["server", "", "server", ""]
    assert found(batch, "sourceNodeUUID") == ["n-client", "n-client", "", ""]
    assert found(batch, "destinationNodeUUID") == ["n-server", "", "", ""]
    assert found(batch, "destinationServiceUUID") == ["web", "plain", "", ""]
    assert found(batch, "egressUUID") == ["", "out", "", ""]
    assert found(batch, "egressNodeUUID") == ["", "gw", "", ""]


def test_policies_by_their_type() -> None:
    known = Known()
    rows = [
        {"ingressNetworkPolicyName": name, "ingressNetworkPolicyType": kind} | where
        for kind, name, where in (
            (PolicyType.KUBERNETES, "one", {"ingressNetworkPolicyNamespace": "shop"}),
            (PolicyType.ANTREA, "one", {"ingressNetworkPolicyNamespace": "shop"}),
            (PolicyType.ANTREA_CLUSTER, "one", {}),
            (PolicyType.KUBERNETES_CLUSTER, "one", {}),
            (PolicyType.KUBERNETES, "one", {"ingressNetworkPolicyNamespace": "bank"}),
            (77, "one", {}),
            (PolicyType.NONE, "", {}),
        )
    ]
    wanted = ["k8s", "antrea", "acnp", "anp", "", "", ""]
    batch = records(*rows)
    columns = known.completer._uids.of(batch, {})
    assert found(Batch(columns, batch.strings), "ingressNetworkPolicyUUID") == wanted
    assert not columns["egressNetworkPolicyUUID"].any()


def test_an_object_that_is_gone_is_known_for_a_while() -> None:
    known = Known()
    key = ("networking.k8s.io", "NetworkPolicy", "shop", "one")
    known.policies.delete(network_policy("one", "shop"), START_MS)
    assert known.policies.uid(key) == uid("k8s")
    known.policies.upsert(network_policy("other", "shop"), START_MS + 700_000)
    known.policies.expire(START_MS + 1_400_000)
    assert known.policies.uid(key) == ""


@pytest.mark.parametrize("bad", ["", "uid-of-mine", "x" * 36, "1" * 500])
def test_a_uid_that_is_none_is_zeros(bad: str) -> None:
    known = Known()
    item = pod("odd", "10.0.3.1", "n1")
    item["metadata"]["uid"] = bad
    known.inventory.upsert(item, START_MS)
    batch = known.complete({"sourceIP": "10.0.3.1"})
    assert batch.texts("sourcePodName") == ["odd"]
    assert found(batch, "sourcePodUUID") == [""]


def test_nobody_pays_for_them_who_wants_none() -> None:
    known = Known()
    known.completer.with_uids = False
    assert not known.complete({"sourceIP": "10.0.1.1"}).columns.keys() & AFTER.keys()


def chosen(text: str) -> AggregatorSettings:
    return load(AggregatorSettings, text.encode(), {})


def collector(**options: bool) -> FlowCollector:
    given = "".join(f", {name}: {str(value).lower()}" for name, value in options.items())
    return chosen(f"flowCollector: {{enable: true, address: 'h:1'{given}}}").flow_collector


def test_their_places_are_antreas() -> None:
    both = [field.name for field in collector(includeK8sUIDs=True).fields]
    names = [field.name for field in collector().fields]
    assert len(both) == len(names) + 9
    for name, before in AFTER.items():
        assert both[both.index(before) + 1] == name
    alone = [f.name for f in collector(includeK8sNames=False, includeK8sUIDs=True).fields]
    neither = [f.name for f in collector(includeK8sNames=False).fields]
    assert len(both) - len(alone) == 13, "the names of rules stay: UIDs do not name them"
    assert len(alone) - len(neither) == 11


def test_who_wants_them() -> None:
    some = "{name: a, address: 'h:1', includeK8sUIDs: true"
    for text, wanted in (
        ("", False),
        ("flowCollector: {includeK8sUIDs: true}", False),
        ("flowCollector: {enable: true, address: 'h:1', includeK8sUIDs: true}", True),
        (f"flowCollectors: [{some}}}]", True),
        (f"flowCollectors: [{some}, enable: false}}]", False),
    ):
        settings: DestinationSettings = chosen(text)
        assert settings.with_uids is wanted


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00::1"])
def test_on_the_wire_they_are_16_bytes(address: str) -> None:
    known = Known()
    batch = known.complete({"sourceIP": address}, {"sourceIP": "10.0.1.1"})
    fields = (BY_NAME["flowEndReason"], *UIDS)
    session = ExporterSession(1, fields)
    for body in session.templates(0):
        (template,) = read_templates(body[20:], 2)
        assert isinstance(template, Template)
        assert [(f.enterprise, f.id, f.length) for f in template.specifiers[1:]] == [
            (56506, number, 16) for number in (159, 161, 160, 162, 163, 164, 165, 166, 167)
        ]
    batch = batch.take(slice(0, 1))
    (message,) = session.encode(batch, 0)
    assert message[21:] == b"".join(batch[field.name][0].tobytes() for field in UIDS)
    assert len(message) == 20 + 1 + 9 * 16


def test_json_has_them_as_kubernetes_writes_them() -> None:
    section = collector(includeK8sUIDs=True)
    assert section.record_format is RecordFormat.IPFIX
    batch = Known().complete({"sourceIP": "10.0.1.1"})
    (line,) = json_lines(batch, section.fields, 0)
    found = json.loads(line)["ipfix"]
    assert (found["sourcePodUUID"], found["destinationPodUUID"]) == (uid("client"), "")
    without = Batch({"sourceIP": batch["sourceIP"]}, batch.strings)
    assert json.loads(next(json_lines(without, UIDS, 0)))["ipfix"]["egressUUID"] == ""
