"""What the ClickHouse at hand can do.

Asked of the server itself where it can say so: which settings it knows tells which features it
has. Column codecs have no setting: T64 of single bits is in all of 20, GCD came late in 23. Nor has
DROP PART.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Execute = Callable[[str], Iterable[tuple[Any, ...]]]

_CODECS_SINCE = (20, 1)
_DROPPED_PARTS_SINCE = (20, 12)
_DIVIDING_CODEC_SINCE = (24, 1)
_OF_ROLLS = "deduplicate_insert_select"
_ASKED = (
    "allow_experimental_low_cardinality_type", "insert_deduplication_token", "async_insert",
    _OF_ROLLS,
)  # fmt: skip
_OF_PROJECTIONS = {"deduplicate_merge_projection_mode", "default_compression_codec"}
_OF_MERGED_PROJECTIONS = {"materialize_projections_on_insert", "materialize_projections_on_merge"}
RECALCULATE_ONLY = "materialize_ttl_recalculate_only"
"""A table's setting: a TTL that is materialized reads its columns, and no part is written anew."""
_ASKED_OF_TABLES = (
    "merge_with_ttl_timeout", "non_replicated_deduplication_window", *_OF_PROJECTIONS,
    *_OF_MERGED_PROJECTIONS, RECALCULATE_ONLY,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Features:
    """What the schema and the inserts depend on."""

    version: str
    codecs: bool
    ttl: bool
    deduplication: bool
    """A repeated INSERT with the same token does nothing."""
    asynchronous: bool
    """INSERTs may return before the data is there, unless told not to."""
    experimental_low_cardinality: bool
    """LowCardinality must be allowed by a setting."""
    disks: bool = False
    """The server tells how full its disks are."""
    all_replicas: bool = False
    """One statement can ask all servers of a cluster."""
    drops_parts: bool = False
    """A part of a partition can be dropped."""
    divides: bool = False
    """There is a codec that divides by what all values of a column have in common (GCD)."""
    projections: bool = False
    """A table whose rows of one key become one may have projections, compressed as well."""
    merges_projections: bool = False
    """A part can get its projections when it is merged, and none when it is inserted."""
    chooses_selects: bool = False
    """It decides by itself whether it recognises a repeated INSERT SELECT, unless told."""
    recalculates_ttl: bool = False
    """Parts that are there can take over another TTL without being written anew."""

    @property
    def rollups(self) -> bool:
        """Whether records can be rolled up, each once whatever happens."""
        return self.deduplication

    @property
    def roll_options(self) -> dict[str, int | str]:
        """Settings without which a repeated roll might not be recognised.

        Its rows come in no order that is told, so not each version that chooses takes its token.
        """
        return {_OF_ROLLS: "enable_even_for_bad_queries"} if self.chooses_selects else {}

    def left_out(self, ttl_s: int, *, replicated: bool = False) -> list[str]:
        """Say what this server goes without, a line for each; replicas recognise repetitions."""
        lines = []
        if not self.codecs:
            lines.append(f"ClickHouse {self.version} has no column codecs: records take more room")
        if not self.ttl and ttl_s:
            lines.append(
                f"ClickHouse {self.version} has no TTL: records are kept until you drop partitions"
            )
        if not self.deduplication and not replicated:
            lines.append(
                f"ClickHouse {self.version} cannot recognise a repeated INSERT: "
                "a retry asks for the batch's records first"
            )
        if not self.rollups:
            lines.append(
                f"ClickHouse {self.version} cannot recognise a repeated INSERT SELECT:"
                " no roll-ups (flow_minutes, flow_hours); all questions read records"
            )
        return lines


def probe(execute: Execute) -> Features:
    """Ask a server for its version and settings."""
    version = str(next(iter(execute("SELECT version()")))[0])
    settings = _known(execute, "system.settings", _ASKED)
    tables = _known(execute, "system.merge_tree_settings", _ASKED_OF_TABLES)
    return Features(
        version,
        codecs=_number(version) >= _CODECS_SINCE,
        ttl="merge_with_ttl_timeout" in tables,
        deduplication="insert_deduplication_token" in settings
        and "non_replicated_deduplication_window" in tables,
        asynchronous="async_insert" in settings,
        experimental_low_cardinality="allow_experimental_low_cardinality_type" in settings,
        disks=bool(_known(execute, "system.tables", ("disks",), "database = 'system' AND")),
        all_replicas=bool(_known(execute, "system.table_functions", ("clusterAllReplicas",))),
        drops_parts=_number(version) >= _DROPPED_PARTS_SINCE,
        divides=_number(version) >= _DIVIDING_CODEC_SINCE,
        projections=tables >= _OF_PROJECTIONS,
        merges_projections=tables >= _OF_MERGED_PROJECTIONS,
        chooses_selects=_OF_ROLLS in settings,
        recalculates_ttl=RECALCULATE_ONLY in tables,
    )


def _known(execute: Execute, table: str, names: Iterable[str], of: str = "") -> set[str]:
    wanted = ", ".join(f"'{name}'" for name in names)
    rows = execute(f"SELECT name FROM {table} WHERE {of} name IN ({wanted})")
    return {str(row[0]) for row in rows}


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
