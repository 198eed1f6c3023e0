"""Days of roll-ups that are over become one part each: sums by day are fewest then.

The engine does it, a while after the last of a day was rolled (`rollups.of_projections`). It merges
only parts that have the same projections. A roll has none until its first merge, so what comes last
may be left beside what has them, for good. Such a day would stay in parts, and all others with it,
as the engine tries the one that has waited longest: so it gets them.
"""

from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.projections import QUIET_S
from flowvis.clickhouse.schema.rollups import HOURS


def unlike_sql(layout: TableLayout) -> str:
    """Ask for the days that are over whose parts differ in projections; by their ids.

    None while an earlier ALTER TABLE is on its way.
    """
    of = f"database = '{layout.database}' AND table = '{layout.own(HOURS.name)}'"
    by_server = (
        f"SELECT partition_id FROM {layout.system('parts')} WHERE {of} AND active AND rows != 0"
        f" AND toDate(partition) < toDate(now() - {QUIET_S})"
        " GROUP BY hostName(), partition_id HAVING uniqExact(arraySort(projections)) > 1"
    )
    return (
        f"SELECT DISTINCT partition_id FROM ({by_server})"
        f" WHERE (SELECT count() FROM {layout.system('mutations')} WHERE {of} AND NOT is_done) = 0"
        " ORDER BY partition_id"
    )


def alike_sql(layout: TableLayout, day: str = "") -> str:
    """Write the ALTER TABLE that gives all parts their projections, by and by; those of a day."""
    within = f" IN PARTITION ID '{day}'" if day else ""
    each = (f"MATERIALIZE PROJECTION {projection.name}{within}" for projection in HOURS.projections)
    table = f"{layout.database}.{layout.own(HOURS.name)}{layout.everywhere}"
    return f"ALTER TABLE {table} {', '.join(each)}"
