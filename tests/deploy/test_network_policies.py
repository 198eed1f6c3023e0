"""Who may talk to whom: the manifests' policies, as our own engine evaluates them."""

from typing import Any, NamedTuple

import pytest
import yaml

from deploy.rendered import DEPLOY, DEPLOYED, KEPT, NAMESPACES, of, templates
from policies.cluster import (
    ALLOWING,
    Cluster,
    Connection,
    Pod,
    Verdict,
    labels,
    namespace,
    passes,
)

NAME = "app.kubernetes.io/name"
SERVER, NODE, OUTSIDE = "192.0.2.10", "192.0.2.20", "198.51.100.7"
"""The API server and a node, whose addresses are no Pods'; and one that is elsewhere."""

PODS = [
    Pod("flow-aggregator", "aggregator", "10.0.0.1", labels(**{NAME: "flow-aggregator"})),
    Pod("flow-aggregator", "job", "10.0.0.2", labels(**{NAME: "clickhouse-credentials"})),
    Pod("flow-aggregator", "stranger", "10.0.0.3", labels(app="x")),
    Pod("flow-exporter", "stranger", "10.0.0.4", labels(**{NAME: "flow-exporter"})),
    Pod("flow-visibility", "clickhouse", "10.0.0.5", labels(**{NAME: "clickhouse"})),
    Pod("flow-visibility", "replica", "10.0.0.6", labels(**{NAME: "clickhouse"})),
    Pod("flow-visibility", "keeper", "10.0.0.7", labels(**{NAME: "clickhouse-keeper"})),
    Pod("flow-visibility", "grafana", "10.0.0.8", labels(**{NAME: "grafana"})),
    Pod("flow-visibility", "stranger", "10.0.0.9", labels(app="x")),
    Pod("monitoring", "prometheus", "10.0.1.1", labels(**{NAME: "prometheus"})),
    Pod("monitoring", "stranger", "10.0.1.2", labels(app="x")),
    Pod("loki", "gateway", "10.0.1.5", labels(**{NAME: "loki"})),
    Pod("kube-system", "dns", "10.0.1.3", labels(**{"k8s-app": "kube-dns"})),
    Pod("kube-system", "operator", "10.0.1.4", labels(app="clickhouse-operator")),
    Pod("shop", "browser", "10.0.2.1"),
    # As if they were who may: a label is the word of who makes the Pod.
    Pod("shop", "prometheus", "10.0.2.2", labels(**{NAME: "prometheus"})),
    Pod("shop", "aggregator", "10.0.2.3", labels(**{NAME: "flow-aggregator"})),
    Pod("shop", "grafana", "10.0.2.4", labels(**{NAME: "grafana"})),
    Pod("shop", "operator", "10.0.2.5", labels(app="clickhouse-operator")),
    Pod("shop", "dns", "10.0.2.6", labels(**{"k8s-app": "kube-dns"})),
]

AGGREGATOR, CLICKHOUSE = "flow-aggregator/aggregator", "flow-visibility/clickhouse"
GRAFANA, DNS = "flow-visibility/grafana", "kube-system/dns"
STORES = (
    "", "overlays/clickhouse", "overlays/clickhouse-operator", "overlays/grafana",
    "overlays/prometheus",
)  # fmt: skip
WITHOUT = tuple(each for each in DEPLOYED if each not in STORES)
ELSEWHERE = tuple(each for each in DEPLOYED if each != "overlays/collector")
UDP = "overlays/udp"
OVER_TCP = tuple(each for each in DEPLOYED if each != UDP)
WITHOUT_KAFKA = tuple(each for each in DEPLOYED if each != "overlays/kafka")
SINGLE, OPERATOR, HEALTH = "", "overlays/clickhouse-operator", "overlays/grafana"

Overlays = tuple[str, ...]


class Case(NamedTuple):
    overlays: Overlays
    source: str
    destination: str
    port: int
    protocol: str = "TCP"


ALLOWED = [
    Case(OVER_TCP, NODE, AGGREGATOR, 4739),
    Case((UDP,), NODE, AGGREGATOR, 4739, "UDP"),
    Case(DEPLOYED, "monitoring/prometheus", AGGREGATOR, 9739),
    Case(DEPLOYED, AGGREGATOR, SERVER, 443),
    Case(DEPLOYED, AGGREGATOR, SERVER, 6443),
    Case(DEPLOYED, AGGREGATOR, DNS, 53, "UDP"),
    Case(DEPLOYED, AGGREGATOR, DNS, 53),
    Case(DEPLOYED, AGGREGATOR, "169.254.20.10", 53, "UDP"),
    Case(STORES, AGGREGATOR, CLICKHOUSE, 9000),
    Case(STORES, "flow-aggregator/job", SERVER, 6443),
    Case(STORES, GRAFANA, CLICKHOUSE, 8123),
    Case(STORES, GRAFANA, CLICKHOUSE, 9000),
    Case(STORES, GRAFANA, DNS, 53, "UDP"),
    Case(STORES, "shop/browser", GRAFANA, 3000),
    Case((HEALTH,), GRAFANA, "monitoring/prometheus", 9090),
    Case((HEALTH,), GRAFANA, "loki/gateway", 8080),
    Case((HEALTH,), GRAFANA, "loki/gateway", 3100),
    Case((OPERATOR,), "kube-system/operator", CLICKHOUSE, 8123),
    Case((OPERATOR,), "kube-system/operator", "flow-visibility/keeper", 2181),
    Case((OPERATOR,), CLICKHOUSE, "flow-visibility/replica", 9000),
    Case((OPERATOR,), CLICKHOUSE, "flow-visibility/replica", 9009),
    Case((OPERATOR,), CLICKHOUSE, "flow-visibility/keeper", 2181),
    Case((OPERATOR,), CLICKHOUSE, DNS, 53, "UDP"),
    Case(("overlays/collector",), AGGREGATOR, OUTSIDE, 4739),
    Case(("overlays/collector",), AGGREGATOR, OUTSIDE, 4739, "UDP"),
    Case(("overlays/kafka",), AGGREGATOR, OUTSIDE, 9092),
    Case(("overlays/kafka",), AGGREGATOR, OUTSIDE, 9093),
]

DENIED = [
    # The status port.
    Case(DEPLOYED, "shop/browser", AGGREGATOR, 9739),
    Case(DEPLOYED, "shop/prometheus", AGGREGATOR, 9739),
    Case(DEPLOYED, "monitoring/stranger", AGGREGATOR, 9739),
    Case(DEPLOYED, "flow-aggregator/stranger", AGGREGATOR, 9739),
    Case(DEPLOYED, OUTSIDE, AGGREGATOR, 9739),
    # Anything else.
    Case(DEPLOYED, "shop/browser", AGGREGATOR, 22),
    Case(DEPLOYED, "shop/browser", AGGREGATOR, 4739, "UDP"),
    Case(OVER_TCP, NODE, AGGREGATOR, 4739, "UDP"),
    # Over UDP an address is all that a sender shows.
    Case((UDP,), OUTSIDE, AGGREGATOR, 4739, "UDP"),
    Case((UDP,), "flow-aggregator/stranger", AGGREGATOR, 4739, "UDP"),
    Case((UDP,), NODE, AGGREGATOR, 4739),
    Case(DEPLOYED, "monitoring/prometheus", AGGREGATOR, 9740),
    Case(DEPLOYED, "shop/browser", "flow-aggregator/stranger", 80),
    Case(DEPLOYED, "shop/browser", "flow-exporter/stranger", 9740),
    # The aggregator's ways out.
    Case(DEPLOYED, AGGREGATOR, OUTSIDE, 80),
    Case(DEPLOYED, AGGREGATOR, "shop/browser", 8080),
    Case(DEPLOYED, AGGREGATOR, "shop/dns", 53, "UDP"),
    Case(DEPLOYED, AGGREGATOR, "169.254.169.254", 80),
    Case(DEPLOYED, AGGREGATOR, "kube-system/operator", 53, "UDP"),
    Case(ELSEWHERE, AGGREGATOR, OUTSIDE, 4739),
    Case(WITHOUT_KAFKA, AGGREGATOR, OUTSIDE, 9092),
    Case(("overlays/kafka",), AGGREGATOR, OUTSIDE, 9094),
    Case(WITHOUT, AGGREGATOR, CLICKHOUSE, 9000),
    Case(DEPLOYED, "flow-aggregator/stranger", SERVER, 443),
    Case(DEPLOYED, "flow-exporter/stranger", SERVER, 443),
    Case(DEPLOYED, "flow-visibility/stranger", OUTSIDE, 443),
    # The store.
    Case(DEPLOYED, "shop/browser", CLICKHOUSE, 9000),
    Case(DEPLOYED, "shop/aggregator", CLICKHOUSE, 9000),
    Case(DEPLOYED, "shop/grafana", CLICKHOUSE, 8123),
    Case(DEPLOYED, "shop/operator", CLICKHOUSE, 8123),
    Case(DEPLOYED, "flow-visibility/stranger", CLICKHOUSE, 9000),
    Case(DEPLOYED, "flow-aggregator/job", CLICKHOUSE, 9000),
    Case(DEPLOYED, "flow-aggregator/stranger", CLICKHOUSE, 9000),
    Case(DEPLOYED, AGGREGATOR, CLICKHOUSE, 9004),
    Case(STORES, AGGREGATOR, CLICKHOUSE, 8123),
    Case(DEPLOYED, CLICKHOUSE, OUTSIDE, 443),
    Case(DEPLOYED, CLICKHOUSE, "169.254.169.254", 80),
    Case(DEPLOYED, CLICKHOUSE, AGGREGATOR, 9739),
    Case(DEPLOYED, CLICKHOUSE, GRAFANA, 3000),
    Case((SINGLE,), CLICKHOUSE, DNS, 53, "UDP"),
    Case((SINGLE,), "kube-system/operator", CLICKHOUSE, 8123),
    Case(DEPLOYED, GRAFANA, OUTSIDE, 443),
    Case(DEPLOYED, GRAFANA, AGGREGATOR, 9739),
    Case(DEPLOYED, GRAFANA, "monitoring/stranger", 9090),
    Case(DEPLOYED, GRAFANA, "monitoring/prometheus", 9739),
    Case(DEPLOYED, GRAFANA, "shop/prometheus", 9090),
    Case(DEPLOYED, "shop/browser", "flow-visibility/keeper", 2181),
    Case(DEPLOYED, "shop/operator", "flow-visibility/keeper", 2181),
    Case(DEPLOYED, GRAFANA, "flow-visibility/keeper", 2181),
    Case(DEPLOYED, "flow-visibility/keeper", OUTSIDE, 443),
    # The Job.
    Case(DEPLOYED, "shop/browser", "flow-aggregator/job", 80),
    Case(DEPLOYED, "flow-aggregator/job", OUTSIDE, 80),
    Case(DEPLOYED, "flow-aggregator/job", "shop/browser", 8080),
]


def pods(overlay: str) -> list[Pod]:
    """The cluster's, ours with the ports that their containers name."""
    ports: dict[tuple[str, str], tuple[tuple[str, int, int], ...]] = {}
    for item, template in templates(overlay):
        key = item["metadata"]["namespace"], template["metadata"]["labels"][NAME]
        ports[key] = tuple(
            (port["name"], {"TCP": 6, "UDP": 17}[port["protocol"]], port["containerPort"])
            for container in template["spec"]["containers"]
            for port in container.get("ports", ())
        )
    found = []
    for pod in PODS:
        name = yaml.safe_load(pod.labels).get(NAME, "")
        named_ports = ports.get((pod.namespace, name), ())
        found.append(Pod(pod.namespace, pod.name, pod.address, pod.labels, named_ports=named_ports))
    return found


def cluster(overlay: str, **changed: Any) -> Cluster:
    """The cluster after an overlay and what is applied before it; `changed` policies by name."""
    one = Cluster(pods(overlay))
    spaces = {pod.namespace for pod in PODS}
    one.apply(*(namespace(name) for name in spaces))
    policies = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item
        for applied in (*KEPT, overlay)
        for item in of(applied, "NetworkPolicy")
    }
    for (_, name), item in policies.items():
        one.apply(changed.get(name.replace("-", "_"), item))
    return one


def verdicts(overlay: str, cases: list[Case]) -> dict[Case, dict[str, Verdict]]:
    asked = [case for case in cases if overlay in case.overlays]
    found = cluster(overlay).decide(
        [Connection(case.source, case.destination, case.port, case.protocol) for case in asked]
    )
    return dict(zip(asked, found, strict=True))


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_what_has_to_get_through_does(overlay: str) -> None:
    found = verdicts(overlay, ALLOWED)
    assert len(found) >= 7
    assert [case for case, each in found.items() if not passes(each)] == []


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_nothing_else_does(overlay: str) -> None:
    """Each Pod of ours denies it by itself, whatever the other one does."""
    found = verdicts(overlay, DENIED)
    assert len(found) >= 30
    for case, each in found.items():
        ours = {
            direction
            for direction, name in (("egress", case.source), ("ingress", case.destination))
            if name.split("/")[0] in NAMESPACES
        }
        if case.destination == GRAFANA and overlay in STORES:  # it asks for a login
            ours.remove("ingress")
        assert ours
        assert {name for name, verdict in each.items() if verdict.action not in ALLOWING} == ours, (
            case
        )


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_all_pods_of_ours_are_denied_first(overlay: str) -> None:
    """In each of our namespaces and for both directions, whatever comes to be there."""
    for name in NAMESPACES:
        (policy,) = (
            item
            for item in of("namespaces", "NetworkPolicy")
            if item["metadata"]["namespace"] == name
        )
        assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for item, _ in templates(overlay):
        assert item["metadata"]["namespace"] in {*NAMESPACES, "kube-system"}


def test_the_commented_examples_narrow_it_down() -> None:
    """Of the exporters' port, of the API server, and a destination of one's own."""
    path = DEPLOY / "base/aggregator/networkpolicy.yaml"
    lines = path.read_text().splitlines()
    text = "\n".join(line.replace("# ", "", 1) if is_example(line) else line for line in lines)
    narrowed = yaml.safe_load(text)
    assert len(narrowed["spec"]["egress"]) == 3
    one = cluster("base", flow_aggregator=narrowed)
    through = {
        (source, destination, port): passes(one.one(source, destination, port))
        for source, destination, port in (
            (NODE, AGGREGATOR, 4739),
            ("shop/browser", AGGREGATOR, 4739),
            (AGGREGATOR, SERVER, 6443),
            (AGGREGATOR, OUTSIDE, 443),
            (AGGREGATOR, OUTSIDE, 9440),
            (AGGREGATOR, NODE, 9440),
        )
    }
    assert list(through.values()) == [True, False, True, False, True, False]


def is_example(line: str) -> bool:
    words = line.strip()
    return words.startswith("#") and words.lstrip("# ").startswith(
        ("from:", "to:", "- to:", "- ipBlock:", "ports:", "- {port:")
    )
