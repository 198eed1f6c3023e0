"""The obvious evaluator: one connection at a time, straight from the objects and the API's words.

It shares nothing with the package but the numbers of types and actions.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from policies.cluster import NOTHING, Pod, Verdict

UNKNOWN = None
DEFAULT_TIERS = {
    "emergency": 50,
    "securityops": 100,
    "networkops": 150,
    "platform": 200,
    "application": 250,
    "baseline": 253,
}
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
ACTIONS = {"Allow": 1, "Accept": 1, "Drop": 2, "Deny": 2, "Reject": 3}
End = Pod | str
Object = Mapping[str, Any]


class Oracle:
    def __init__(self, objects: list[Any], pods: Iterable[Pod] = ()) -> None:
        self._objects = objects
        self._pods = list(pods)
        self._namespaces = {
            o["metadata"]["name"]: o["metadata"]["labels"] for o in self._of("Namespace")
        }

    def verdict(
        self, direction: str, source: End, destination: End, protocol: int, port: int
    ) -> Verdict | None:
        """Return the verdict; UNKNOWN where the objects do not tell."""
        subject, peer = (source, destination) if direction == "egress" else (destination, source)
        if not isinstance(subject, Pod) or _address(source) == _address(destination):
            return NOTHING
        if direction == "ingress" and self._runs_on(subject, peer):
            return NOTHING
        service = protocol, port, destination
        found = self._tiers(direction, subject, peer, service, range(253))
        if found == NOTHING:
            found = self._standard(direction, subject, peer, service)
            if found != NOTHING and self._runs_on(subject, peer):
                return NOTHING
        if found == NOTHING:
            found = self._tiers(direction, subject, peer, service, range(253, 999))
        return found

    def matches(
        self, which: tuple[str, str, str, int], place: int, direction: str, ends: Any, service: Any
    ) -> bool | None:
        """Whether a rule matches, as if it were the only one; `which`: kind, namespace, name, type.

        `ends` are source and destination, `service` protocol and port.
        """
        (policy,) = [
            o
            for o in self._objects
            if (o["kind"], o["metadata"].get("namespace", ""), _name(o)) == which[:3]
            and (o["apiVersion"] == "networking.k8s.io/v1") == (which[3] == 1)
            and (o["apiVersion"].startswith("policy.")) == (which[3] == 4)
        ]
        rule = policy["spec"][direction][place]
        subject, peer = ends if direction == "egress" else reversed(ends)
        called = (*service, ends[1])
        if which[3] == 1:
            return self._standard_matches(which[1], rule, direction, peer, called)
        return self._rule_matches(policy, rule, direction, (subject, peer), called)

    def _runs_on(self, pod: Pod, end: End) -> bool:
        """Whether an address is one of the node of a Pod."""
        return isinstance(end, str) and any(
            _name(node) == pod.node and ip_address(entry["address"]) == ip_address(end)
            for node in self._of("Node")
            for entry in node["status"]["addresses"]
        )

    def _of(self, kind: str, group: str = "") -> list[Any]:
        return [
            o
            for o in self._objects
            if o["kind"] == kind and o.get("apiVersion", "").startswith(group)
        ]

    # Kubernetes NetworkPolicies

    def _standard(self, direction: str, subject: Pod, peer: End, service: Any) -> Verdict:
        isolating = []
        for policy in self._of("NetworkPolicy", "networking.k8s.io"):
            spec, metadata = policy["spec"], policy["metadata"]
            types = spec.get("policyTypes")
            if types is None:
                types = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
            own = metadata["namespace"] == subject.namespace
            if own and direction.capitalize() in types:
                isolating += [policy] if selects(spec["podSelector"], _labels(subject)) else []
        isolating.sort(key=lambda p: p["metadata"]["name"])
        for policy in isolating:
            namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
            for place, rule in enumerate(policy["spec"].get(direction, [])):
                if self._standard_matches(namespace, rule, direction, peer, service):
                    return Verdict(name, namespace, 1, f"{direction}[{place}]", 1)
        if isolating:
            metadata = isolating[0]["metadata"]
            return Verdict(metadata["name"], metadata["namespace"], 1, "", 2)
        return NOTHING

    def _standard_matches(
        self, namespace: str, rule: Object, direction: str, peer: End, service: Any
    ) -> bool:
        peers = rule.get("from" if direction == "ingress" else "to")
        if peers and not any(self._is_peer(p, namespace, peer) for p in peers):
            return False
        return not rule.get("ports") or any(_serves(p, service) for p in rule["ports"])

    def _is_peer(self, choice: Object, namespace: str, peer: End) -> bool:
        if "ipBlock" in choice:
            return in_block(choice["ipBlock"], peer)
        if not isinstance(peer, Pod):
            return False
        if "namespaceSelector" in choice:
            if not selects(choice["namespaceSelector"], self._labels_of(peer.namespace)):
                return False
        elif peer.namespace != namespace:
            return False
        return selects(choice.get("podSelector", {}), _labels(peer))

    # Tiers: Antrea's policies and the cluster-wide ones of Kubernetes

    def _tiers(
        self, direction: str, subject: Pod, peer: End, service: Any, tiers: range
    ) -> Verdict | None:
        ordered = [
            (tier, priority, place, policy["metadata"].get("namespace", ""), _name(policy), policy)
            for tier, priority, policy in self._tiered()
            if tier in tiers
            for place in range(len(policy["spec"].get(direction, [])))
        ]
        for _, _, place, namespace, name, policy in sorted(ordered, key=lambda found: found[:5]):
            rule = policy["spec"][direction][place]
            if not self._applies(policy, rule, subject):
                continue
            fits = self._rule_matches(policy, rule, direction, (subject, peer), service)
            if fits is False:
                continue
            if fits is None:
                return UNKNOWN
            if rule["action"] == "Pass":
                return NOTHING
            return Verdict(
                name,
                namespace,
                _type(policy),
                rule.get("name") or f"{direction}[{place}]",
                ACTIONS[rule["action"]],
            )
        return NOTHING

    def _rule_matches(
        self, policy: Object, rule: Object, direction: str, endpoints: tuple[Pod, End], service: Any
    ) -> bool | None:
        """Go through all pairs of a peer and a port of a rule."""
        subject, peer = endpoints
        namespace = policy["metadata"].get("namespace", "")
        admin = _type(policy) == 4
        answers = set()
        for choice in rule.get("from" if direction == "ingress" else "to", []) or [{}]:
            if admin:
                fits = self._is_chosen(choice, peer, subject)
            else:
                fits = choice == {} or self._is_antrea_peer(choice, namespace, subject, peer)
            for port in [*rule.get("ports", []), *rule.get("protocols", [])] or [None]:
                both = {fits, True if port is None else _entry_serves(port, service)}
                if not admin and direction == "egress" and _has_name(port):
                    both.add(self._is_pod_of(choice, namespace, peer))
                if False not in both:
                    answers.add(None if None in both else True)
        return True if True in answers else None if answers else False

    def _is_pod_of(self, choice: Object, namespace: str, peer: End) -> bool:
        """Whether a peer that fits a choice of Antrea is there as a Pod, which has named ports."""
        if "group" in choice:
            specs = self._leaves(choice["group"], namespace)
            return any(
                "ipBlocks" not in spec and self._is_member(spec, namespace, peer) for spec in specs
            )
        return not {"ipBlock", "fqdn", "nodeSelector"} & set(choice)

    def _leaves(self, name: str, namespace: str) -> Iterator[Any]:
        """Go through the specs of a group and those below it that have no child groups."""
        for group in self._of("Group" if namespace else "ClusterGroup"):
            if _name(group) == name and group["metadata"].get("namespace", "") == namespace:
                if "childGroups" not in group["spec"]:
                    yield group["spec"]
                for child in group["spec"].get("childGroups", []):
                    yield from self._leaves(child, namespace)

    def _tiered(self) -> Iterator[tuple[int, float, Any]]:
        tiers = DEFAULT_TIERS | {_name(o): o["spec"]["priority"] for o in self._of("Tier")}
        for policy in self._objects:
            spec = policy.get("spec", {})
            match policy["kind"], policy.get("apiVersion", "").partition("/")[0]:
                case "AdminNetworkPolicy", _:
                    yield 251, spec["priority"], policy
                case "BaselineAdminNetworkPolicy", _:
                    yield 254, 1, policy
                case "ClusterNetworkPolicy", "policy.networking.k8s.io":
                    yield {"Admin": 220, "Baseline": 254}[spec["tier"]], spec["priority"], policy
                case "NetworkPolicy" | "ClusterNetworkPolicy", "crd.antrea.io":
                    yield tiers[spec.get("tier", "application")], spec["priority"], policy

    def _applies(self, policy: Object, rule: Object, subject: Pod) -> bool:
        if _type(policy) == 4:
            return self._is_chosen(policy["spec"]["subject"], subject, subject) is True
        choices = rule.get("appliedTo") or policy["spec"].get("appliedTo") or []
        namespace = policy["metadata"].get("namespace", "")
        return any(self._is_applied_to(choice, namespace, subject) for choice in choices)

    def _is_applied_to(self, choice: Object, namespace: str, subject: Pod) -> bool:
        if "group" not in choice:
            return self._is_antrea_peer(choice, namespace, subject, subject) is True
        specs = [
            spec for spec in self._leaves(choice["group"], namespace) if "ipBlocks" not in spec
        ]
        if namespace and any(
            self._is_member(spec, namespace, pod)
            for spec in specs
            for pod in self._pods
            if pod.namespace != namespace
        ):
            return False
        return any(self._is_member(spec, namespace, subject) for spec in specs)

    def _is_chosen(self, choice: Object, end: End, subject: Pod) -> bool | None:
        if "networks" in choice:
            return any(in_block({"cidr": cidr}, end) for cidr in choice["networks"])
        if "domainNames" in choice:
            return None
        if "nodes" in choice:
            return self._on_node(choice["nodes"], end)
        if not isinstance(end, Pod):
            return False
        if "namespaces" in choice:
            return self._is_in(choice["namespaces"], end, subject)
        pods = choice["pods"]
        namespaces = pods.get("namespaceSelector", pods.get("namespaces"))
        return self._is_in(namespaces, end, subject) and selects(pods["podSelector"], _labels(end))

    def _is_in(self, choice: Object, end: Pod, subject: Pod) -> bool:
        """Whether a Pod's namespace is chosen, in the older form or the newer one."""
        theirs, mine = self._labels_of(end.namespace), self._labels_of(subject.namespace)
        match choice:
            case {"namespaceSelector": selector}:
                return selects(selector, theirs)
            case {"sameLabels": keys}:
                return bool(keys) and all(k in theirs and theirs[k] == mine.get(k) for k in keys)
            case {"notSameLabels": keys}:
                both = all(k in theirs and k in mine for k in keys)
                return both and any(theirs[k] != mine[k] for k in keys)
        return selects(choice, theirs)

    def _on_node(self, selector: Object, end: End) -> bool:
        if isinstance(end, Pod):
            return False
        return any(
            selects(selector, node["metadata"]["labels"])
            and ip_address(entry["address"]) == ip_address(end)
            for node in self._of("Node")
            for entry in node["status"]["addresses"]
        )

    def _is_antrea_peer(
        self, choice: Object, namespace: str, subject: Pod, end: End
    ) -> bool | None:
        match choice:
            case {"group": name}:
                return self._in_group(name, namespace, end)
            case {"ipBlock": block}:
                return in_block(block, end)
            case {"fqdn": _}:
                return None
            case {"nodeSelector": selector}:
                return self._on_node(selector, end)
        return isinstance(end, Pod) and self._is_antrea_pod(choice, namespace, subject, end)

    def _is_antrea_pod(self, choice: Object, namespace: str, subject: Pod, end: Pod) -> bool:
        if "serviceAccount" in choice:
            account = choice["serviceAccount"]
            return (account["namespace"], account["name"]) == (end.namespace, end.service_account)
        if "namespaces" in choice:
            mine, theirs = self._labels_of(subject.namespace), self._labels_of(end.namespace)
            if choice["namespaces"].get("match") == "Self":
                near = subject.namespace == end.namespace
            else:
                keys = choice["namespaces"]["sameLabels"]
                near = all(k in mine and k in theirs and mine[k] == theirs[k] for k in keys)
        elif "namespaceSelector" in choice:
            near = selects(choice["namespaceSelector"], self._labels_of(end.namespace))
        else:
            near = namespace in {"", end.namespace}
        return near and selects(choice.get("podSelector", {}), _labels(end))

    def _in_group(self, name: str, namespace: str, end: End) -> bool | None:
        return any(self._is_member(spec, namespace, end) for spec in self._leaves(name, namespace))

    def _is_member(self, spec: Object, namespace: str, end: End) -> bool:
        if "ipBlocks" in spec:
            return any(in_block(block, end) for block in spec["ipBlocks"])
        if not isinstance(end, Pod):
            return False
        if "serviceReference" in spec:
            wanted = spec["serviceReference"]
            return any(
                (o["metadata"]["namespace"], _name(o)) == (wanted["namespace"], wanted["name"])
                and end.namespace == wanted["namespace"]
                and bool(o["spec"].get("selector"))
                and selects({"matchLabels": o["spec"]["selector"]}, _labels(end))
                for o in self._of("Service")
            )
        return self._is_antrea_peer(spec, namespace, end, end) is True

    def _labels_of(self, namespace: str) -> Mapping[str, str]:
        bare = {"kubernetes.io/metadata.name": namespace}
        return dict(self._namespaces.get(namespace, bare))


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        key, operator = expression["key"], expression["operator"]
        if operator == "In" and not (key in labels and labels[key] in expression["values"]):
            return False
        if operator == "NotIn" and key in labels and labels[key] in expression["values"]:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def in_block(block: Object, end: End) -> bool:
    address = _address(end)
    network = ip_network(block["cidr"])
    if address not in network:
        return False
    return not any(address in ip_network(part) for part in block.get("except", []))


def _has_name(port: Object | None) -> bool:
    return port is not None and isinstance(port.get("port"), str)


def _entry_serves(port: Object, service: Any) -> bool | None:
    inner = {"icmp", "igmp", "destinationNamedPort", "tcp", "udp", "sctp"} & set(port)
    serves = _protocol_serves(port, service) if inner else _serves(port, service)
    asks_more = "sourcePort" in port or "icmpType" in port.get("icmp", {})
    return None if serves and asks_more else serves


def _serves(port: Object, service: Any) -> bool:
    protocol, number, _ = service
    match port:
        case {"namedPort": str(name)}:
            return _is_named(name, *service)
        case {"portNumber": only}:
            return (protocol, number) == (PROTOCOLS[only["protocol"]], only["port"])
        case {"portRange": span}:
            own = protocol == PROTOCOLS[span["protocol"]]
            return bool(own and span["start"] <= number <= span["end"])
    own = protocol == PROTOCOLS[port.get("protocol", "TCP")]
    wanted = port.get("port", number)
    if isinstance(wanted, str):
        return own and _is_named(wanted, *service, of=protocol)
    return bool(own and wanted <= number <= port.get("endPort", wanted))


def _protocol_serves(match: Object, service: Any) -> bool:
    protocol, number, _ = service
    if "icmp" in match:
        return protocol in {1, 58}
    if "igmp" in match:
        return bool(protocol == 2)
    if "destinationNamedPort" in match:
        return _is_named(match["destinationNamedPort"], *service)
    ((name, inner),) = match.items()
    if protocol != PROTOCOLS[name.upper()]:
        return False
    port = inner.get("destinationPort", {})
    if "range" in port:
        return bool(port["range"]["start"] <= number <= port["range"]["end"])
    return bool(number == port.get("number", number))


def _is_named(
    name: str, protocol: int, number: int, destination: End, *, of: int | None = None
) -> bool:
    """Whether the first port of that name, of a protocol if `of` says which, is the one called."""
    if not isinstance(destination, Pod):
        return False
    named = [own for own in destination.named_ports if own[0] == name and of in {None, own[1]}]
    return bool(named) and named[0][1:] == (protocol, number)


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _type(policy: Object) -> int:
    if policy["apiVersion"].startswith("policy.networking"):
        return 4
    return 2 if policy["kind"] == "NetworkPolicy" else 3


def _labels(pod: Pod) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(pod.labels)
    return found


def _address(end: End) -> IPv4Address | IPv6Address:
    return ip_address(end.address if isinstance(end, Pod) else end)
