"""The truth tables of the Kubernetes end-to-end tests of NetworkPolicy, rebuilt as data.

Namespaces x, y, z have Pods a, b, c each, that serve ports 80 and 81 over TCP, UDP and SCTP. The
cases are those of test/e2e/network/netpol/network_policy.go; every cell of their tables is
asserted, also for Pods that upstream leaves out of a case. Connections of a Pod to itself are not
looked at, neither there nor here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

from flowvis.fields import TRANSPORTS
from policies.cluster import (
    NOW,
    Cluster,
    Connection,
    Pod,
    expression,
    labels,
    matching,
    namespace,
    network_policy,
    passes,
)

NAMES = [f"{ns}/{pod}" for ns, pod in product("xyz", "abc")]
PORTS = tuple(
    (f"serve-{port}-{protocol.lower()}", number, port)
    for port, (protocol, number) in product((80, 81), TRANSPORTS.items())
)
NAMESPACE = "kubernetes.io/metadata.name"

A = matching(pod="a")
B = matching(pod="b")
Y = {"matchLabels": {NAMESPACE: "y"}}
X = {"matchLabels": {NAMESPACE: "x"}}
NOT_X = expression(NAMESPACE, "NotIn", "x")


@dataclass(frozen=True)
class Probe:
    """A table: everything passes but for cells (from, to, passes), of which the last counts."""

    cells: tuple[tuple[str, str, bool], ...] = ()
    port: int = 80
    protocol: str = "TCP"

    def expected(self, source: str, destination: str) -> bool:
        verdict = True
        for start, end, passing in self.cells:
            if _fits(start, source) and _fits(end, destination):
                verdict = passing
        return verdict


@dataclass(frozen=True)
class Step:
    """Policies (and other objects) that are made or changed, names that go, Pods' new labels."""

    probes: tuple[Probe, ...]
    objects: tuple[Mapping[str, Any], ...] = ()
    gone: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def _fits(pattern: str, name: str) -> bool:
    return all(p in {"*", n} for p, n in zip(pattern.split("/"), name.split("/"), strict=True))


def ingress(name: str, *rules: Mapping[str, Any], of: Any = None, ns: str = "x") -> dict[str, Any]:
    spec = {"policyTypes": ["Ingress"], "ingress": list(rules)}
    return network_policy(name, ns, podSelector=of or {}, **spec)


def egress(name: str, *rules: Mapping[str, Any], of: Any = None, ns: str = "x") -> dict[str, Any]:
    return network_policy(
        name, ns, podSelector=of or {}, policyTypes=["Egress"], egress=list(rules)
    )


def whence(*peers: Mapping[str, Any], **ports: Any) -> dict[str, Any]:
    return {"from": list(peers), **ports}


def port(number: int | str, protocol: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"port": number}
    return found if protocol is None else found | {"protocol": protocol}


ANY = "*/*"
ONLY_Y_TO_XA = (("x/*", "x/a", False), ("z/*", "x/a", False))
NONE_TO_XA = (ANY, "x/a", False)
BOTH = network_policy("deny-all", policyTypes=["Ingress", "Egress"])
ONLY_YA = whence({"namespaceSelector": Y, "podSelector": A})


def one(*objects: Mapping[str, Any], cells: tuple[Any, ...] = (), **probe: Any) -> tuple[Step, ...]:
    return (Step((Probe(cells, **probe),), objects),)


def ports_from_y(protocol: str, number: int = 81, name: str = "from-y") -> dict[str, Any]:
    return ingress(name, whence({"namespaceSelector": Y}, ports=[port(number, protocol)]), of=A)


def address(name: str) -> str:
    ns, pod = name.split("/")
    return f"10.0.{'xyz'.index(ns)}.{'abc'.index(pod) + 1}"


def to_block(**block: Any) -> dict[str, Any]:
    return egress("cidr", {"to": [{"ipBlock": block}]}, of=A)


CASES: dict[str, tuple[Step, ...]] = {
    "default-deny-ingress": one(ingress("deny"), cells=((ANY, "x/*", False),)),
    "default-deny-all": one(BOTH, cells=((ANY, "x/*", False), ("x/*", ANY, False))),
    "from Pods of the server's namespace": one(
        ingress("from-b", whence({"podSelector": B}), of=A),
        cells=(NONE_TO_XA, ("x/b", "x/a", True)),
    ),
    "ingress for one target": one(
        ingress("deny"),
        ingress("to-a", whence({"podSelector": {}, "namespaceSelector": {}}), of=A),
        cells=((ANY, "x/*", False), (ANY, "x/a", True)),
    ),
    "from Pods of all namespaces": one(
        ingress("from-all", whence({"namespaceSelector": matching()}), of=A)
    ),
    "from another namespace only": one(
        ingress("from-y", whence({"namespaceSelector": Y}), of=A), cells=ONLY_Y_TO_XA
    ),
    "Pods by expressions": one(
        ingress("from-b", whence({"podSelector": expression("pod", "In", "b")}), of=A),
        cells=(NONE_TO_XA, ("x/b", "x/a", True)),
    ),
    "namespaces by expressions": one(
        ingress("from-y", whence({"namespaceSelector": expression(NAMESPACE, "In", "y")}), of=A),
        cells=ONLY_Y_TO_XA,
    ),
    "Pods or namespaces": one(
        ingress("either", whence({"namespaceSelector": NOT_X}, {"podSelector": B}), of=A),
        cells=(("x/*", "x/a", False), ("x/b", "x/a", True)),
    ),
    "Pods and namespaces": one(
        ingress("both", whence({"namespaceSelector": NOT_X, "podSelector": B}), of=A),
        cells=(NONE_TO_XA, ("y/b", "x/a", True), ("z/b", "x/a", True)),
    ),
    "several Pods and namespaces": one(
        ingress(
            "several",
            whence({"namespaceSelector": NOT_X, "podSelector": expression("pod", "In", "b", "c")}),
            of=A,
        ),
        cells=(("x/*", "x/a", False), ("*/a", "x/a", False)),
    ),
    "any of several Pods": one(
        ingress("any", whence({"podSelector": B}, {"podSelector": matching(pod="c")}), of=A),
        cells=(NONE_TO_XA, ("x/b", "x/a", True), ("x/c", "x/a", True)),
    ),
    "one Pod of another namespace": one(
        ingress("from-ya", ONLY_YA, of=A), cells=(NONE_TO_XA, ("y/a", "x/a", True))
    ),
    "by port": one(ports_from_y("TCP"), cells=ONLY_Y_TO_XA, port=81),
    "stacked policies": (
        Step((Probe(ONLY_Y_TO_XA, 81), Probe((NONE_TO_XA,), 80)), (ports_from_y("TCP"),)),
        Step((Probe(ONLY_Y_TO_XA, 80),), (ports_from_y("TCP", 80, "from-y-80"),)),
    ),
    "allow-all": (Step((Probe(), Probe(port=81)), (ingress("all", {}),)),),
    "a named port": (
        Step(
            (Probe(port=81), Probe(((ANY, "x/*", False),))),
            (ingress("81", {"ports": [port("serve-81-tcp")]}),),
        ),
    ),
    "a named port from a namespace": (
        Step(
            (Probe(ONLY_Y_TO_XA), Probe((NONE_TO_XA,), 81)),
            (
                ingress(
                    "80",
                    whence({"namespaceSelector": Y}, ports=[port("serve-80-tcp", "TCP")]),
                    of=A,
                ),
            ),
        ),
    ),
    "egress to a named port": (
        Step(
            (Probe(), Probe((("x/*", ANY, False),), 81)),
            (egress("80", {"ports": [port("serve-80-tcp")]}),),
        ),
    ),
    "an updated policy": (
        Step((Probe(port=81),), (ingress("mutates", {}),)),
        Step((Probe(((ANY, "x/*", False),), 81),), (ingress("mutates"),)),
    ),
    "an updated namespace": (
        Step(
            (Probe((NONE_TO_XA,)),),
            (ingress("ns2", whence({"namespaceSelector": matching(ns2="updated")}), of=A),),
        ),
        Step((Probe((NONE_TO_XA, ("y/*", ANY, True))),), (namespace("y", ns="y", ns2="updated"),)),
    ),
    "an updated Pod": (
        Step(
            (Probe((NONE_TO_XA,)),),
            (ingress("pod2", whence({"podSelector": matching(pod="b", pod2="updated")}), of=A),),
        ),
        Step(
            (Probe((NONE_TO_XA, ("x/b", "x/a", True))),),
            labels={"x/b": labels(pod="b", pod2="updated")},
        ),
    ),
    "not from other namespaces": one(
        ingress("own", whence({"podSelector": matching()})),
        cells=(("y/*", "x/*", False), ("z/*", "x/*", False)),
    ),
    "a Pod that becomes a target": (
        Step((Probe(),), (ingress("deny", of=matching(target="isolated")),)),
        Step((Probe((NONE_TO_XA,)),), labels={"x/a": labels(pod="a", target="isolated")}),
    ),
    "no egress of a Pod": one(egress("deny", of=A), cells=(("x/a", ANY, False),)),
    "no egress of a namespace": one(egress("deny"), cells=(("x/*", ANY, False),)),
    "ingress and egress in one": (
        Step(
            (
                Probe((NONE_TO_XA, ("x/b", "x/a", True))),
                Probe((NONE_TO_XA, ("x/a", ANY, False), ("x/b", "x/a", True)), 81),
            ),
            (
                network_policy(
                    "one",
                    podSelector=A,
                    policyTypes=["Egress", "Ingress"],
                    ingress=[whence({"podSelector": B})],
                    egress=[{"ports": [port(80)]}],
                ),
            ),
        ),
    ),
    "denied on the client's side": one(
        egress("to-ya", {"to": [{"namespaceSelector": Y, "podSelector": A}]}, of=A),
        *(
            ingress(
                f"from-xa-{pod}",
                whence({"namespaceSelector": X, "podSelector": A}),
                of=matching(pod=pod),
                ns="y",
            )
            for pod in "ab"
        ),
        cells=(
            ("x/a", ANY, False),
            (ANY, "y/a", False),
            ("x/a", "y/a", True),
            (ANY, "y/b", False),
        ),
    ),
    "egress to one Pod of another namespace": one(
        egress("to-ya", {"to": [{"namespaceSelector": Y, "podSelector": A}]}, of=A),
        cells=(("x/a", ANY, False), ("x/a", "y/a", True)),
    ),
    "any port of a protocol": (
        Step(
            (Probe(), Probe((NONE_TO_XA,), protocol="UDP")),
            (ingress("tcp", {"ports": [{"protocol": "TCP"}]}, of=A),),
        ),
    ),
    "ingress: allow-all beside a narrower one": (
        Step((Probe(((ANY, "x/*", False),), 81),), (ingress("80", {"ports": [port(80)]}),)),
        Step((Probe(port=81),), (ingress("all", {}),)),
    ),
    "egress: allow-all beside a narrower one": (
        Step((Probe((("x/*", ANY, False),), 81),), (egress("80", {"ports": [port(80)]}),)),
        Step((Probe(port=81),), (egress("all", {}),)),
    ),
    "a deleted policy": (
        Step((Probe((("x/*", ANY, False), (ANY, "x/*", False))),), (BOTH,)),
        Step((Probe(),), gone=(BOTH,)),
    ),
    "egress to a CIDR": one(
        to_block(cidr=f"{address('y/b')}/32"), cells=(("x/a", ANY, False), ("x/a", "y/b", True))
    ),
    "egress to a CIDR except": one(
        to_block(cidr="10.0.0.0/8", **{"except": [f"{address('x/b')}/32"]}),
        cells=(("x/a", "x/b", False),),
    ),
    "a CIDR that another one excepts": (
        Step(
            (Probe((("x/a", "x/b", False),)),),
            (to_block(cidr="10.0.0.0/8", **{"except": [f"{address('x/b')}/32"]}),),
        ),
        Step(
            (Probe((("x/a", ANY, False), ("x/a", "x/b", True))),),
            (to_block(cidr=f"{address('x/b')}/32"),),
        ),
    ),
    "ingress and egress are independent": (
        Step((Probe(),), (egress("out", {}, of=A),)),
        Step((Probe((NONE_TO_XA,)),), (ingress("in", of=A),)),
    ),
    "SCTP is not TCP": one(
        ingress("deny"),
        ingress("sctp", {"ports": [port(81, "SCTP")]}, of=A),
        cells=((ANY, "x/*", False),),
        port=81,
    ),
    "SCTP isolates from TCP": one(
        ingress("sctp", {"ports": [port(80, "SCTP")]}, of=A), cells=(NONE_TO_XA,), port=81
    ),
    "UDP is not TCP": one(
        ingress("udp", {"ports": [port(81, "UDP")]}, of=A), cells=(NONE_TO_XA,), port=81
    ),
    "the namespace's own name as label": one(
        ingress("from-y", whence({"namespaceSelector": Y}), of=A), cells=ONLY_Y_TO_XA
    ),
    "the namespace's own name in an expression": one(
        egress("not-y", {"to": [{"namespaceSelector": expression(NAMESPACE, "NotIn", "y")}]}, of=A),
        cells=(("x/a", "y/*", False),),
    ),
}
for _protocol in ("UDP", "SCTP"):
    CASES |= {
        f"{_protocol}: default-deny-ingress": one(
            ingress("deny"), cells=((ANY, "x/*", False),), protocol=_protocol
        ),
        f"{_protocol}: by port": one(
            ports_from_y(_protocol), cells=ONLY_Y_TO_XA, port=81, protocol=_protocol
        ),
        f"{_protocol}: one Pod of another namespace": one(
            ingress("from-ya", ONLY_YA, of=A),
            cells=(NONE_TO_XA, ("y/a", "x/a", True)),
            protocol=_protocol,
        ),
    }


@pytest.mark.parametrize("name", CASES)
def test_truth_table(name: str) -> None:
    reported: dict[str, str] = {}
    cluster = Cluster([])
    cluster.apply(*(namespace(ns, ns=ns) for ns in "xyz"))
    for number, step in enumerate(CASES[name]):
        began = NOW + number * 10_000
        reported |= step.labels
        cluster.pods = [_pod(pod, reported.get(pod)) for pod in NAMES]
        cluster.apply(*step.objects, now_ms=began)
        for item in step.gone:
            cluster.policies.delete(item, began)
        for probe in step.probes:
            _check(cluster, probe, began + 1)


def _pod(name: str, reported: str | None) -> Pod:
    ns, pod = name.split("/")
    return Pod(ns, pod, address(name), reported or labels(pod=pod), named_ports=PORTS)


def _check(cluster: Cluster, probe: Probe, start_ms: int) -> None:
    pairs = [(one, other) for one, other in product(NAMES, NAMES) if one != other]
    rows = cluster.decide([Connection(*p, probe.port, probe.protocol, start_ms) for p in pairs])
    wrong = {
        pair: row
        for pair, row in zip(pairs, rows, strict=True)
        if passes(row) != probe.expected(*pair)
    }
    assert not wrong, probe
