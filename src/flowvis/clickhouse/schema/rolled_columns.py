"""The columns of the roll-ups: what rows are told apart by, and what they have the sums of.

A dimension has the name, type and meaning that it has in `flow_records`, so conditions over it are
the same.
"""

from dataclasses import dataclass

from flowvis.clickhouse.schema.ends import ENDS, NUMBERS, end_number_sql
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.tables import (
    BEGAN_DENIED_SQL,
    COLUMNS,
    ENDED_SQL,
    FIRST_RECORD,
    MISSED_SQL,
    end_sql,
)

TIME = "time"
INSERTED_DAY = "inserted"

_REPEATED = "ZSTD(7)"
"""Of dimensions: in the order of the rows they are repetitions, of which higher levels find more
at no cost that could be measured; of sums a sixtieth, which takes twice the CPU."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a roll-up."""

    name: str
    type: str
    sql: str
    """Of a record, over the columns of `flows`."""
    meaning: str
    codec: str = _REPEATED
    """As the server shows it."""
    dividing: str = ""
    """The codec where the server knows GCD; "": the same."""
    default: str = ""
    """What it is of rows from before it was there; "": nothing."""

    def codec_of(self, features: Features) -> str:
        """The compression codecs that it has on a server."""
        return self.dividing if self.dividing and features.divides else self.codec

    def ddl(self, features: Features) -> str:
        """The column in CREATE TABLE, ADD COLUMN and MODIFY COLUMN."""
        default = f" DEFAULT {self.default}" if self.default else ""
        return f"{self.name} {self.type}{default} CODEC({self.codec_of(features)})"


NETWORK_BITS = {4: 24, 6: 48}
"""Of an address outside: what is kept of it, by version."""
_MAPPED = "unhex('00000000000000000000FFFF')"


def network_sql(end: str) -> str:
    """Return the network of an end that is outside, 16 bytes: /24 (mapped) or /48; else zeros."""
    address = f"{end}IPBytes"
    v4, v6 = 12 + NETWORK_BITS[4] // 8, NETWORK_BITS[6] // 8
    octets = f"if(substring({address}, 1, 12) = {_MAPPED}, {v4}, {v6})"
    outside = f"{end}PodName = '' AND {end}NodeName = ''"
    return f"toFixedString(if({outside}, substring({address}, 1, {octets}), ''), 16)"


def _dimension(name: str) -> Column:
    stored = next(column for column in COLUMNS if column.name == name)
    return Column(name, stored.type, name, stored.field.doc if stored.field else "")


def _network(end: str) -> Column:
    meaning = f"Network of the {end} where that is outside of the cluster (/24, /48); else zeros"
    return Column(f"{end}NetworkBytes", "FixedString(16)", network_sql(end), meaning)


POLICIES = tuple(
    f"{way}NetworkPolicy{what}"
    for way in ("ingress", "egress")
    for what in ("Name", "Namespace", "RuleName", "RuleAction", "Type")
)

# In the order in which rows are sorted: what decides most of the rest comes first.
_NAMES = (
    "sourcePodNamespace", "sourceWorkloadName", "sourcePodName", "sourceNodeName",
    "destinationPodNamespace", "destinationWorkloadName", "destinationPodName",
    "destinationNodeName", "destinationTransportPort", "protocolIdentifier",
    "destinationServicePortName", "destinationServicePort", "sourceWorkloadKind",
    "destinationWorkloadKind", "flowType", "clusterUUID",
    *POLICIES,
    "egressName", "egressNodeName",
    "sourceZone", "destinationZone", "sourceRegion", "destinationRegion",
)  # fmt: skip
DIMENSIONS: tuple[Column, ...] = (
    *map(_dimension, _NAMES),
    _network("source"),
    _network("destination"),
)
"""What both roll-ups tell records apart by, beside the time. New ones go to the end."""

END_NUMBERS: tuple[Column, ...] = tuple(
    Column(
        NUMBERS[end], "SimpleAggregateFunction(any, UInt64)", NUMBERS[end],
        f"Number of the {end} by its workload, else its Pod; else by what it is",
        default=end_number_sql(end),
    )
    for end in ENDS
)  # fmt: skip
"""What follows from dimensions, and takes a question a third of its time to work out."""

_NUMBER = "T64, ZSTD(1)"


def _sum(name: str, sql: str, meaning: str) -> Column:
    return Column(name, "SimpleAggregateFunction(sum, UInt64)", sql, meaning, _NUMBER)


def _count(name: str, condition: str, meaning: str) -> Column:
    return _sum(name, f"toUInt64({condition})", meaning)


def _ends(end: str) -> Column:
    return Column(
        f"{end}s",
        "AggregateFunction(uniqExact, UInt64)",
        f"initializeAggregation('uniqExactState', {end_sql(end)})",
        f"Distinct {end}s: Pods, and addresses of what is no Pod (`uniqExactMerge`)",
    )


SUMS: tuple[Column, ...] = (
    *(
        _sum(name, name, f"{what} from {way}")
        for name, what, way in (
            ("octetDeltaCount", "Bytes of IP packets", "source to destination"),
            ("reverseOctetDeltaCount", "Bytes of IP packets", "destination to source"),
            ("packetDeltaCount", "Packets", "source to destination"),
            ("reversePacketDeltaCount", "Packets", "destination to source"),
        )
    ),
    _count("records", "1", "Flow records"),
    _count("connections", FIRST_RECORD, "Connections begun"),
    _count("ended", ENDED_SQL, "Connections that ended"),
    _count("denied", BEGAN_DENIED_SQL, "Connections begun that a policy denied"),
    _count(
        "unanswered",
        MISSED_SQL,
        "Connections that ended without any packet back, not counting those that a policy denied",
    ),
)
"""Measures that add up (`sum`)."""

OTHERS: tuple[Column, ...] = (
    Column(
        "peakThroughput",
        "SimpleAggregateFunction(max, UInt64)",
        "throughput",
        "Highest throughput of a single connection, bits/s (`max`)",
        _NUMBER,
    ),
    _ends("source"),
    _ends("destination"),
)
"""Measures that do not."""
