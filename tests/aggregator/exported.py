"""Batches of exporters' records for the tests: all columns, plausible unless given."""

from typing import Any

import numpy as np

from flowvis.batch import Batch, address_bytes
from flowvis.fields import EXPORTED, EndReason, FlowType, Kind
from flowvis.ipfix import DOMAIN
from flowvis.ipfix.origin import NODE_COUNTERS, ORIGIN
from flowvis.strings import Strings

START_MS = 1_700_000_000_123

OTHERS = (*ORIGIN, *NODE_COUNTERS)

PLAIN: dict[str, Any] = {
    "flowStartMilliseconds": START_MS,
    "flowEndMilliseconds": START_MS + 60_000,
    "flowEndReason": EndReason.ACTIVE,
    "sourceIP": "10.0.0.1",
    "destinationIP": "10.0.1.1",
    "sourceTransportPort": 40_000,
    "destinationTransportPort": 80,
    "protocolIdentifier": 6,
    "tcpState": "ESTABLISHED",
}

SOURCE_HALF: dict[str, Any] = {
    "flowType": FlowType.INTER_NODE,
    "sourcePodName": "client",
    "sourcePodNamespace": "front",
    "sourceNodeName": "node-a",
    "destinationServicePortName": "back/server:http",
    "destinationServicePort": 8080,
    "destinationServiceIP": "10.96.0.1",
    "destinationClusterIP": "10.96.0.1",
    "egressNetworkPolicyName": "out",
    "egressNetworkPolicyRuleAction": 1,
}

DESTINATION_HALF: dict[str, Any] = {
    "flowType": FlowType.INTER_NODE,
    "destinationPodName": "server",
    "destinationPodNamespace": "back",
    "destinationNodeName": "node-b",
    "ingressNetworkPolicyName": "in",
    "ingressNetworkPolicyRuleAction": 1,
}

INTRA_NODE: dict[str, Any] = {
    "flowType": FlowType.INTRA_NODE,
    "sourcePodName": "client",
    "sourceNodeName": "node-a",
    "destinationPodName": "server",
    "destinationNodeName": "node-a",
}


def counted(octets: int, delta: int | None = None) -> dict[str, Any]:
    """All eight counters of a record: 1 packet is 100 octets, replies are half of it."""
    grown = octets if delta is None else delta
    values = {}
    for name, share in (
        ("octet", 1),
        ("packet", 1 / 100),
        ("reverseOctet", 1 / 2),
        ("reversePacket", 1 / 200),
    ):
        values[f"{name}TotalCount"] = int(octets * share)
        values[f"{name}DeltaCount"] = int(octets * share) - int((octets - grown) * share)
    return values


def exported(strings: Strings, *rows: dict[str, Any]) -> Batch:
    """One record for each dict, over `PLAIN`; the seconds follow the milliseconds.

    `observationDomainId` is that of the exporter, 0 unless given. Columns of other aggregators are
    there if a record gives any of them.
    """
    full = [PLAIN | row for row in rows]
    for row in full:
        for name in ("flowStart", "flowEnd"):
            row.setdefault(f"{name}Seconds", row[f"{name}Milliseconds"] // 1000)
    columns = {}
    others = {field.name for field in OTHERS}
    for field in (*EXPORTED, *(OTHERS if any(others & row.keys() for row in full) else ())):
        column = np.zeros((len(full), *field.kind.shape), field.kind.dtype)
        for at, row in enumerate(full):
            value = row.get(field.name)
            if value is None:
                continue
            if field.kind is Kind.ADDRESS:
                column[at] = np.frombuffer(address_bytes(value), np.uint8)
            elif field.kind is Kind.TEXT:
                column[at] = strings.intern(value.encode())
            else:
                column[at] = value
        columns[field.name] = column
    domains = [row.get(DOMAIN, 0) for row in full]
    return Batch({**columns, DOMAIN: np.array(domains, dtype=np.uint32)}, strings)
