"""Made-up connections of the last days, with everything that panels tell apart."""

import random
from collections import Counter
from typing import Any

Row = dict[str, Any]
PODS = [
    ("shop", "cart", "cart-0", "n1"), ("shop", "cart", "cart-1", "n2"),
    ("shop", "orders", "orders-0", "n1"), ("bank", "api", "api-0", "n3"),
    ("bank", "", "bare", "n3"), ("kube-system", "dns", "dns-0", "n2"),
]  # fmt: skip
OUTSIDE = ["203.0.113.9", "203.0.113.200", "198.51.100.7", "2001:db8:1:2::3"]
POLICIES = [(1, "shop", "allow-web", ""), (2, "bank", "deny", "r-1"), (3, "", "baseline", "drop")]


def connections(count: int, seed: int, begin_s: int, end_s: int) -> list[Row]:
    """Intervals of connections whose records end in a span, at random."""
    dice = random.Random(seed)
    found: list[Row] = []
    while len(found) < count:
        start, port = dice.randrange(begin_s, end_s - 300), dice.randrange(1024, 60_000)
        what = dice.choice(["inside", "inside", "service", "out", "in", "node"])
        source = None if what == "in" else dice.choice(PODS)
        target = None if what in {"out", "node"} else dice.choice(PODS)
        verdicts = {"ingress": dice.choice([0, 1, 1, 2, 4]), "egress": dice.choice([0, 0, 1, 3])}
        denied = {2, 3} & set(verdicts.values())
        before = Counter[str]()
        for nth in range(1 if denied else dice.choice([1, 2, 4])):
            began, end = start + nth * 60, start + nth * 60 + dice.randrange(1, 60)
            grown = {name: dice.choice([40, 1500, 2**31]) for name in ("octet", "reverseOctet")}
            if denied or not dice.randrange(6):
                grown["reverseOctet"] = 0
            packets = {"packet": grown["octet"] // 40, "reversePacket": grown["reverseOctet"] // 40}
            before.update(grown | packets)
            found.append(
                {
                    "clusterId": f"c{port % 3 // 2}",
                    "flowStartSeconds": start,
                    "flowEndSeconds": end,
                    "monitoringIntervalStartMilliSeconds": began * 1000 + (0 if nth else 250),
                    "flowEndReason": dice.choice([2, 3]),
                    "sourceIP": f"10.0.0.{PODS.index(source)}" if source else dice.choice(OUTSIDE),
                    "destinationIP": f"10.0.0.{PODS.index(target)}"
                    if target
                    else "192.0.2.1" if what == "node" else dice.choice(OUTSIDE),
                    "sourceTransportPort": port,
                    "destinationTransportPort": dice.choice([80, 443]),
                    "protocolIdentifier": dice.choice([6, 17]),
                    **_end("source", source, ""),
                    **_end("destination", target, "n1" if what == "node" else ""),
                    "destinationServicePortName": "shop/web:http" if what == "service" else "",
                    "flowType": {"out": 3, "in": 4}.get(what, 2 if port % 2 else 1),
                    **_decided("ingress", verdicts["ingress"], dice),
                    **_decided("egress", verdicts["egress"], dice),
                    "throughput": dice.randrange(10**9),
                    **{f"{name}DeltaCount": value for name, value in (grown | packets).items()},
                    **{f"{name}TotalCount": before[name] for name in (*grown, *packets)},
                }
            )  # fmt: skip
    return found


def _end(side: str, pod: tuple[str, str, str, str] | None, node: str) -> Row:
    namespace, workload, name, its_node = pod or ("", "", "", node)
    return {
        f"{side}PodNamespace": namespace,
        f"{side}WorkloadName": workload,
        f"{side}PodName": name,
        f"{side}NodeName": its_node,
        f"{side}Zone": {"n1": "z1", "n2": "z1", "n3": "z2"}.get(its_node, ""),
    }


def _decided(way: str, action: int, dice: random.Random) -> Row:
    kind, namespace, name, rule = dice.choice(POLICIES) if action else (0, "", "", "")
    return {
        f"{way}NetworkPolicyRuleAction": action,
        f"{way}NetworkPolicyType": kind,
        f"{way}NetworkPolicyNamespace": namespace,
        f"{way}NetworkPolicyName": name,
        f"{way}NetworkPolicyRuleName": rule,
    }
