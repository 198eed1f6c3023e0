"""Claims: which of several aggregators rolls batches that are not noted of any roll.

Notes alone are no lock. Two that look at one moment both find nothing noted, and both begin: then
these batches are in a roll-up twice. So who is about to roll what others may take claims it first,
waits until claims of the same moment are there as well, and rolls what it has the first claim of.

Claims are rows of `flow_rolled` under names that no roll-up has; nobody else reads those.
"""

from collections.abc import Iterable, Sequence

from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.rolls import ROLLED
from flowvis.clickhouse.schema.rollups import Rollup

VALID_S = 600
"""After so long a claim is nobody's: who made it has noted a roll by then, or is dead."""
USED_S = 300
"""For so long who has the first claim may go by it without a look."""
_SAFE_S = VALID_S - USED_S - 60
"""A claim that is older would end too soon: who comes after it must not have a claim as well."""


def _name(rollup: Rollup) -> str:
    return f"{rollup.name} claimed"


def claim_sql(
    layout: TableLayout, rollup: Rollup, claimant: str, batches: Sequence[BatchId]
) -> str:
    """Write the INSERT that claims batches, of which there is one at least."""
    ids = ", ".join(one.sql for one in batches)
    return (
        f"INSERT INTO {layout.database}.{ROLLED}"
        f" SELECT '{_name(rollup)}', {literal(claimant)}, id.1, id.2, id.3, 0, now()"
        f" FROM (SELECT arrayJoin([{ids}]) AS id)"
    )


def claims_sql(layout: TableLayout, rollup: Rollup, batches: Sequence[BatchId]) -> str:
    """Ask who has the first claim of each batch of the moments of these; see `read_claims`.

    Nobody has, until it is over, where the first claim ends soon and another one comes after it.
    """
    moments = ", ".join(sorted({str(one.inserted_s) for one in batches}))
    return (
        "SELECT writer, insertedSeconds, batchNumber, argMin(roll, (changed, roll)) AS first,"
        f" argMinIf(roll, (changed, roll), changed > now() - {_SAFE_S}) AS later,"
        " if(first = later, first, '')"
        f" FROM {layout.database}.{ROLLED} WHERE intoTable = '{_name(rollup)}'"
        f" AND insertedSeconds IN ({moments}) AND changed > now() - {VALID_S}"
        " GROUP BY writer, insertedSeconds, batchNumber"
    )


def read_claims(rows: Iterable[Sequence[object]]) -> dict[BatchId, str]:
    """Return what `claims_sql` found."""
    return {
        BatchId(str(writer), int(str(inserted_s)), int(str(number))): str(claimant)
        for writer, inserted_s, number, _, _, claimant in rows
    }
