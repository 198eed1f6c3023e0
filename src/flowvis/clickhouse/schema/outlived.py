"""Notes of rolls that outlive the records that they are of: else they become ever more.

What is to be rolled is found by all of them. So whole months of notes go, a month after the last
record of their time at the earliest; the newest month stays, as it says until when all is rolled.
"""

import datetime
from collections.abc import Iterable, Iterator

from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rolls import ROLLED
from flowvis.clickhouse.schema.tables import TABLE

MARGIN = datetime.timedelta(days=31)


def months_sql(layout: TableLayout) -> str:
    """Ask for the months that there are notes of, each as YYYYMM."""
    return (
        "SELECT DISTINCT partition_id FROM system.parts"
        f" WHERE database = '{layout.database}' AND table = '{ROLLED}' AND active"
    )


def oldest_day_sql(layout: TableLayout) -> str:
    """Ask for the day of the oldest records, as YYYYMMDD; "" without any.

    It is of all servers, as one that has just joined has none of them, or fails.
    """
    return (
        f"SELECT min(substring(partition_id, 1, 8)) FROM {layout.system('parts')}"
        f" WHERE database = '{layout.database}' AND table = '{layout.own(TABLE)}' AND active"
        " AND rows != 0"
    )


def outlived(months: Iterable[str], oldest_day: str, now_s: float) -> Iterator[str]:
    """Yield the months whose notes may go."""
    needed = datetime.datetime.fromtimestamp(now_s, datetime.UTC).date()
    if oldest_day:
        needed = min(needed, datetime.datetime.strptime(oldest_day, "%Y%m%d").date())  # noqa: DTZ007
    from_month = (needed - MARGIN).strftime("%Y%m")
    yield from (month for month in sorted(months)[:-1] if month < from_month)


def drop_sql(layout: TableLayout, month: str) -> str:
    """Write the ALTER TABLE that drops the notes of a month, which may be gone; on all servers."""
    return f"ALTER TABLE {layout.database}.{ROLLED} DROP PARTITION ID '{month}'"
