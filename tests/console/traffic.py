"""A cluster's traffic as its exporters would report it, of any size, the same each time."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowvis.fields import EndReason, FlowType, RuleAction

NAMESPACES = ("shop", "payments", "infra", "monitoring", "data")
PARTS = ("cart", "orders", "checkout", "catalog", "search", "ingest")
NODES = 4
OUTSIDE = "203.0.113.7"
TRIES = 3  # packets of a client that nobody answers


@dataclass(frozen=True)
class Connection:
    """One connection within a node, or from a Pod to the outside: a record each interval."""

    number: int
    source: str
    target: str
    """namespace/Pod, or an address outside."""
    port: int
    octets: int
    end_s: int
    denied: bool = False
    intervals: int = 1

    def records(self) -> Iterator[dict[str, Any]]:
        """What its exporter sends of it, one record for each interval of ten seconds."""
        for interval in range(1, self.intervals + 1):
            yield self._record(interval)

    def _record(self, interval: int) -> dict[str, Any]:
        last = interval == self.intervals
        begin_s = self.end_s - 10 * self.intervals
        end_s = begin_s + 10 * interval
        namespace, pod = self.source.split("/")
        record: dict[str, Any] = {
            "flowStartSeconds": begin_s,
            "flowStartMilliseconds": begin_s * 1000,
            "flowEndSeconds": end_s,
            "flowEndMilliseconds": end_s * 1000,
            "flowEndReason": EndReason.END if last else EndReason.ACTIVE,
            "sourceIP": f"10.1.{self.number >> 8 & 255}.{self.number & 255}",
            "sourceTransportPort": 30_000 + self.number % 30_000,
            "destinationTransportPort": self.port,
            "protocolIdentifier": 6,
            "sourcePodNamespace": namespace,
            "sourcePodName": pod,
            "sourceNodeName": f"node-{self.number % NODES}",
            **_counters(TRIES * 60 if self.denied else self.octets, interval, self.intervals),
        }
        if "/" in self.target:
            namespace, pod = self.target.split("/")
            record |= {
                "flowType": FlowType.INTRA_NODE,
                "destinationIP": f"10.2.{self.number >> 8 & 255}.{self.number & 255}",
                "destinationPodNamespace": namespace,
                "destinationPodName": pod,
                "destinationNodeName": f"node-{self.number % NODES}",
                "destinationServicePortName": f"{namespace}/{pod.split('-')[0]}:http",
            }
        else:
            record |= {"flowType": FlowType.TO_EXTERNAL, "destinationIP": self.target}
        if self.denied:
            record |= {
                "ingressNetworkPolicyNamespace": namespace,
                "ingressNetworkPolicyName": "deny-others",
                "ingressNetworkPolicyType": 1,
                "ingressNetworkPolicyRuleName": "others",
                "ingressNetworkPolicyRuleAction": RuleAction.DROP,
            }
        return record


def _counters(octets: int, interval: int, intervals: int) -> dict[str, int]:
    total = octets * interval // intervals
    delta = total - octets * (interval - 1) // intervals
    return {
        "octetTotalCount": total,
        "octetDeltaCount": delta,
        "packetTotalCount": total // 60,
        "packetDeltaCount": total // 60 - (total - delta) // 60,
        "reverseOctetTotalCount": total // 4,
        "reverseOctetDeltaCount": total // 4 - (total - delta) // 4,
        "reversePacketTotalCount": total // 240,
        "reversePacketDeltaCount": total // 240 - (total - delta) // 240,
    }


def pods(count: int) -> list[str]:
    """So many Pods, each of a workload of its own."""
    spaces = [*NAMESPACES, *(f"team-{n:02}" for n in range(min(count // 60, 30)))]
    return [
        f"{spaces[n % len(spaces)]}/{PARTS[n // len(spaces) % len(PARTS)]}-{n}"
        for n in range(count)
    ]


def cluster(count: int, now_s: int, *, seed: int = 9) -> list[Connection]:
    """Connections of so many Pods that ended within the quarter of an hour before now."""
    chosen = random.Random(seed)
    names = pods(count)
    found = []
    for number, source in enumerate(names):
        target = names[(number * 7 + 1) % count] if number % 9 else OUTSIDE
        connection = Connection(
            number,
            source,
            target,
            (80, 443, 5432, 8080)[number % 4],
            int(chosen.paretovariate(0.8) * 20_000),
            now_s - 20 - chosen.randrange(800),
            intervals=1 + number % 3,
        )
        found.append(connection)
        if number % 13 == 5 and "/" in target:
            found.append(
                replace(connection, number=number + 30_000, port=9999, denied=True, intervals=1)
            )
    return found


def total(connections: Sequence[Connection]) -> int:
    """Octets from sources to destinations, in all."""
    return sum(TRIES * 60 if each.denied else each.octets for each in connections)
