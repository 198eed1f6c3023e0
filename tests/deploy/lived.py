"""Connections that live for some minutes, and what a collector gets of them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aggregator.exported import counted, exported
from aggregator.test_json_collector import Reader, listening
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.destinations.json_lines import PROBE, JsonDestination
from flowvis.batch import Batch
from flowvis.fields import EndReason, FlowType
from flowvis.runtime.ledger import Stage
from flowvis.transport.address import CollectorAddress
from flowvis.transport.client import Client
from waiting import until

MINUTE_MS = 60_000
FIRST_MS = 1_706_745_300_000  # 23:55, so that the records are of two days
MINUTES = 9


@dataclass(frozen=True)
class End:
    """A Pod, or (with an address only) something outside."""

    ip: str
    namespace: str = ""
    name: str = ""
    node: str = ""

    @property
    def pod(self) -> str:
        return f"{self.namespace}/{self.name}" if self.name else ""


@dataclass
class Connection:
    """What it is, and how it grew: (minute, octets since the last, ended)."""

    source: End
    destination: End
    port: int
    type: int
    service: str = ""
    ingress: tuple[str, str] = ("", "")
    egress: tuple[str, str] = ("", "")
    growth: list[tuple[int, int, bool]] = field(default_factory=list)
    total: int = 0

    @property
    def halves(self) -> list[dict[str, Any]]:
        """What each exporter knows of it."""
        common = {
            "flowType": self.type,
            "sourceIP": self.source.ip,
            "destinationIP": self.destination.ip,
            "sourceTransportPort": self.port,
            "destinationTransportPort": 5432,
            "flowStartMilliseconds": FIRST_MS - 1000,
        }
        source = {
            "sourcePodName": self.source.name,
            "sourcePodNamespace": self.source.namespace,
            "sourceNodeName": self.source.node,
            "destinationServicePortName": self.service,
            "destinationServicePort": 80 if self.service else 0,
            "egressNetworkPolicyName": self.egress[1],
            "egressNetworkPolicyNamespace": self.egress[0],
            "egressNetworkPolicyRuleAction": 1 if self.egress[1] else 0,
        }
        destination = {
            "destinationPodName": self.destination.name,
            "destinationPodNamespace": self.destination.namespace,
            "destinationNodeName": self.destination.node,
            "ingressNetworkPolicyName": self.ingress[1],
            "ingressNetworkPolicyNamespace": self.ingress[0],
            "ingressNetworkPolicyRuleAction": 1 if self.ingress[1] else 0,
        }
        if self.type == FlowType.INTER_NODE:
            halves = [common | source, common | destination]
            return halves if self.source.name else halves[1:]
        return [common | source | destination]

    def key(self, what: str, port: int) -> str:
        return f"{self.source.name}:{self.port}->{what}:{port} TCP"


def connections() -> list[Connection]:
    """Some hundred, of more Pods and policies than a panel has room for."""
    choice = random.Random(11)
    names = [
        (space, f"{kind}-{at}")
        for space in ("shop", "pay")
        for kind in ("web", "db")
        for at in range(10)
    ]  # both namespaces have Pods of the same names
    pods = [
        End(f"10.1.0.{at}", *name, f"node-{choice.randrange(12)}")
        for at, name in enumerate(names, 1)
    ]
    policies = [("shop", f"rule-{at}") for at in range(8)] + [("", "tiers"), ("pay", "rule-0")]
    services = ["", "shop/db:tcp", "pay/db:tcp", "shop/web:http"]
    outside = [End(f"198.51.100.{at}") for at in range(1, 36)]
    found = []
    for number in range(260):
        source, destination = choice.sample(pods, 2)
        if number % 5 == 0:
            ends, kind = (source, choice.choice(outside)), FlowType.TO_EXTERNAL
        elif number % 17 == 0:
            ends, kind = (choice.choice(outside), destination), FlowType.FROM_EXTERNAL
        elif number % 13 == 0:  # from a node without an exporter
            ends, kind = (End(source.ip), destination), FlowType.INTER_NODE
        else:
            same = source.node == destination.node
            ends, kind = (source, destination), FlowType.INTRA_NODE if same else FlowType.INTER_NODE
        inside = bool(ends[1].name)
        found.append(
            Connection(
                *ends,
                port=40_000 + number,
                type=kind,
                service=choice.choice(services) if inside and ends[0].name else "",
                ingress=choice.choice([("", ""), *policies]) if inside else ("", ""),
                egress=choice.choice([("", ""), *policies]) if ends[0].name else ("", ""),
            )
        )
    return found


def lived(connections: list[Connection]) -> Iterator[tuple[int, Batch]]:
    """Let them live, and each minute's halves go through the aggregator's table of flows."""
    choice = random.Random(12)
    table = FlowTable(active_timeout_ms=1000)
    open_ = {id(each): choice.randint(0, 3) for each in connections}
    for minute in range(MINUTES):
        now = FIRST_MS + minute * MINUTE_MS + 5000
        sent = []
        for each in connections:
            if open_[id(each)] > minute or (each.growth and each.growth[-1][2]):
                continue
            if choice.random() < 0.2:
                continue
            grown = choice.randint(1, 100_000) * 200
            ended = choice.random() < 0.3
            each.total += grown
            each.growth.append((minute, grown, ended))
            ends = {
                "flowEndMilliseconds": now - 1000,
                "flowEndReason": EndReason.END if ended else EndReason.ACTIVE,
                **counted(each.total, grown),
            }
            halves = [half | ends for half in each.halves]
            sent += halves
            if choice.random() < 0.3:
                sent.append(halves[0])  # again
        choice.shuffle(sent)
        table.add(exported(table.strings, *sent), now)
        yield now, table.flush(now)


async def events(batches: Iterator[tuple[int, Batch]]) -> list[dict[str, Any]]:
    """What a collector reads of the aggregator's destination."""
    reader, clock = Reader(), [0.0]
    async with listening(reader) as port:
        client = Client(CollectorAddress("127.0.0.1", port, "tcp"), probe=PROBE)
        sink = JsonDestination(client, Stage("ipfix"), capacity=10_000, clock=lambda: clock[0])
        await sink.start()
        count = 0
        for now_ms, batch in batches:
            clock[0] = now_ms / 1000
            sink.put(batch)
            count += len(batch)
            await until(lambda: len(reader.events) == count)  # noqa: B023  before the next
        await sink.stop()
    return reader.events
