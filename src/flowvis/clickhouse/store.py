"""What a store can do, and which one a database URL means."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from flowvis.addresses import may_be_resolved
from flowvis.batch import Batch
from flowvis.clickhouse.query import Query, QueryLimits, Result
from flowvis.clickhouse.rollup_tables import RollupTables
from flowvis.clickhouse.schema.books import Page
from flowvis.clickhouse.schema.checkpoints import Answer, Wanted
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.retention import DAY_S, Retention
from flowvis.clickhouse.statement import MAX_LENGTH
from flowvis.clickhouse.stored_partitions import StoredPartitions
from flowvis.errors import SettingsError
from flowvis.runtime.extras import extra

MAX_ROWS = 10_000  # of a query's result, unless asked otherwise: what the dashboards' table shows

REJECTIONS = frozenset({6, 10, 20, 33, 44, 48, 49, 50, 53, 70, 117})
"""ClickHouse's codes for what it would refuse for ever: CANNOT_PARSE_TEXT, ... INCORRECT_DATA.

All other errors may pass: the server is busy, full, without its tables, or gone.
"""

READ_ONLY = 164
"""READONLY: records wait until their user may write again; a question that writes never may."""


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """By whom, and with what, people's queries are run."""

    username: str = ""
    """The server's user for them; "": the one that writes."""
    password: str = field(default="", repr=False)
    limits: QueryLimits = field(default_factory=QueryLimits)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the store is and how records are kept there."""

    database_url: str
    """tcp://host:port, tls://host:port or embedded:///directory."""
    database: str = "default"
    cluster: str = ""
    """The servers' name for the cluster that has the tables; "": one server."""
    username: str = "default"
    password: str = field(default="", repr=False)
    ca_cert: Path | None = None
    """tls: the CA that signed the server's certificate; None takes the system's."""
    insecure_skip_verify: bool = False
    compress: bool = True
    ttl_s: int = 3 * DAY_S
    """Records go this long after their insertion; 0: never."""
    minutes_ttl_s: int = 30 * DAY_S
    """The same for the roll-up by minute."""
    hours_ttl_s: int = 365 * DAY_S
    """The same for the roll-up by hour."""
    queries: QuerySettings = field(default_factory=QuerySettings)

    @property
    def kept(self) -> Retention:
        """How long each table keeps what it has."""
        return Retention(self.ttl_s, self.minutes_ttl_s, self.hours_ttl_s)


class Store(Protocol):
    """A ClickHouse database. Constructors open nothing; methods block; errors are StoreErrors."""

    name: str

    settled: dict[str, int]
    """By name of a roll-up: each record that is stored and whose `flowEndSeconds` is before this
    moment (ms) is in it. What is not named has nothing that can be relied on: records are to be
    read."""

    ttls: Mapping[str, int]
    """By name of a table, how long (s) it keeps rows as it was told last, by whichever aggregator;
    0: for ever. What is not named is as the settings have it."""

    begins: dict[str, int]
    """By name of a table: rows that were committed before this moment (s) may have been dropped, as
    there was no room."""

    lost: Sequence[Lost]
    """Records that went, for lack of room or by their age, before the roll-ups had them."""

    @property
    def rollups(self) -> RollupTables | None:
        """Its roll-ups; None before they are there, and where there can be none."""

    @property
    def partitions(self) -> StoredPartitions | None:
        """Its partitions; None before they are there, and where they cannot be watched."""

    @property
    def kept(self) -> Retention:
        """How long it keeps what is in each table, or did keep it where there was no room.

        For ever (0) where the engine has no TTL.
        """

    def migrate(self) -> list[str]:
        """Create or upgrade the schema; return what had to be left out for this server."""

    def insert(self, batch: Batch, batch_id: BatchId, *, again: bool = False) -> None:
        """Store a batch, all of it or nothing.

        `again` says that an attempt with this id has failed before: if that one stored the batch
        after all, nothing happens now.
        """

    def keep(self, page: Page, *, again: bool = False) -> None:
        """Store a page of the books, in the same way."""

    def checkpoints(self, wanted: Wanted) -> Answer:
        """Return the last record of each of the connections.

        StoreError while somebody's INSERT is running, as it may bring a later one. Callable from
        any thread.
        """

    def ask(self, sql: str, *, max_rows: int = MAX_ROWS, max_length: int = MAX_LENGTH) -> Query:
        """Prepare one statement; StoreError says why it is none that only reads.

        It has up to so many bytes: statements that we compose have longer lists than people write.
        """

    def query(self, sql: str, *, max_rows: int = MAX_ROWS) -> Result:
        """Run one statement that only reads; callable from any thread."""

    def close(self) -> None:
        """Close connections; the store opens them again when it is used again."""


def is_embedded(url: str) -> bool:
    """Whether a URL names an engine in our own process."""
    return url.partition(":")[0].lower() == "embedded"


def open_store(settings: StoreSettings) -> Store:
    """Return the store that `settings.database_url` names; SettingsError names a bad one."""

    problems = list(target_problems(settings.database_url, settings.database, settings.cluster))
    if problems:
        raise SettingsError([f"clickHouse.{key}: {problem}" for key, problem in problems])
    parts = urlsplit(settings.database_url)
    if parts.scheme == "embedded":
        from flowvis.clickhouse.embedded import EmbeddedStore

        return EmbeddedStore(settings, Path(parts.path))
    with extra("aggregator", "clickHouse.databaseURL"):
        from flowvis.clickhouse.server import ServerStore
    return ServerStore(settings, str(parts.hostname), parts.port, secure=parts.scheme == "tls")


def target_problems(url: str, database: str, cluster: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with where a store is to be, each with the key of its option."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", database):
        yield "database", f"{database!r}: a name of letters, digits and _"
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", cluster):
        yield "cluster", f"{cluster!r}: a name of letters, digits, _, - and ."
    if cluster and is_embedded(url):
        yield "cluster", f"{cluster!r}: embedded:// is no cluster: leave it empty"
    if problem := _problem(url):
        yield "databaseURL", f"{_shown(url)!r}: {problem}"


def _shown(url: str) -> str:
    """Return a URL that is wrong as a message may have it: without what may be a password."""
    if not any(sign in url for sign in "@?#"):
        return url
    scheme, separator, _ = url.partition("://")
    return f"{scheme}://..." if separator and scheme.isalnum() else "..."


def _problem(url: str) -> str:
    """Say what is wrong with the URL of a store; "" if nothing."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # brackets without their other half, letters that stand for /
        return f"no URL: {error}" if _shown(url) == url else "no URL"
    if parts.scheme == "embedded" and parts.path and not parts.netloc:
        return ""
    try:
        port = parts.port
    except ValueError:
        port = 0
    problems = (
        (parts.scheme == "embedded", "give an absolute path: embedded:///var/lib/flowvis"),
        (parts.scheme in {"http", "https"}, "HTTP is not supported: use tcp:// or tls://"),
        (
            parts.scheme not in {"tcp", "tls"},
            "use tcp://host:port, tls://host:port or embedded:///directory",
        ),
        (port == 0, "the port is a number from 1 to 65535"),
        (not parts.hostname, "the host is missing"),
        (not may_be_resolved(parts.hostname or ""), "the host is no name"),
        (
            "@" in parts.netloc,
            "no user name and password here: they come from CH_USERNAME and CH_PASSWORD",
        ),
        (
            bool(parts.path.strip("/") or parts.query or parts.fragment),
            "no path and no query: the database has an option of its own",
        ),
    )
    return next((text for wrong, text in problems if wrong), "")
