"""The table `flow_books`: what became of records, minute by minute, at each stage and of each node.

A row says how many records one stage received, sent, merged or dropped in the `seconds` before
`time`; what is not a count of that interval (held) is as it was at its end. The rows of one moment
are a page, committed as one, under the same kind of id as records. A page is of the cluster whose
records its aggregator receives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.native_block import Block, Codes, Constant, Numbers
from flowvis.clickhouse.schema.tables import BOOKS, kept
from flowvis.native import StringTable

EXPORTER = "exporter"
"""The stage of what a node sends."""


class What(StrEnum):
    """What a number of the books is of."""

    RECEIVED = "received"
    SENT = "sent"
    MERGED = "merged"
    DROPPED = "dropped"
    LOST = "lost"
    """Of a node: records that never came, by the sequence numbers (RFC 7011 section 3.1)."""
    HELD = "held"
    """At the end of the interval."""
    SILENT = "silent"
    """Of a node: seconds of the interval without a session."""
    SETTLED = "settled"
    """Of a roll-up, whose name the stage is: in seconds since the epoch, until when it has all."""

    @property
    def counts(self) -> bool:
        """Whether it only grows, since the start."""
        return self not in {What.HELD, What.SILENT, What.SETTLED}


@dataclass(frozen=True, slots=True)
class BookEntry:
    """One number of the books: since the start where `what.counts`, else as it is."""

    stage: str
    what: What
    records: int
    reason: str = ""
    node: str = ""

    @property
    def account(self) -> tuple[str, str, str, str]:
        """What it is a number of."""
        return self.stage, self.what, self.reason, self.node


@dataclass(frozen=True, slots=True)
class Page:
    """The numbers of an interval; its end is `batch_id.inserted_s`."""

    batch_id: BatchId
    seconds: int
    entries: Sequence[BookEntry]
    cluster: str = ""
    """The id of its cluster; "" while the aggregator does not know it."""


_TEXT = "LowCardinality(String)"
CLUSTER = "clusterUUID"
"""As records have it."""
COLUMNS: dict[str, str] = {
    "time": "DateTime",
    "seconds": "UInt32",
    "stage": _TEXT,
    "node": _TEXT,
    "what": _TEXT,
    "reason": _TEXT,
    "records": "UInt64",
    "writer": _TEXT,
    CLUSTER: _TEXT,
}
"""The columns, with their types; what is new goes to the end."""
MEANINGS: dict[str, str] = {
    "time": "End of the interval",
    "seconds": "Its length",
    "stage": "Of the ledger; `exporter`: what one node sends; a roll-up, of what is `settled`",
    "node": "The node, where it is of one",
    "what": ", ".join(What),
    "reason": "Why they were dropped",
    "records": "How many, in the interval; `held`: at its end; `silent`: seconds without a session;"
    " `settled`: until when it has all, in seconds since the epoch",
    "writer": "The aggregator's process",
    CLUSTER: "The aggregator's cluster, as records have it; empty while it is not known, and of"
    " programs before",
}


def create_books(layout: TableLayout, features: Features, ttl_s: int) -> str:
    """Write the CREATE TABLE; rows go with the records, and `ttl_s` 0 keeps them for ever."""
    columns = ",\n    ".join(_ddl(name, features) for name in COLUMNS)
    name = layout.own(BOOKS)
    parts = [
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{name}{layout.everywhere}",
        f"(\n    {columns}\n)",
        f"ENGINE = {layout.merge_tree(name)}",
        "PARTITION BY toDate(time)",
        "ORDER BY (time, stage, node, what, reason)",
        *kept(layout, features, ttl_sql(ttl_s) if ttl_s else ""),
    ]
    return "\n".join(parts)


def _ddl(name: str, features: Features) -> str:
    return f"{name} {COLUMNS[name]}{' CODEC(ZSTD(1))' if features.codecs else ''}"


def add_columns(layout: TableLayout, features: Features, existing: Iterable[str]) -> str:
    """Write the ALTER TABLE that adds what an older program's table lacks; "": nothing."""
    known = set(existing)
    added = [f"ADD COLUMN {_ddl(name, features)}" for name in COLUMNS if name not in known]
    table = f"{layout.database}.{layout.own(BOOKS)}{layout.everywhere}"
    return f"ALTER TABLE {table} {', '.join(added)}" if added else ""


def ttl_sql(ttl_s: int) -> str:
    """Return the moment at which a row goes."""
    return f"time + toIntervalSecond({ttl_s})"


def arrived(batch_id: BatchId) -> str:
    """Return the condition of a page's rows."""
    return f"time = toDateTime({batch_id.inserted_s}) AND writer = {literal(batch_id.writer)}"


def encode_page(page: Page) -> Block:
    """Make the block that inserts a page, which has an entry at least."""
    rows, strings = len(page.entries), StringTable()

    def codes(name: str, texts: Iterable[str]) -> Codes:
        return Codes(name, strings.encode(list(texts)))

    entries = page.entries
    counts = np.array([entry.records for entry in entries], np.uint64)
    ends = np.full(rows, page.batch_id.inserted_s, np.uint32)
    return Block(
        [
            Numbers("time", COLUMNS["time"], ends),
            Numbers("seconds", COLUMNS["seconds"], np.full(rows, page.seconds, np.uint32)),
            codes("stage", (entry.stage for entry in entries)),
            codes("node", (entry.node for entry in entries)),
            codes("what", (entry.what for entry in entries)),
            codes("reason", (entry.reason for entry in entries)),
            Numbers("records", COLUMNS["records"], counts),
            Constant("writer", page.batch_id.writer.encode(), rows),
            Constant(CLUSTER, page.cluster.encode(), rows),
        ],
        rows,
        strings,
    )


def documentation() -> str:
    """Return the columns as a Markdown table."""
    lines = ["| Column | Type | Meaning |", "|---|---|---|"]
    lines += [f"| {name} | {kind} | {MEANINGS[name]} |" for name, kind in COLUMNS.items()]
    return "\n".join(lines) + "\n"
