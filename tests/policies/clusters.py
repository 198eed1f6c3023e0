"""Any policies, and any Pods that they may be about: clusters for property tests."""

from itertools import product
from typing import Any

from hypothesis import strategies as st

from policies.cluster import (
    Pod,
    admin_policy,
    antrea,
    labels,
    namespace,
    network_policy,
    service,
)

NAMESPACES = ("x", "y")
VALUES = st.sampled_from(["1", "2"])
SPACES = st.sampled_from(NAMESPACES)
KEYS = st.sampled_from(["app", "tier"])
NAMES = st.sampled_from(["web", "dns"])
PORTS = (80, 81, 5353)
OUTSIDE = ("192.0.2.1", "198.51.100.9", "2001:db8::7")
CIDRS = st.sampled_from(
    ["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.1.0/30", "192.0.2.0/24", "2001:db8::/64"]
)
PARTS = {
    "0.0.0.0/0": ["10.0.0.0/8", "192.0.2.0/31"],
    "::/0": ["2001:db8::/48"],
    "10.0.0.0/8": ["10.0.1.0/31", "10.0.0.0/16"],
}


def optional(**items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=items)


def some(items: st.SearchStrategy[Any], least: int = 0, most: int = 2) -> st.SearchStrategy[Any]:
    return st.lists(items, min_size=least, max_size=most)


def one_key(**items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*(st.fixed_dictionaries({key: value}) for key, value in items.items()))


@st.composite
def expressions(draw: Any) -> Any:
    operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
    found = {"key": draw(KEYS), "operator": operator}
    if operator in {"In", "NotIn"}:
        found["values"] = draw(st.lists(VALUES, min_size=1, max_size=2))
    return found


SELECTORS = optional(
    matchLabels=st.dictionaries(KEYS, VALUES, max_size=1),
    matchExpressions=some(expressions(), most=1),
)


@st.composite
def blocks(draw: Any) -> Any:
    cidr = draw(CIDRS)
    parts = draw(st.lists(st.sampled_from(PARTS.get(cidr, [cidr])), max_size=2))
    return {"cidr": cidr, "except": parts} if parts else {"cidr": cidr}


@st.composite
def ports(draw: Any) -> Any:
    found = draw(optional(protocol=st.sampled_from(["TCP", "UDP", "SCTP"])))
    port = draw(st.one_of(st.none(), NAMES, st.sampled_from(PORTS)))
    if port is not None:
        found["port"] = port
    if isinstance(port, int) and draw(st.booleans()):
        found["endPort"] = port + draw(st.sampled_from([1, 6000]))
    return found


@st.composite
def antrea_ports(draw: Any) -> Any:
    found = draw(ports())
    return found | {"sourcePort": 1024} if draw(st.booleans()) and "endPort" in found else found


@st.composite
def network_policies(draw: Any) -> Any:
    selectors = st.fixed_dictionaries({"podSelector": SELECTORS}) | st.fixed_dictionaries(
        {"namespaceSelector": SELECTORS}, optional={"podSelector": SELECTORS}
    )
    peers = some(selectors | st.fixed_dictionaries({"ipBlock": blocks()}))
    spec = draw(
        st.fixed_dictionaries(
            {"podSelector": SELECTORS},
            optional={
                "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
                "ingress": some(optional(**{"from": peers, "ports": some(ports())})),
                "egress": some(optional(to=peers, ports=some(ports()))),
            },
        )
    )
    return network_policy(draw(st.sampled_from("abc")), draw(st.sampled_from(NAMESPACES)), **spec)


PODS = st.fixed_dictionaries({"namespaceSelector": SELECTORS, "podSelector": SELECTORS})
CHOSEN = {"namespaces": SELECTORS, "pods": PODS}
OLDER = one_key(
    namespaceSelector=SELECTORS,
    sameLabels=some(KEYS),
    notSameLabels=some(KEYS),
)
OLDER_CHOSEN = {
    "namespaces": OLDER,
    "pods": st.fixed_dictionaries({"namespaces": OLDER, "podSelector": SELECTORS}),
}
"""As network-policy-api had it until v0.1.1."""
CHOSEN_OUT = CHOSEN | {
    "networks": st.lists(CIDRS, min_size=1, max_size=2),
    "nodes": SELECTORS,
    "domainNames": st.just(["example.org"]),
}
NUMBERED = one_key(number=st.sampled_from(PORTS), range=st.just({"start": 80, "end": 1000}))
PROTOCOLS = one_key(
    **dict.fromkeys(("tcp", "udp", "sctp"), st.fixed_dictionaries({"destinationPort": NUMBERED})),
    destinationNamedPort=NAMES,
)
NAMED = st.sampled_from(["TCP", "UDP", "SCTP"])
OLD_PORTS = one_key(
    portNumber=st.fixed_dictionaries({"protocol": NAMED, "port": st.sampled_from(PORTS)}),
    portRange=st.fixed_dictionaries(
        {"protocol": NAMED, "start": st.just(80), "end": st.just(1000)}
    ),
    namedPort=NAMES,
)


@st.composite
def admin_policies(draw: Any) -> Any:
    kind = draw(
        st.sampled_from(
            ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"]
        )
    )
    newer = kind == "ClusterNetworkPolicy"
    actions = ["Accept", "Deny", "Pass"] if newer else ["Allow", "Deny", "Pass"]
    services = {"protocols": some(PROTOCOLS)} if newer else {"ports": some(OLD_PORTS)}
    older = not newer and draw(st.booleans())

    def rules(side: str, peers: Any) -> Any:
        needed = {"action": st.sampled_from(actions), side: some(one_key(**peers), 1)}
        return some(
            st.fixed_dictionaries(needed, optional=services | {"name": st.sampled_from("rs")})
        )

    spec = draw(
        st.fixed_dictionaries(
            {
                "subject": one_key(**CHOSEN),
                "ingress": rules("from", OLDER_CHOSEN if older else CHOSEN),
                "egress": rules("to", OLDER_CHOSEN if older else CHOSEN_OUT),
                "priority": st.integers(0, 2),
            }
        )
    )
    if kind == "BaselineAdminNetworkPolicy":
        del spec["priority"]  # there is only one
    if newer:
        spec["tier"] = draw(st.sampled_from(["Admin", "Baseline"]))
    return admin_policy(kind, draw(st.sampled_from("de")), **spec)


ACCOUNTS = st.fixed_dictionaries(
    {"namespace": st.sampled_from(NAMESPACES), "name": st.sampled_from(["default", "robot"])}
)
BY_LABELS = st.fixed_dictionaries({"podSelector": SELECTORS}) | st.fixed_dictionaries(
    {"namespaceSelector": SELECTORS}, optional={"podSelector": SELECTORS}
)
RELATED = st.fixed_dictionaries(
    {
        "namespaces": st.just({"match": "Self"})
        | st.fixed_dictionaries({"sameLabels": st.lists(KEYS, min_size=1, max_size=2)})
    },
    optional={"podSelector": SELECTORS},
)
GROUPS = st.fixed_dictionaries({"group": st.sampled_from(["g", "h", "missing"])})


@st.composite
def antrea_policies(draw: Any) -> Any:
    wide = draw(st.booleans())
    subjects = BY_LABELS | GROUPS
    peers = subjects | st.fixed_dictionaries({"ipBlock": blocks()})
    if wide:
        subjects |= st.fixed_dictionaries({"serviceAccount": ACCOUNTS})
        peers |= RELATED | st.fixed_dictionaries({"serviceAccount": ACCOUNTS})
        peers |= st.fixed_dictionaries({"nodeSelector": SELECTORS})
    out = peers | st.just({"fqdn": "*.example.org"})

    def rules(side: str, choices: Any) -> Any:
        return some(
            st.fixed_dictionaries(
                {"action": st.sampled_from(["Allow", "Drop", "Reject", "Pass"])},
                optional={
                    "name": st.sampled_from("tu"),
                    side: some(choices),
                    "ports": some(antrea_ports()),
                    "protocols": some(
                        st.sampled_from([{"icmp": {}}, {"icmp": {"icmpType": 8}}, {"igmp": {}}]),
                        most=1,
                    ),
                    "appliedTo": some(subjects, most=1),
                },
            )
        )

    spec = draw(
        st.fixed_dictionaries(
            {
                "priority": st.sampled_from([1, 5.5, 9]),
                "ingress": rules("from", peers),
                "egress": rules("to", out),
            },
            optional={
                "appliedTo": some(subjects, 1),
                "tier": st.sampled_from(["emergency", "application", "baseline", "mine"]),
            },
        )
    )
    name = draw(st.sampled_from("fg"))
    if wide:
        return antrea("ClusterNetworkPolicy", name, **spec)
    return antrea("NetworkPolicy", name, draw(st.sampled_from(NAMESPACES)), **spec)


@st.composite
def groups(draw: Any) -> Any:
    name = draw(st.sampled_from("gh"))
    spec = draw(
        BY_LABELS
        | st.fixed_dictionaries({"ipBlocks": st.lists(blocks(), min_size=1, max_size=2)})
        | st.builds(lambda space: {"serviceReference": {"namespace": space, "name": "s"}}, SPACES)
        | (st.just({"childGroups": ["h"]}) if name == "g" else st.nothing())
    )
    if draw(st.booleans()):
        return antrea("ClusterGroup", name, **spec)
    return antrea("Group", name, draw(st.sampled_from(NAMESPACES)), **spec)


TIERS = st.integers(1, 249).map(lambda number: antrea("Tier", "mine", priority=number))
NODE = {
    "kind": "Node",
    "metadata": {"name": "node-1", "labels": {"app": "1"}},
    "status": {"addresses": [{"type": "InternalIP", "address": OUTSIDE[0]}]},
}


@st.composite
def clusters(draw: Any) -> Any:
    spaces = [namespace(name, **draw(st.dictionaries(KEYS, VALUES))) for name in NAMESPACES]
    objects = draw(st.lists(network_policies() | admin_policies() | antrea_policies(), max_size=6))
    services = [service("s", name, **draw(st.dictionaries(KEYS, VALUES))) for name in NAMESPACES]
    others = [draw(TIERS), NODE, *services, *draw(some(groups(), most=3))]
    return list({_key(item): item for item in (*spaces, *others, *objects)}.values())


def _key(item: Any) -> Any:
    metadata = item["metadata"]
    group = item.get("apiVersion", "").partition("/")[0]
    return metadata.get("namespace"), metadata["name"], item["kind"], group


NAMED_PORTS = [
    (),
    (("web", 6, 80),),
    (("dns", 17, 5353),),
    (("web", 6, 81), ("web", 6, 80), ("web", 17, 80)),
]


@st.composite
def pods(draw: Any) -> list[Pod]:
    ip = {"x": "10.0.0", "y": "10.0.1"}
    return [
        Pod(
            space,
            f"p{n}",
            f"{ip[space]}.{n}",
            labels(**draw(st.dictionaries(KEYS, VALUES))),
            service_account=draw(st.sampled_from(["default", "robot"])),
            node=f"node-{n}",
            named_ports=draw(st.sampled_from(NAMED_PORTS)),
        )
        for space, n in product(NAMESPACES, (0, 1))
    ]


SERVICES = [(6, 80), (6, 81), (6, 6000), (17, 5353), (17, 80), (132, 80), (1, 0), (2, 0)]
