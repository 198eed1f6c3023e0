"""Whether a repeated roll is in its roll-up, as the sums there say.

Who knows its token says yes, also an engine that was killed between noting the token and giving
the part its name: then it has nothing of the roll, and takes no repetition.
"""

from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rolls import ROLLED, Roll
from flowvis.clickhouse.schema.rollups import sums_sql
from flowvis.clickhouse.schema.tables import BATCH_NUMBER, INSERTED_SQL, TABLE, WRITER


def span_of(roll: Roll) -> tuple[int, int]:
    """Return the whole steps (s) that its records end in."""
    starts = [roll.rollup.start_s(batch.first_s) for batch in roll.batches]
    ends = [roll.rollup.start_s(batch.last_s) + roll.rollup.step_s for batch in roll.batches]
    return min(starts), max(ends)


def rolled_sums_sql(layout: TableLayout, roll: Roll, *, with_it: bool) -> str:
    """Ask for the sums of the records of its span that are rolled, or that are with it as well."""
    inserted = f"toUInt32({INSERTED_SQL})"
    chosen = (
        f"({inserted}, cityHash64({WRITER}, {BATCH_NUMBER})) IN (SELECT insertedSeconds,"
        f" cityHash64(writer, batchNumber) FROM {layout.database}.{ROLLED}"
        f" WHERE intoTable = '{roll.rollup.name}' AND done = 1)"
    )
    if with_it:
        own = ", ".join(batch.batch_id.sql for batch in roll.batches)
        chosen = f"({chosen} OR (toString({WRITER}), {inserted}, {BATCH_NUMBER}) IN ({own}))"
    return f"{sums_sql(layout, TABLE, *span_of(roll))} AND {chosen}"
