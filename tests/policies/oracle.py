"""The obvious evaluator: one connection at a time, straight from the objects and the API's words.

It shares nothing with the package but the numbers of types and actions.
"""

import json
from collections.abc import Iterator, Mapping
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
    def __init__(self, objects: list[Any]) -> None:
        self._objects = objects
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
        service = protocol, port, destination
        found = self._tiers(direction, subject, peer, service, range(253))
        if found == NOTHING:
            found = self._standard(direction, subject, peer, service)
        if found == NOTHING:
            found = self._tiers(direction, subject, peer, service, range(253, 999))
        return found

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
        side = "from" if direction == "ingress" else "to"
        for policy in isolating:
            namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
            for place, rule in enumerate(policy["spec"].get(direction, [])):
                peers = rule.get(side)
                if peers and not any(self._is_peer(p, namespace, peer) for p in peers):
                    continue
                if rule.get("ports") and not any(_serves(p, service) for p in rule["ports"]):
                    continue
                return Verdict(name, namespace, 1, f"{direction}[{place}]", 1)
        if isolating:
            metadata = isolating[0]["metadata"]
            return Verdict(metadata["name"], metadata["namespace"], 1, "", 2)
        return NOTHING

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
        ordered = sorted(
            (p for p in self._tiered() if p[0] in tiers),
            key=lambda p: (p[0], p[1], p[2]["metadata"].get("namespace", ""), _name(p[2])),
        )
        for _, _, policy in ordered:
            for place, rule in enumerate(policy["spec"].get(direction, [])):
                if not self._applies(policy, rule, subject):
                    continue
                if not _rule_serves(rule, service):
                    continue
                fits = self._rule_fits(policy, rule, direction, subject, peer)
                if fits is False:
                    continue
                if fits is None:
                    return UNKNOWN
                if rule["action"] == "Pass":
                    return NOTHING
                return Verdict(
                    _name(policy),
                    policy["metadata"].get("namespace", ""),
                    _type(policy),
                    rule.get("name") or f"{direction}[{place}]",
                    ACTIONS[rule["action"]],
                )
        return NOTHING

    def _tiered(self) -> Iterator[tuple[int, float, Any]]:
        tiers = DEFAULT_TIERS | {_name(o): o["spec"]["priority"] for o in self._of("Tier")}
        for policy in self._objects:
            spec = policy.get("spec", {})
            match policy["kind"], policy.get("apiVersion", "").partition("/")[0]:
                case "AdminNetworkPolicy", _:
                    yield 251, spec["priority"], policy
                case "BaselineAdminNetworkPolicy", _:
                    yield 254, 0, policy
                case "ClusterNetworkPolicy", "policy.networking.k8s.io":
                    yield {"Admin": 220, "Baseline": 254}[spec["tier"]], spec["priority"], policy
                case "NetworkPolicy" | "ClusterNetworkPolicy", "crd.antrea.io":
                    yield tiers[spec.get("tier", "application")], spec["priority"], policy

    def _applies(self, policy: Object, rule: Object, subject: Pod) -> bool:
        if _type(policy) == 4:
            return self._is_chosen(policy["spec"]["subject"], subject) is True
        choices = rule.get("appliedTo") or policy["spec"].get("appliedTo") or []
        namespace = policy["metadata"].get("namespace", "")
        return any(
            self._is_antrea_peer(choice, namespace, subject, subject) is True for choice in choices
        )

    def _rule_fits(
        self, policy: Object, rule: Object, direction: str, subject: Pod, peer: End
    ) -> bool | None:
        peers = rule.get("from" if direction == "ingress" else "to", [])
        if _type(policy) == 4:
            answers = [self._is_chosen(choice, peer) for choice in peers]
        else:
            namespace = policy["metadata"].get("namespace", "")
            answers = [self._is_antrea_peer(c, namespace, subject, peer) for c in peers]
            answers = answers or [True]
        if True in answers:
            return True
        return None if None in answers else False

    def _is_chosen(self, choice: Object, end: End) -> bool | None:
        if "networks" in choice:
            return any(in_block({"cidr": cidr}, end) for cidr in choice["networks"])
        if "domainNames" in choice:
            return None
        if "nodes" in choice:
            return self._on_node(choice["nodes"], end)
        if not isinstance(end, Pod):
            return False
        namespace = self._labels_of(end.namespace)
        if "namespaces" in choice:
            return selects(choice["namespaces"], namespace)
        pods = choice["pods"]
        return selects(pods["namespaceSelector"], namespace) and selects(
            pods["podSelector"], _labels(end)
        )

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
        kind = "Group" if namespace else "ClusterGroup"
        for group in self._of(kind):
            if _name(group) == name and group["metadata"].get("namespace", "") == namespace:
                spec = group["spec"]
                if "ipBlocks" in spec:
                    return any(in_block(block, end) for block in spec["ipBlocks"])
                if "childGroups" in spec:
                    return any(self._in_group(c, namespace, end) for c in spec["childGroups"])
                if not isinstance(end, Pod):
                    return False
                return bool(self._is_antrea_peer(spec, namespace, end, end))
        return False

    def _labels_of(self, namespace: str) -> Mapping[str, str]:
        return self._namespaces.get(namespace, {"kubernetes.io/metadata.name": namespace})


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


def _rule_serves(rule: Object, service: Any) -> bool:
    ports, protocols = rule.get("ports", []), rule.get("protocols", [])
    if not ports and not protocols:
        return True
    return any(_serves(port, service) for port in ports) or any(
        _protocol_serves(protocol, service) for protocol in protocols
    )


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
        return own and _is_named(wanted, *service)
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
    return number == port.get("number", number)


def _is_named(name: str, protocol: int, number: int, destination: End) -> bool:
    return isinstance(destination, Pod) and (name, protocol, number) in destination.named_ports


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
