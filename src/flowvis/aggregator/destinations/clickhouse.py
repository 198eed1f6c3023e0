"""The store as a destination: its settings, and the writer that they make."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowvis.aggregator.destinations.kind import CERTIFICATES, Kind, Place, Problems
from flowvis.clickhouse.monitor import MonitorSettings
from flowvis.clickhouse.query import QueryLimits
from flowvis.clickhouse.room import Limits
from flowvis.clickhouse.schema.retention import LONGEST_S
from flowvis.clickhouse.spool import Spool
from flowvis.clickhouse.store import (
    QuerySettings,
    Store,
    StoreSettings,
    is_embedded,
    open_store,
    target_problems,
)
from flowvis.clickhouse.writer import Writer
from flowvis.delivery.destination import Destination
from flowvis.runtime.memory import ByteSize
from flowvis.runtime.settings import Duration, option, section

QUERIES = 0.15
"""Part of all memory that queries of an embedded store have, out of what passes through."""


@dataclass(frozen=True)
class ClickHouseTls:
    """TLS towards the ClickHouse server."""

    insecure_skip_verify: bool = option(False, doc="Take any certificate: for tests only")
    ca_cert: bool = option(False, doc="Verify the server by `caFile` instead of the system's CAs")
    ca_file: Path = option(
        CERTIFICATES / "clickhouse" / "ca.crt", doc="The CA of the server's certificate (PEM)"
    )


@dataclass(frozen=True)
class Queries:
    """What people ask of the store, by questions and by SQL."""

    username: str = option(
        "",
        doc="The server's user for queries: one that only reads the database, with `readonly` 2, "
        "or 1 and limits in its profile. Empty: the user that writes, who is made read-only for "
        "each query",
        env="CH_QUERY_USERNAME",
    )
    password: str = option("", doc="That user's password", env="CH_QUERY_PASSWORD", secret=True)
    max_concurrent: int = option(
        2,
        doc="Queries that run at once; others wait for their turn",
        minimum=1,
        maximum=64,
    )
    max_memory: int = option(
        512,
        doc="Memory of one query, in MiB; one that needs more fails. Of an embedded store, all "
        "queries together have 15 % of `memory.limit` at the most",
        key="maxMemoryMiB",
        minimum=16,
        maximum=1 << 20,
    )
    max_duration: Duration = option(
        60.0, doc="How long a query may take, with the reading of its answer", minimum=1
    )
    max_threads: int = option(2, doc="Threads of one query", minimum=1, maximum=256)
    max_rows_read: int = option(
        2_000_000_000,
        doc="Records that one query may read; one that needs more is refused before it begins, "
        "where the engine can tell. 0: as many as there are",
        minimum=0,
        maximum=1 << 62,
    )

    def check(self) -> Problems:
        """Yield the problem of a password of nobody."""
        if self.password and not self.username:
            yield "username", "is needed where clickHouse.queries.password is set"


@dataclass(frozen=True)
class Minutes:
    """The roll-up by minute."""

    ttl: Duration = option(
        30 * 86_400.0,
        doc="How long it is kept, a day at a time; 0: for ever. About 7 bytes for each record",
        minimum=0,
        maximum=LONGEST_S,
    )


@dataclass(frozen=True)
class Hours:
    """The roll-up by hour."""

    ttl: Duration = option(
        365 * 86_400.0,
        doc="How long it is kept, a day at a time; 0: for ever. About 3 bytes for each record",
        minimum=0,
        maximum=LONGEST_S,
    )


@dataclass(frozen=True)
class MonitorOptions:
    """What keeps the store within its disk. Options have Theia's names."""

    enable: bool = option(
        True,
        doc="Whether the oldest is dropped before the disk is full, which would end all writing. "
        "On a cluster the fullest server decides, and the same goes on all",
    )
    threshold: float = option(
        0.9,
        doc="Part of the disk, and of storageSize, from which on something goes: whole hours of "
        "records first, then days of minutes, then of hours, and nothing that was committed within "
        "the last hour, unless that alone fills the disk",
        minimum=0.01,
        maximum=1.0,
    )
    delete_percentage: float = option(
        0.1,
        doc="Part of the store's bytes that goes at once, at the least",
        minimum=0.0,
        maximum=1.0,
    )
    storage_size: ByteSize | None = option(
        None,
        doc="A size of the store's own, beside what its disk has: flows, roll-ups and books "
        "together; of a cluster, each server's. By default only the disk bounds it; ClickHouse "
        "before 19.15 does not tell of disks, and needs this",
        parse=ByteSize.parse,
        takes="a size such as 8Gi or 2Ti",
    )
    exec_interval: Duration = option(60.0, doc="How often the monitor looks", minimum=1)
    skip_rounds_num: int = option(
        3,
        doc="Looks after a drop at which nothing is dropped: the engine gives the room back by and "
        "by",
        minimum=0,
        maximum=1000,
    )


@dataclass(frozen=True)
class SpoolSettings:
    """Records on disk while the store is away."""

    directory: Path | None = option(
        None,
        doc="Where records wait that the store does not take; they are stored, each once, when it "
        "is back, by the next aggregator as well. A directory of its own, for one aggregator at a "
        "time. By default they wait in memory only",
    )
    after: Duration = option(
        10.0, doc="For how long the store may give no answer before they go there", minimum=0
    )
    max_bytes: ByteSize = option(
        ByteSize(1 << 30),
        doc="Most bytes of it: 1Gi has some 20 million records. When it is full and half of "
        "maxPendingRecords waits as well, the oldest are dropped",
        parse=ByteSize.parse,
        takes="a size such as 512Mi or 2Gi",
    )


@dataclass(frozen=True)
class ClickHouse:
    """The store."""

    enable: bool = option(False, doc="Whether records go to ClickHouse")
    database: str = option("default", doc="The database; created where it is missing")
    database_url: str = option(
        "tcp://clickhouse-clickhouse.flow-visibility.svc:9000",
        doc="`tcp://host:port` or `tls://host:port` (native protocol), or `embedded:///directory` "
        "for ClickHouse inside the aggregator",
    )
    cluster: str = option(
        "",
        doc="The cluster, as the servers' `remote_servers` names it, for replicated tables on all "
        "of its servers; empty: one server",
    )
    username: str = option("default", doc="The user", env="CH_USERNAME")
    password: str = option("", doc="The user's password", env="CH_PASSWORD", secret=True)
    queries: Queries = section(Queries, doc="What people ask, by `flowctl sql`")
    tls: ClickHouseTls = section(ClickHouseTls, doc="TLS towards the server")
    debug: bool = option(False, doc="Log each commit")
    compress: bool = option(True, doc="LZ4 between the aggregator and the server")
    commit_interval: Duration = option(8.0, doc="How often records are written", minimum=1)
    ttl: Duration = option(
        3 * 86_400.0,
        doc="How long the store keeps records, from their commit; 0: for ever. Older spans are "
        "answered by the roll-ups",
        minimum=0,
        maximum=LONGEST_S,
    )
    minutes: Minutes = section(Minutes, doc="The roll-up by minute")
    hours: Hours = section(Hours, doc="The roll-up by hour")
    monitor: MonitorOptions = section(
        MonitorOptions, doc="What keeps the store within its disk, or a size"
    )
    max_pending_records: int = option(
        524_288,  # Antrea's number; some 700 bytes each
        doc="Records that wait while the store is away or slow; then the oldest are dropped",
        minimum=1,
    )
    spool: SpoolSettings = section(SpoolSettings, doc="Records on disk while the store is away")
    required: bool = option(
        True, doc="Whether exporters keep their records until the store has acknowledged them"
    )

    def check(self) -> Problems:
        """Yield what is wrong with where the store is, if there is to be one."""
        if self.enable:
            yield from target_problems(self.database_url, self.database, self.cluster)


def make(chosen: ClickHouse, place: Place, before: Destination | None) -> Writer:
    """Return the writer of a store."""
    surroundings, spool = place.surroundings, chosen.spool
    return Writer(
        _store(chosen, surroundings.memory_limit),
        place.stage,
        commit_interval_s=chosen.commit_interval,
        max_pending=chosen.max_pending_records,
        max_bytes=place.max_bytes,
        grace_s=surroundings.grace_s,
        stats=before.stats if isinstance(before, Writer) else None,
        books=surroundings.books,
        required=chosen.required,
        spool=Spool(spool.directory, spool.max_bytes) if spool.directory is not None else None,
        spool_after_s=spool.after,
        monitor=_monitor(chosen.monitor),
    )


def _monitor(chosen: MonitorOptions) -> MonitorSettings:
    return MonitorSettings(
        chosen.enable,
        Limits(chosen.threshold, chosen.delete_percentage, int(chosen.storage_size or 0)),
        chosen.exec_interval,
        chosen.skip_rounds_num,
    )


def store_of(destination: Destination | None) -> Store | None:
    """Return the store that a destination writes to, if it does."""
    return destination.store if isinstance(destination, Writer) else None


def lacks_spooled(destination: Destination | None) -> bool:
    """Return whether a store lacks what an aggregator before this one has put into the spool.

    Or may be putting there.
    """
    if not isinstance(destination, Writer):
        return False
    return destination.inherited > 0 or destination.awaits_spool


def rollups_of(destination: Destination | None) -> dict[str, Any]:
    """Return how far a store's roll-ups are; nothing where there are none."""
    return destination.roller.as_dict() if isinstance(destination, Writer) else {}


def room_of(destination: Destination | None) -> dict[str, Any]:
    """Return what a store has, and what room there is; nothing before that is known."""
    return destination.monitor.as_dict() if isinstance(destination, Writer) else {}


KIND = Kind(
    "click_house",
    "clickhouse",
    make,
    weight=2.0,
    healthy=("clickhouse_healthy", "1 while ClickHouse can be written to"),
)


def _store(settings: ClickHouse, memory_limit: int) -> Store:
    """Open the store; queries of an embedded one are part of our own memory, and less of it."""
    queries = settings.queries
    query_bytes = queries.max_memory << 20
    if is_embedded(settings.database_url):
        query_bytes = min(query_bytes, int(memory_limit * QUERIES) // queries.max_concurrent)
    return open_store(
        StoreSettings(
            settings.database_url,
            database=settings.database,
            cluster=settings.cluster,
            username=settings.username,
            password=settings.password,
            ca_cert=settings.tls.ca_file if settings.tls.ca_cert else None,
            insecure_skip_verify=settings.tls.insecure_skip_verify,
            compress=settings.compress,
            ttl_s=round(settings.ttl),
            minutes_ttl_s=round(settings.minutes.ttl),
            hours_ttl_s=round(settings.hours.ttl),
            queries=QuerySettings(
                queries.username,
                queries.password,
                QueryLimits(
                    memory_bytes=query_bytes,
                    seconds=max(round(queries.max_duration), 1),
                    threads=queries.max_threads,
                    rows_read=queries.max_rows_read,
                ),
            ),
        )
    )
