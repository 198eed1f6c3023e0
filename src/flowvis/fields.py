"""The heart: one row for each field of a flow record.

Templates, decode plans, table layouts, merge rules, the ClickHouse schema, JSON keys, the API and
the documentation are derived from `FIELDS`. Adding a field is adding a row.

Names are those of the information elements; an address that has one element per family carries the
name that Antrea's ClickHouse schema gives it (`sourceIP`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kind(Enum):
    """What a field's values are."""

    U8 = "unsigned8"
    U16 = "unsigned16"
    U32 = "unsigned32"
    U64 = "unsigned64"
    SECONDS = "seconds since the epoch"  # unsigned: good until 2106
    MILLISECONDS = "milliseconds since the epoch"
    ADDRESS = "IP address"  # 16 bytes in network order, IPv4 as ::ffff:a.b.c.d
    UUID = "UUID"  # 16 bytes in network order (RFC 9562), zeros where there is none
    TEXT = "text"  # code in a string table

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy type of one value's items."""
        return _DTYPES[self]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one value: () or (16,)."""
        return (16,) if self in {Kind.ADDRESS, Kind.UUID} else ()


_DTYPES: dict[Kind, np.dtype[np.generic]] = {
    Kind.U8: np.dtype(np.uint8),
    Kind.U16: np.dtype(np.uint16),
    Kind.U32: np.dtype(np.uint32),
    Kind.U64: np.dtype(np.uint64),
    Kind.SECONDS: np.dtype(np.uint32),
    Kind.MILLISECONDS: np.dtype(np.uint64),
    Kind.ADDRESS: np.dtype(np.uint8),
    Kind.UUID: np.dtype(np.uint8),
    Kind.TEXT: np.dtype(np.uint32),
}


class Merge(Enum):
    """How the halves of a connection and its successive intervals become one record."""

    KEY = auto()  # names the connection: equal in all its records
    START = auto()  # the earliest that is set
    END = auto()  # the latest; per node: the latest from that node
    REASON = auto()  # from the record with the latest end; "end of flow" stays
    LATEST = auto()  # from the record with the latest end that has it set
    FILL = auto()  # the last value that was set; a half that does not know it changes nothing
    # as FILL, but "from external" stays; "to external" gives way to "inter-node"
    FLOW_TYPE = auto()
    TOTAL = auto()  # never backwards; per node: that node's; common: the larger of the two nodes'
    DELTA = auto()  # what the total of the same side grew by since the record was last written
    RATE = auto()  # bits/s of the side's last interval; common: of the side with the latest end,
    # and of a connection that sides report whole, the greater: its end is better known there
    ADDED = auto()  # not merged: the aggregator writes it into the outgoing record


class Source(Enum):
    """Who gives a field its value first. Each has one place that gives the values of its fields;
    it says so with `provides`, and where the two differ the import fails."""

    TUPLES = "exporter: the connection's tuples"  # `exporter.tables.tuples`
    COUNTERS = "exporter: the kernel's counters"  # `exporter.tables.rows`
    NODE = "exporter: what the node knows"  # `exporter.tables.enrich`
    TABLE = "exporter: as it polls"  # `exporter.tables.rows`, written by the tables
    RECORD = "exporter: made of the others"  # `exporter.tables.rows`
    VERDICT = "exporter where denied, else aggregator"  # `exporter.tables.denied`
    FLOW = "aggregator: the flow's halves"  # `aggregator.correlation`
    ENRICHMENT = "aggregator: what the cluster knows"  # `aggregator.enrichment`
    RELAY = "another aggregator"  # `ipfix.origin`: of no record of ours


class Side(Enum):
    """Whose view of the connection a field gives."""

    COMMON = "common"
    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a flow record."""

    name: str
    kind: Kind
    merge: Merge
    source: Source
    doc: str
    elements: tuple[str, ...] = ()
    """Information element names: one, or (IPv4, IPv6); () if it never goes over the wire."""
    exported: int | None = None
    """Place in the exporter's template, from 1; places above 43 are ours, after Antrea's."""
    aggregated: int | None = None
    """Place in the aggregated record's template, from 1."""
    side: Side = Side.COMMON
    counter: str | None = None
    """DELTA and RATE: the TOTAL field that it is computed from."""
    stored: bool = True
    """Whether ClickHouse has it."""
    since: str = "0.1"

    def element(self, version: int) -> str:
        """Return the information element's name in records of IP version 4 or 6."""
        return self.elements[version == 6 and len(self.elements) == 2]


def _plain(  # noqa: PLR0917  a row of a table
    name: str, kind: Kind, merge: Merge, source: Source, at: int, doc: str
) -> Field:
    """A field with one element that has the same place, up to 40, in both templates."""
    return Field(name, kind, merge, source, doc, (name,), at, at)


def _address(  # noqa: PLR0917  a row of a table
    name: str, merge: Merge, source: Source, exported: int, aggregated: int, doc: str
) -> Field:
    """An address: the elements are `<stem>IPv4...` and `<stem>IPv6...`."""
    stem = name.removesuffix("IP")
    tail = "Address" if merge is Merge.KEY else ""
    return Field(
        name,
        Kind.ADDRESS,
        merge,
        source,
        doc,
        (f"{stem}IPv4{tail}", f"{stem}IPv6{tail}"),
        exported,
        aggregated,
    )


def _policy(direction: str, first: int, where: str) -> list[Field]:
    """The five fields of the NetworkPolicy that decided in one direction."""
    what = f"{direction} NetworkPolicy that decided at the {where}"
    return [
        _plain(
            f"{direction}NetworkPolicyName",
            Kind.TEXT,
            Merge.FILL,
            Source.VERDICT,
            first,
            f"Name of the {what}",
        ),
        _plain(
            f"{direction}NetworkPolicyNamespace",
            Kind.TEXT,
            Merge.FILL,
            Source.VERDICT,
            first + 1,
            f"Namespace of the {what}; empty for cluster-wide kinds",
        ),
        _plain(
            f"{direction}NetworkPolicyType",
            Kind.U8,
            Merge.FILL,
            Source.VERDICT,
            first + 2,
            "1 Kubernetes, 2 Antrea, 3 Antrea cluster, 4 Kubernetes cluster NetworkPolicy; 0 none",
        ),
        _plain(
            f"{direction}NetworkPolicyRuleName",
            Kind.TEXT,
            Merge.FILL,
            Source.VERDICT,
            first + 3,
            f"Name of the rule in the {what}",
        ),
        _plain(
            f"{direction}NetworkPolicyRuleAction",
            Kind.U8,
            Merge.FILL,
            Source.VERDICT,
            first + 4,
            "0 none, 1 allow, 2 drop, 3 reject; evaluated but not enforced: 4 drop, 5 reject",
        ),
    ]


def _per_node() -> list[Field]:
    """The counters as each node saw them: Antrea's order is pairs of (source, destination)."""
    rows = []
    place = 44
    names = (
        "octetDeltaCount",
        "octetTotalCount",
        "packetDeltaCount",
        "packetTotalCount",
        "reverseOctetDeltaCount",
        "reverseOctetTotalCount",
        "reversePacketDeltaCount",
        "reversePacketTotalCount",
    )
    for base in names:
        for side in (Side.SOURCE, Side.DESTINATION):
            suffix = f"From{side.value.capitalize()}Node"
            delta = "Delta" in base
            rows.append(
                Field(
                    base + suffix,
                    Kind.U64,
                    Merge.DELTA if delta else Merge.TOTAL,
                    Source.FLOW,
                    f"{base} as the {side.value} node counted it",
                    (base + suffix,),
                    None,
                    place,
                    side,
                    base.replace("Delta", "Total") + suffix if delta else None,
                )
            )
            place += 1
    return rows


def _workload(end: str, who: str) -> list[Field]:
    """What owns the Pod of one end; no registry has elements for it."""
    kinds = "Deployment, StatefulSet, DaemonSet, Job, CronJob, ..."
    return [
        Field(
            f"{end}WorkloadKind",
            Kind.TEXT,
            Merge.ADDED,
            Source.ENRICHMENT,
            f"What the {who}'s Pod is run by: {kinds}; empty for a Pod made by itself",
        ),
        Field(
            f"{end}WorkloadName",
            Kind.TEXT,
            Merge.ADDED,
            Source.ENRICHMENT,
            f"Name of what runs the {who}'s Pod",
        ),
    ]


def _topology(end: str, who: str) -> list[Field]:
    """Where the node of one end is, by its labels; no registry has elements for it."""
    return [
        Field(
            f"{end}{what.capitalize()}",
            Kind.TEXT,
            Merge.ADDED,
            Source.ENRICHMENT,
            f"{what.capitalize()} of the {who}'s node: its label topology.kubernetes.io/{what}",
        )
        for what in ("zone", "region")
    ]


def _rates() -> list[Field]:
    """Throughput of both directions: common, source node, destination node."""
    rows = []
    place = 62
    for base, counter in (
        ("throughput", "octetTotalCount"),
        ("reverseThroughput", "reverseOctetTotalCount"),
    ):
        for side in Side:
            suffix = "" if side is Side.COMMON else f"From{side.value.capitalize()}Node"
            seen = "side that reported last" if side is Side.COMMON else f"{side.value} node"
            rows.append(
                Field(
                    base + suffix,
                    Kind.U64,
                    Merge.RATE,
                    Source.FLOW,
                    f"bits/s over the last interval of the {seen}",
                    (base + suffix,),
                    None,
                    place,
                    side,
                    counter + suffix,
                )
            )
            place += 1
    return rows


# A table reads best as one.
# fmt: off
FIELDS: tuple[Field, ...] = (
    _plain("flowStartSeconds", Kind.SECONDS, Merge.START, Source.RECORD, 1,
           "Start of the connection"),
    _plain("flowEndSeconds", Kind.SECONDS, Merge.END, Source.RECORD, 2,
           "When the counters were read, or its end"),
    _plain("flowEndReason", Kind.U8, Merge.REASON, Source.RECORD, 3,
           "1 idle, 2 active, 3 end of flow, 4 forced, 5 lack of resources (IANA element 136)"),
    _plain("sourceTransportPort", Kind.U16, Merge.KEY, Source.TUPLES, 4,
           "Port of the client; 0 without ports"),
    _plain("destinationTransportPort", Kind.U16, Merge.KEY, Source.TUPLES, 5,
           "Port of the server, after DNAT"),
    _plain("protocolIdentifier", Kind.U8, Merge.KEY, Source.TUPLES, 6,
           "IP protocol: 6 TCP, 17 UDP, 132 SCTP, 1 ICMP"),
    _plain("packetTotalCount", Kind.U64, Merge.TOTAL, Source.COUNTERS, 7,
           "Packets since the start"),
    _plain("octetTotalCount", Kind.U64, Merge.TOTAL, Source.COUNTERS, 8,
           "Bytes of IP packets since the start"),
    Field("packetDeltaCount", Kind.U64, Merge.DELTA, Source.COUNTERS,
          "Packets since the last record",
          ("packetDeltaCount",), 9, 9, counter="packetTotalCount"),
    Field("octetDeltaCount", Kind.U64, Merge.DELTA, Source.COUNTERS,
          "Bytes of IP packets since the last record",
          ("octetDeltaCount",), 10, 10, counter="octetTotalCount"),
    _address("sourceIP", Merge.KEY, Source.TUPLES, 11, 11, "Address of the client, before SNAT"),
    _address("destinationIP", Merge.KEY, Source.TUPLES, 12, 12,
             "Address of the server, after DNAT"),
    _plain("reversePacketTotalCount", Kind.U64, Merge.TOTAL, Source.COUNTERS, 13,
           "Packets of the reply direction"),
    _plain("reverseOctetTotalCount", Kind.U64, Merge.TOTAL, Source.COUNTERS, 14,
           "Bytes of the reply direction"),
    Field("reversePacketDeltaCount", Kind.U64, Merge.DELTA, Source.COUNTERS,
          "Reply packets since the last record",
          ("reversePacketDeltaCount",), 15, 15, counter="reversePacketTotalCount"),
    Field("reverseOctetDeltaCount", Kind.U64, Merge.DELTA, Source.COUNTERS,
          "Reply bytes since the last record",
          ("reverseOctetDeltaCount",), 16, 16, counter="reverseOctetTotalCount"),
    _plain("sourcePodName", Kind.TEXT, Merge.FILL, Source.NODE, 17, "Pod of the client"),
    _plain("sourcePodNamespace", Kind.TEXT, Merge.FILL, Source.NODE, 18,
           "Namespace of the client's Pod"),
    _plain("sourceNodeName", Kind.TEXT, Merge.FILL, Source.NODE, 19, "Node of the client's Pod"),
    _plain("destinationPodName", Kind.TEXT, Merge.FILL, Source.NODE, 20, "Pod of the server"),
    _plain("destinationPodNamespace", Kind.TEXT, Merge.FILL, Source.NODE, 21,
           "Namespace of the server's Pod"),
    _plain("destinationNodeName", Kind.TEXT, Merge.FILL, Source.NODE, 22,
           "Node of the server's Pod"),
    _plain("destinationServicePort", Kind.U16, Merge.FILL, Source.NODE, 23,
           "Port of the Service that was called"),
    _plain("destinationServicePortName", Kind.TEXT, Merge.FILL, Source.NODE, 24,
           "The Service that was called: namespace/name:portName"),
    *_policy("ingress", 25, "destination"),
    *_policy("egress", 30, "source"),
    _plain("tcpState", Kind.TEXT, Merge.LATEST, Source.RECORD, 35,
           "TCP state of conntrack: ESTABLISHED, ..."),
    _plain("flowType", Kind.U8, Merge.FLOW_TYPE, Source.NODE, 36,
           "1 intra-node, 2 inter-node (of Pods, or a Pod and a node), 3 to external, "
           "4 from external; 0 outside a cluster"),
    _plain("egressName", Kind.TEXT, Merge.FILL, Source.ENRICHMENT, 37,
           "Egress that the connection leaves through"),
    _plain("egressIP", Kind.TEXT, Merge.FILL, Source.ENRICHMENT, 38,
           "Source address that the Egress gives it"),
    _plain("egressNodeName", Kind.TEXT, Merge.FILL, Source.ENRICHMENT, 39, "Node of the Egress"),
    _plain("proxySnatPort", Kind.U16, Merge.FILL, Source.TUPLES, 40,
           "Source port after the proxy's SNAT"),
    _address("destinationClusterIP", Merge.FILL, Source.RECORD, 41, 42,
             "Address of the Service that was called (deprecated twin of destinationServiceIP)"),
    _address("proxySnatIP", Merge.FILL, Source.TUPLES, 42, 41,
             "Source address after the proxy's SNAT"),
    _address("destinationServiceIP", Merge.FILL, Source.NODE, 43, 43,
             "Address of the Service that was called"),
    Field("flowStartMilliseconds", Kind.MILLISECONDS, Merge.START, Source.TUPLES,
          "Start of the connection; with the tuple it names the connection",
          ("flowStartMilliseconds",), exported=44, stored=False),
    Field("flowEndMilliseconds", Kind.MILLISECONDS, Merge.END, Source.TABLE,
          "When the counters were read, or the end of the connection",
          ("flowEndMilliseconds",), exported=45, stored=False),
    Field("flowId", Kind.U64, Merge.KEY, Source.TUPLES,
          "ICMP and ICMPv6: type * 2^24 + code * 2^16 + identifier of the request, which tell "
          "connections without ports apart; else 0",
          ("flowId",), exported=46, stored=False),
    Field("icmpTypeCode", Kind.U16, Merge.FILL, Source.TUPLES,
          "ICMP and ICMPv6: type * 256 + code of the request; else 0",
          ("icmpTypeCodeIPv4", "icmpTypeCodeIPv6"), exported=47, aggregated=71),
    *_per_node(),
    Field("flowEndSecondsFromSourceNode", Kind.SECONDS, Merge.END, Source.FLOW,
          "flowEndSeconds of the source node",
          ("flowEndSecondsFromSourceNode",), None, 60, Side.SOURCE),
    Field("flowEndSecondsFromDestinationNode", Kind.SECONDS, Merge.END, Source.FLOW,
          "flowEndSeconds of the destination node",
          ("flowEndSecondsFromDestinationNode",), None, 61, Side.DESTINATION),
    *_rates(),
    Field("sourcePodLabels", Kind.TEXT, Merge.ADDED, Source.ENRICHMENT,
          "Labels of the client's Pod, a JSON object",
          ("sourcePodLabels",), None, 68),
    Field("destinationPodLabels", Kind.TEXT, Merge.ADDED, Source.ENRICHMENT,
          "Labels of the server's Pod, a JSON object",
          ("destinationPodLabels",), None, 69),
    Field("clusterId", Kind.TEXT, Merge.ADDED, Source.ENRICHMENT,
          "The cluster (clusterUUID in ClickHouse)",
          ("clusterId",), None, 70),
    Field("monitoringIntervalStartMilliSeconds", Kind.MILLISECONDS, Merge.ADDED, Source.FLOW,
          "The time base: start of the interval that deltas and throughput are over",
          ("monitoringIntervalStartMilliSeconds",)),
    Field("originalFlowsPresent", Kind.U8, Merge.ADDED, Source.FLOW,
          "Nodes' halves in the record; 1 in an inter-node record: the other is missing, or "
          "there is none, as of a connection with a node's own address",
          ("originalFlowsPresent",)),
    *_workload("source", "client"),
    *_workload("destination", "server"),
    *_topology("source", "client"),
    *_topology("destination", "server"),
)
# fmt: on

BY_NAME: dict[str, Field] = {field.name: field for field in FIELDS}

EXPORTED: tuple[Field, ...] = tuple(
    sorted((f for f in FIELDS if f.exported), key=lambda f: f.exported or 0)
)
"""The exporter's template, in order: Antrea's 43, then ours."""

AGGREGATED: tuple[Field, ...] = tuple(
    sorted((f for f in FIELDS if f.aggregated), key=lambda f: f.aggregated or 0)
)
"""The aggregated record's template, in order: 70."""

ANTREA_EXPORTED = 43
"""How many elements of the exporter's template are Antrea's."""


def flow_ids(
    icmp_type: NDArray[Any], icmp_code: NDArray[Any], icmp_id: NDArray[Any]
) -> NDArray[np.uint64]:
    """The field flowId of connections; all three are 0 of what is not ICMP."""
    flow_id = icmp_type.astype(np.uint64) << np.uint64(24)
    flow_id |= icmp_code.astype(np.uint64) << np.uint64(16)
    return np.asarray(flow_id | icmp_id.astype(np.uint64))


ICMP = (1, 58)
"""Protocols whose connections flowId tells apart (IANA protocol numbers: ICMP, ICMPv6)."""


def _counterpart(name: str) -> str | None:
    """What a field is called in the record of the same connection seen from its other side."""
    if name.startswith(_ONE_SIDED):
        return None
    for one, other in _OPPOSITES:
        for here, there in ((one, other), (other, one)):
            if name.startswith(here):
                return there + name.removeprefix(here)
    if name in _COUNTED_BOTH_WAYS:
        return f"reverse{name[0].upper()}{name[1:]}"
    plain = name.removeprefix("reverse")
    return plain[0].lower() + plain[1:] if plain != name else name


_OPPOSITES = (("source", "destination"), ("ingress", "egress"))
_TRANSLATED = ("destinationService", "destinationClusterIP", "proxySnat")
_ONE_SIDED = (*_TRANSLATED, "egressName", "egressIP", "egressNodeName")
_COUNTED_BOTH_WAYS = {
    field.name for field in FIELDS if f"reverse{field.name[0].upper()}{field.name[1:]}" in BY_NAME
}

COUNTERPARTS: dict[str, str | None] = {field.name: _counterpart(field.name) for field in EXPORTED}
"""For each exported field the one whose value it has once the record is reversed, client for
server; itself where that makes no difference, None where there is none: only the client is
translated on its way, and only it calls a Service or leaves through an Egress."""


def provides(source: Source, names: Iterable[str]) -> None:
    """Say that the fields with these names, and no others of the source, get their values here.

    TypeError where a field of the source is missing, or one is another's: at import, so that a row
    whose values nobody gives cannot be exported as zeros.
    """
    known = {field.name for field in FIELDS if field.source is source}
    given = set(names)
    if known != given:
        raise TypeError(
            f"fields with Source.{source.name} in fields.py and those that get a value differ: "
            f"without a value {sorted(known - given)}, without a row {sorted(given - known)}"
        )


TEXT_FIELDS: tuple[str, ...] = tuple(f.name for f in FIELDS if f.kind is Kind.TEXT)


class FlowType:
    """Values of flowType."""

    UNSPECIFIED = 0
    INTRA_NODE = 1
    INTER_NODE = 2
    TO_EXTERNAL = 3
    FROM_EXTERNAL = 4


FLOW_TYPES: dict[str, int] = {
    "intra-node": FlowType.INTRA_NODE,
    "inter-node": FlowType.INTER_NODE,
    "to-external": FlowType.TO_EXTERNAL,
    "from-external": FlowType.FROM_EXTERNAL,
}
"""Flow types by the names that people write."""

PROTOCOLS: dict[str, int] = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
"""Protocol numbers (IANA) by the names that people write."""

TRANSPORTS: dict[str, int] = {name: PROTOCOLS[name.lower()] for name in ("TCP", "UDP", "SCTP")}
"""Those with ports, by the names that Kubernetes has for them."""


class EndReason:
    """Values of flowEndReason."""

    IDLE = 1
    ACTIVE = 2
    END = 3
    FORCED = 4
    LACK_OF_RESOURCES = 5


class RuleAction:
    """Values of ingressNetworkPolicyRuleAction and egressNetworkPolicyRuleAction."""

    NONE = 0
    ALLOW = 1
    DROP = 2
    REJECT = 3
    UNENFORCED_DROP = 4
    """Evaluated as dropped, but the traffic shows that nothing dropped it."""
    UNENFORCED_REJECT = 5
