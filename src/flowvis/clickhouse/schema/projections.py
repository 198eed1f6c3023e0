"""Projections of the roll-up by hour: sums by some of its dimensions, within each part of it.

The engine takes one by itself for a question that groups and filters by nothing else.
"""

from dataclasses import dataclass, replace

from flowvis.clickhouse.schema.ends import (
    ENDS,
    NAMED_BY_POD,
    NUMBERS,
    kept_sql,
    kind_sql,
    node_sql,
)
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.rolled_columns import DIMENSIONS, END_NUMBERS, POLICIES, SUMS, TIME


@dataclass(frozen=True, slots=True)
class Projection:
    """Sums by some dimensions.

    Values are keys, which cost far less to read than states: it has no aggregate that chooses one
    of them.
    """

    name: str
    values: tuple[str, ...]
    """SQL over dimensions, by which rows are told apart."""
    time: str = TIME

    @property
    def ddl(self) -> str:
        """The projection in CREATE TABLE and ADD."""
        keys = ", ".join([self.time, *self.values])
        sums = ", ".join(f"sum({each.name})" for each in SUMS)
        return f"PROJECTION {self.name} (SELECT {keys}, {sums} GROUP BY {keys})"


DAY_S = 86_400
DAY = f"intDiv(toUInt32({TIME}), {DAY_S})"
"""SQL of the number of a row's day, of UTC."""

_BY_HOUR = (
    Projection(
        "pairs",
        (
            "clusterUUID",
            *(f"{end}{what}" for end in ENDS
              for what in ("PodNamespace", "WorkloadName", "WorkloadKind")),
            "destinationServicePortName",
            "flowType",
            *map(kind_sql, ENDS),
            *NUMBERS.values(),
            *(kept_sql(*each) for each in NAMED_BY_POD.items()),
            *(kept_sql(f"{end}NodeName", node_sql(end)) for end in ENDS),
        ),
    ),
    Projection(
        "policies",
        ("clusterUUID", *(f"{end}PodNamespace" for end in ENDS), "flowType", *POLICIES),
    ),
)  # fmt: skip
_BY_DAY = (
    *(replace(each, name=f"{each.name}_by_day", time=DAY) for each in _BY_HOUR),
    Projection("by_day", tuple(each.name for each in (*DIMENSIONS, *END_NUMBERS)), time=DAY),
)
PROJECTIONS: tuple[Projection, ...] = (*_BY_DAY, *_BY_HOUR)
"""Of the roll-up by hour: who with whom, and let through or stopped by what. A Pod or a node has
its name only where nothing else names the end; so each has a fifth of the rows. The same ends meet
hour after hour, so by day there are far fewer: a tenth of the rows even where nothing is left out.
"""
REPLACED = ("workloads", "conversations", "conversations_by_day")
"""Projections of programs before this one."""

QUIET_S = 3 * 3600
"""What of a day was rolled that long ago has all of it: what is later is merged once more."""


def settings(features: Features) -> tuple[str, ...]:
    """Return the settings of a table that has projections.

    They are made anew when rows of one key become one; their sums have no codec else. They are not
    made for what is inserted, where that can be left to its first merge: it comes soon, and most of
    what one of them costs is spent on a roll's own rows, which the next merge makes fewer of. A day
    that is over becomes one part (`whole_days`).
    """
    merged = (
        "materialize_projections_on_insert = 0",
        "materialize_projections_on_merge = 1",
    )
    return (
        "deduplicate_merge_projection_mode = 'rebuild'",
        "default_compression_codec = 'ZSTD(1)'",
        f"min_age_to_force_merge_seconds = {QUIET_S}",
        "min_age_to_force_merge_on_partition_only = 1",
        *(merged if features.merges_projections else ()),
    )
