"""The ClickHouse schema: one stored table, and views under the documented names.

`flow_records` holds what must be stored, in the cheapest form. The view `flows` shows it under the
names, in the order and with the meaning of the documented table (Antrea's and Theia's), then what
that leaves out. `flows_pod_view`, `flows_node_view` and `flows_policy_view`, which dashboards
read, are views of the same records; nothing is written twice. Which column is what is in `COLUMNS`,
which follows from the fields table.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis import checkpoint
from flowvis.batch import Batch
from flowvis.clickhouse.schema.ends import ENDS, NUMBERS, end_number_sql
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.formulas import DERIVED, INSERTED, NODE_INTERVALS, RATE_INTERVAL
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.fields import BY_NAME, FIELDS, EndReason, Field, Kind, RuleAction

VERSION = 1
"""Raised with every change that older programs could not write to."""

TABLE = "flow_records"
VERSIONS = "flowvis_schema"
FLOWS = "flows"
BOOKS = "flow_books"
"""The history of the books; see `books`."""

TYPES = {
    Kind.U8: "UInt8",
    Kind.U16: "UInt16",
    Kind.U32: "UInt32",
    Kind.U64: "UInt64",
    Kind.SECONDS: "DateTime",
    Kind.MILLISECONDS: "UInt64",
    Kind.ADDRESS: "FixedString(16)",
    Kind.TEXT: "LowCardinality(String)",
}

# Measured on an hour of records of a cluster, see docs/clickhouse.md.
_ZSTD = "ZSTD(1)"
_CODECS = {"UInt64": f"T64, {_ZSTD}"}
_BITS = f"T64('bit'), {_ZSTD}"  # of numbers whose low bits are alike, or are not at all
_CODEC_OF = {
    "flowEndSeconds": f"Delta, {_ZSTD}",
    DERIVED[INSERTED].stored: f"T64, {_ZSTD}",
    DERIVED["monitoringIntervalStartMilliSeconds"].stored: _BITS,
    "firstRecord": f"T64, {_ZSTD}",
    "recordNumberResidual": _BITS,
    "sourceEndMillisecondsResidual": _BITS,
    "destinationEndMillisecondsResidual": _BITS,
    "flowState": f"T64, {_ZSTD}",
    **dict.fromkeys(NUMBERS.values(), _ZSTD),
}

WRITER = "writer"
BATCH_NUMBER = "batchNumber"

DOCUMENTED: tuple[str, ...] = (
    "timeInserted", "flowStartSeconds", "flowEndSeconds", "flowEndSecondsFromSourceNode",
    "flowEndSecondsFromDestinationNode", "flowEndReason", "sourceIP", "destinationIP",
    "sourceTransportPort", "destinationTransportPort", "protocolIdentifier", "packetTotalCount",
    "octetTotalCount", "packetDeltaCount", "octetDeltaCount", "reversePacketTotalCount",
    "reverseOctetTotalCount", "reversePacketDeltaCount", "reverseOctetDeltaCount",
    "sourcePodName", "sourcePodNamespace", "sourceNodeName", "destinationPodName",
    "destinationPodNamespace", "destinationNodeName", "destinationClusterIP",
    "destinationServicePort", "destinationServicePortName", "ingressNetworkPolicyName",
    "ingressNetworkPolicyNamespace", "ingressNetworkPolicyRuleName",
    "ingressNetworkPolicyRuleAction", "ingressNetworkPolicyType", "egressNetworkPolicyName",
    "egressNetworkPolicyNamespace", "egressNetworkPolicyRuleName", "egressNetworkPolicyRuleAction",
    "egressNetworkPolicyType", "tcpState", "flowType", "sourcePodLabels", "destinationPodLabels",
    "throughput", "reverseThroughput", "throughputFromSourceNode",
    "throughputFromDestinationNode", "reverseThroughputFromSourceNode",
    "reverseThroughputFromDestinationNode", "clusterUUID", "egressName", "egressIP", "trusted",
    "egressNodeName",
)  # fmt: skip
"""Columns of the documented table, in its order."""

_ENDS = (
    INSERTED,
    "flowEndSeconds",
    "flowEndSecondsFromSourceNode",
    "flowEndSecondsFromDestinationNode",
)
_VOLUMES = (
    "octetDeltaCount",
    "reverseOctetDeltaCount",
    "throughput",
    "reverseThroughput",
    "throughputFromSourceNode",
    "throughputFromDestinationNode",
)
_NODE_REVERSE = ("reverseThroughputFromSourceNode", "reverseThroughputFromDestinationNode")

NARROW_VIEWS: dict[str, tuple[str, ...]] = {
    "flows_pod_view": (
        *_ENDS, "sourcePodName", "destinationPodName", "destinationIP", "destinationServicePort",
        "destinationServicePortName", "flowType", "sourcePodNamespace", "destinationPodNamespace",
        "sourceTransportPort", "destinationTransportPort", "clusterUUID", *_VOLUMES,
    ),
    "flows_node_view": (
        *_ENDS, "sourceNodeName", "destinationNodeName", "sourcePodNamespace",
        "destinationPodNamespace", "clusterUUID", *_VOLUMES, *_NODE_REVERSE,
    ),
    "flows_policy_view": (
        *_ENDS, "egressNetworkPolicyName", "egressNetworkPolicyNamespace",
        "egressNetworkPolicyRuleAction", "ingressNetworkPolicyName",
        "ingressNetworkPolicyNamespace", "ingressNetworkPolicyRuleAction", "sourcePodName",
        "sourceTransportPort", "sourcePodNamespace", "destinationPodName",
        "destinationTransportPort", "destinationPodNamespace", "destinationServicePort",
        "destinationServicePortName", "destinationIP", "clusterUUID", *_VOLUMES, *_NODE_REVERSE,
    ),
}  # fmt: skip
"""The documented narrow tables, by name: their columns."""


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """One column that is stored."""

    name: str
    """As it is stored."""
    type: str
    shows: str
    """The column of `flows` that it is or becomes; "" for one that helps others."""
    field: Field | None = None
    default: str = ""
    """What the server computes it of as records come, and for those that came before there was such
    a column; "": it is inserted."""

    @property
    def codec(self) -> str:
        """The compression codecs."""
        return _CODEC_OF.get(self.name, _CODECS.get(self.type, _ZSTD))

    @property
    def sql(self) -> str:
        """The expression of the column in `flows`."""
        if self.shows in DERIVED:
            return DERIVED[self.shows].sql()
        if self.type == TYPES[Kind.ADDRESS]:
            return _address_sql(self.name)
        return self.name

    def ddl(self, features: Features) -> str:
        """The column in CREATE TABLE and ADD COLUMN."""
        default = f" DEFAULT {self.default}" if self.default else ""
        codec = f" CODEC({self.codec})" if features.codecs else ""
        return f"{self.name} {self.type}{default}{codec}"


def _address_sql(stored: str) -> str:
    """Write the text of 16 address bytes as people do; '' where there is none."""
    mapped = "unhex('00000000000000000000FFFF')"
    return (
        f"multiIf({stored} IN (toFixedString('', 16), toFixedString({mapped}, 16)), '',"
        f" substring({stored}, 1, 12) = {mapped}, substring(IPv6NumToString({stored}), 8),"
        f" IPv6NumToString({stored}))"
    )


def shown_name(field: Field) -> str:
    """Return the name of a field in `flows`."""
    return "clusterUUID" if field.name == "clusterId" else field.name


def _stored(field: Field) -> StoredColumn:
    name, kind = shown_name(field), TYPES[field.kind]
    derived = DERIVED.get(field.name)
    if derived:
        return StoredColumn(derived.stored, "UInt32" if derived.seconds else "UInt64", name, field)
    return StoredColumn(f"{name}Bytes" if field.kind is Kind.ADDRESS else name, kind, name, field)


FIRST_RECORD = "firstRecord"
"""Whether a record is its connection's first one: its interval begins with the connection, and
nothing was counted before. Each connection has one, so that ranges side by side add up."""
UNANSWERED = "unanswered"
"""Whether a record says that its connection ended, and no packet ever came back."""

_FIRST_SQL = (
    f"{DERIVED['packetTotalCount'].stored} = 0 AND {DERIVED['reversePacketTotalCount'].stored} = 0"
    f" AND intDiv({DERIVED['monitoringIntervalStartMilliSeconds'].sql()}, 1000)"
    " = toUInt32(flowStartSeconds)"
)
_UNANSWERED_SQL = (
    f"flowEndReason = {EndReason.END} AND {DERIVED['packetTotalCount'].sql()} != 0"
    f" AND {DERIVED['reversePacketTotalCount'].sql()} = 0"
)

DENIED_SQL = (
    f"(ingressNetworkPolicyRuleAction IN ({RuleAction.DROP}, {RuleAction.REJECT})"
    f" OR egressNetworkPolicyRuleAction IN ({RuleAction.DROP}, {RuleAction.REJECT}))"
)
"""Whether a policy denied the record's connection."""


def began(batch: Batch) -> NDArray[np.bool_]:
    """Which records are their connections' first, as `FIRST_RECORD` says of stored ones."""
    began_s = batch["monitoringIntervalStartMilliSeconds"] // np.uint64(1000)
    first = began_s == batch["flowStartSeconds"]
    for way in ("packet", "reversePacket"):
        first &= batch[f"{way}TotalCount"] == batch[f"{way}DeltaCount"]
    return np.asarray(first)


ENDED_SQL = f"flowEndReason = {EndReason.END}"
"""Whether a record is of a connection's end."""
BEGAN_DENIED_SQL = f"{FIRST_RECORD} AND {DENIED_SQL}"
"""Whether a record is the first of a connection that a policy denied."""
MISSED_SQL = f"{UNANSWERED} AND NOT {DENIED_SQL}"
"""Whether a record says that its connection, which no policy denied, ended without an answer."""


def end_sql(end: str) -> str:
    """Return the number of an end (source, destination): of its Pod, else of its address."""
    pod = f"cityHash64({end}PodNamespace, {end}PodName)"
    return f"if({end}PodName = '', cityHash64({end}IPBytes), {pod})"


RESIDUAL_CHECKPOINTS = {
    name: f"{name}Residual" for name in (*checkpoint.STARTS, *checkpoint.ENDS, checkpoint.NUMBER)
}
"""What of a checkpoint is stored as its residual, and in which column; see `checkpoints`."""
PLAIN_CHECKPOINTS = (*checkpoint.EXPORTERS, checkpoint.STATE)
_WIDTHS = {8: "UInt64", 4: "UInt32"}

COLUMNS: tuple[StoredColumn, ...] = (
    *(_stored(field) for field in FIELDS if field.stored),
    StoredColumn(RATE_INTERVAL, "UInt64", ""),
    *(StoredColumn(name, "UInt64", "") for name in NODE_INTERVALS.values()),
    StoredColumn(DERIVED[INSERTED].stored, "UInt32", INSERTED),
    StoredColumn(WRITER, TYPES[Kind.TEXT], ""),
    StoredColumn(BATCH_NUMBER, "UInt16", ""),
    StoredColumn("trusted", "UInt8", "trusted"),
    # What questions count, as a byte each: else a count of connections reads six columns.
    StoredColumn(FIRST_RECORD, "UInt8", "", default=_FIRST_SQL),
    StoredColumn(UNANSWERED, "UInt8", "", default=_UNANSWERED_SQL),
    # What an aggregator that begins goes on from; nothing where a record has none of it.
    StoredColumn("flowId", "UInt64", ""),
    *(
        StoredColumn(stored, _WIDTHS[checkpoint.COLUMNS[name].itemsize], "")
        for name, stored in RESIDUAL_CHECKPOINTS.items()
    ),
    *(StoredColumn(name, "UInt32", "") for name in PLAIN_CHECKPOINTS),
    StoredColumn(checkpoint.BASES, TYPES[Kind.TEXT], ""),
    # What questions group by most: else each reads five columns of both ends.
    *(StoredColumn(NUMBERS[end], "UInt64", "", default=end_number_sql(end)) for end in ENDS),
)
"""Every stored column, in the order of the table."""

_STORED_NAMES = {column.name for column in COLUMNS}
_SHOWN = {column.shows: column for column in COLUMNS if column.shows}

FLOWS_COLUMNS: tuple[str, ...] = (
    *DOCUMENTED,
    *(name for name in _SHOWN if name not in DOCUMENTED),
    "clusterId",
)
"""The columns of `flows`: the documented ones, then ours."""


def shown_type(name: str) -> str:
    """Return what the values of a column of `flows` are: text, number, address or time."""
    if name == INSERTED:
        return "time"
    field = _SHOWN["clusterUUID" if name == "clusterId" else name].field
    return _SHOWN_TYPES.get(field.kind, "number") if field else "number"


_SHOWN_TYPES = {
    Kind.TEXT: "text",
    Kind.ADDRESS: "address",
    Kind.SECONDS: "time",
    Kind.MILLISECONDS: "time",
}


def value_sql(name: str) -> str:
    """Return the SQL of a column of `flows` as JSON has it: times in ms since the epoch."""
    column = _SHOWN["clusterUUID" if name == "clusterId" else name]
    in_seconds = name == INSERTED or (column.field and column.field.kind is Kind.SECONDS)
    return f"toUInt64(toUInt32({name})) * 1000" if in_seconds else name


INSERTED_SQL = f"flowEndSeconds + {DERIVED[INSERTED].stored}"
ORDER = (
    "toStartOfHour(flowEndSeconds)",  # dashboards ask for a span of time
    "sourcePodNamespace",  # then what belongs together lies together
    "sourcePodName",
    "sourceIPBytes",
    "destinationIPBytes",
    "destinationTransportPort",
    "protocolIdentifier",
    "sourceTransportPort",
    "flowEndSeconds",
)
PRIMARY = 5  # so many of them are worth keeping in memory


SHARD_BY = (
    "cityHash64(sourceIPBytes, destinationIPBytes, sourceTransportPort,"
    " destinationTransportPort, protocolIdentifier)"  # a connection's records lie together
)


BOOKS_SHARD_BY = "cityHash64(writer)"  # what is committed at once is of one shard


def create_table(layout: TableLayout, features: Features, ttl_s: int) -> str:
    """Write the CREATE TABLE of the records; `ttl_s` 0 keeps them for ever.

    One batch is one insertion time is one partition: so an INSERT is one part, and atomic. A
    partition is an hour, by its number since the epoch, so that a full disk costs no more than the
    oldest hours; its day stands before it for the conditions that choose days.
    """
    columns = ",\n    ".join(column.ddl(features) for column in COLUMNS)
    name = layout.own(TABLE)
    parts = [
        f"CREATE TABLE IF NOT EXISTS {_own(layout, TABLE)}{layout.everywhere}",
        f"(\n    {columns}\n)",
        f"ENGINE = {layout.merge_tree(name)}",
        f"PARTITION BY (toDate({INSERTED_SQL}), intDiv(toUInt32({INSERTED_SQL}), 3600))",
        f"PRIMARY KEY ({', '.join(ORDER[:PRIMARY])})",
        f"ORDER BY ({', '.join(ORDER)})",
    ]
    return "\n".join([*parts, *kept(layout, features, ttl_sql(ttl_s) if ttl_s else "")])


def kept(
    layout: TableLayout,
    features: Features,
    ttl: str,
    *,
    whole_parts: bool = False,
    more: Iterable[str] = (),
) -> Iterator[str]:
    """Yield the clauses of a table that batches go to.

    `whole_parts` says that what a part has goes at one time: so nothing is rewritten for it; `more`
    are further settings.
    """
    if features.ttl and ttl:
        yield f"TTL {ttl}"
    settings = []
    if layout.cluster:
        settings += [f"replicated_deduplication_window = {REMEMBERED_BATCHES}", REMEMBERED_LONG]
    elif features.deduplication:
        settings.append(f"non_replicated_deduplication_window = {REMEMBERED_BATCHES}")
    if features.ttl and whole_parts:
        settings.append("ttl_only_drop_parts = 1")
    settings += more
    if settings:
        yield f"SETTINGS {', '.join(settings)}"


def create_versions(layout: TableLayout) -> str:
    """Write the CREATE TABLE of what is known of the schema itself."""
    return (
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{VERSIONS}{layout.everywhere}"
        " (version UInt32, views String, changed DateTime)"
        f" ENGINE = {layout.shared_merge_tree(VERSIONS)} ORDER BY (version, changed)"
    )


REMEMBERED_BATCHES = 10_000  # per table: hours of commits, a few bytes each
REMEMBERED_LONG = "replicated_deduplication_window_seconds = 604800"
"""A week. Newer servers forget a batch after an hour by themselves: rolls that somebody left are
repeated later than that, as are batches that were spooled without an answer."""


def remember(layout: TableLayout, name: str, engine: str) -> Iterator[str]:
    """Yield the ALTER TABLE after which the replicas of an older program's table remember so long.

    `engine` is the table's, with its settings. What somebody chose is left alone.
    """
    if REMEMBERED_LONG.split(" ", 1)[0] not in engine:
        table = f"{_own(layout, name)}{layout.everywhere}"
        yield f"ALTER TABLE {table} MODIFY SETTING {REMEMBERED_LONG}"


def ttl_sql(ttl_s: int) -> str:
    """Return the moment at which a record goes.

    A record that ended after it was stored, by clocks that differ, has a residual near 2^32. As the
    engine works out a TTL such a sum is not cut to 32 bits, and lies beyond the year 2106.
    """
    inserted = f"toUInt32(flowEndSeconds) + {DERIVED[INSERTED].stored}"
    return f"toDateTime(bitAnd({inserted}, 4294967295)) + toIntervalSecond({ttl_s})"


def add_columns(
    layout: TableLayout, features: Features, existing: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yield name and ALTER TABLE of each column that an older program's table does not have."""
    known = set(existing)
    table = f"{_own(layout, TABLE)}{layout.everywhere}"
    for column in COLUMNS:
        if column.name not in known:
            yield column.name, f"ALTER TABLE {table} ADD COLUMN {column.ddl(features)}"


def shown(layout: TableLayout) -> dict[str, str]:
    """Return the statements that make what shows the records, each after those that it reads.

    By name; nothing of it stores anything. On a cluster every server has the views of its own
    records, and what stands over these leaves filtering and grouping to the servers.
    """
    selects = {FLOWS: f"{', '.join(map(_shown, FLOWS_COLUMNS))} FROM {_own(layout, TABLE)}"} | {
        name: f"{', '.join(columns)} FROM {_own(layout, FLOWS)}"
        for name, columns in NARROW_VIEWS.items()
    }
    made = {}
    if layout.cluster:
        made[TABLE] = _over_all(layout, TABLE, SHARD_BY)
        made[BOOKS] = _over_all(layout, BOOKS, BOOKS_SHARD_BY)
    for name, select in selects.items():
        made[layout.own(name)] = (
            f"CREATE VIEW IF NOT EXISTS {_own(layout, name)}{layout.everywhere} AS SELECT {select}"
        )
        if layout.cluster:
            made[name] = _over_all(layout, name)
    return made


def engines(layout: TableLayout) -> dict[str, str]:
    """Return how the engine of each table and view ends, by name."""
    over_all = dict.fromkeys(shown(layout), "Distributed")
    views = {layout.own(name): "View" for name in (FLOWS, *NARROW_VIEWS)}
    stored = (VERSIONS, layout.own(TABLE), layout.own(BOOKS))
    return over_all | views | dict.fromkeys(stored, "MergeTree")


def _own(layout: TableLayout, name: str) -> str:
    return f"{layout.database}.{layout.own(name)}"


def _over_all(layout: TableLayout, name: str, key: str = "") -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{name}{layout.everywhere}"
        f" AS {_own(layout, name)} ENGINE = {layout.distributed(name, key)}"
    )


def _shown(name: str) -> str:
    """Select one column of `flows`; derived ones refer to each other by name."""
    sql = _definition(name)
    return name if sql == name else f"{sql} AS {name}"


_IDENTIFIER = re.compile(r"'(?:[^'\\]|\\.)*'|\b([A-Za-z_][A-Za-z0-9_]*)\b")


def named_columns(sql: str) -> list[str]:
    """Return the columns of `flows` that an expression names, in order; in '...' there are none."""
    found = (match[1] for match in _IDENTIFIER.finditer(sql) if match[1])
    return [name for name in dict.fromkeys(found) if name in _SHOWN or name == "clusterId"]


def definitions(sql: str) -> dict[str, str]:
    """Return what the columns of `flows` that an expression names are of `flow_records`.

    By name, each after those that it is made of; those that are stored as they are need none. As
    aliases in a WITH they let a query read the stored table itself, as the view does, also where a
    server does not pass conditions on to what a view reads.
    """
    found: dict[str, str] = {}
    for name in named_columns(sql):
        definition = _definition(name)
        if definition != name:
            found |= definitions(definition) | {name: definition}
    return found


def stored_columns(sql: str) -> list[str]:
    """Return the stored columns that an expression over the columns of `flows` is made of."""
    found: list[str] = []
    for match in _IDENTIFIER.finditer(sql):
        name = match[1]
        if name in _STORED_NAMES:
            found.append(name)
        elif name in _SHOWN or name == "clusterId":
            found += stored_columns(_definition(name))
    return list(dict.fromkeys(found))


def shown_as(stored: str) -> str:
    """Return the column of `flows` that a stored one shows; its own name where it shows none."""
    return next((each.shows for each in COLUMNS if each.name == stored and each.shows), stored)


def _definition(name: str) -> str:
    return "clusterUUID" if name == "clusterId" else _SHOWN[name].sql


def documentation() -> str:
    """Return the columns of `flows` as a Markdown table."""
    lines = ["| Column | Stored as | Type | Codec | Meaning |", "|---|---|---|---|---|"]
    for name in FLOWS_COLUMNS:
        column = _SHOWN["clusterUUID" if name == "clusterId" else name]
        stored = column.name if column.name != name else "itself"
        meaning = _meaning(name, column)
        lines.append(f"| {name} | {stored} | {column.type} | {column.codec} | {meaning} |")
    return "\n".join(lines) + "\n"


def _meaning(name: str, column: StoredColumn) -> str:
    if name == INSERTED:
        return "When the record was committed"
    if name == "trusted":
        return "Set by people: a denied flow that is legitimate; nothing here writes it"
    return BY_NAME[name].doc if name in BY_NAME else column.field.doc if column.field else ""
