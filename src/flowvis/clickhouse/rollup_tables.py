"""The roll-ups of a store: what is asked of their tables, and what is rolled into them."""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowvis.clickhouse.schema import outlived, repeated, rolls, whole_days
from flowvis.clickhouse.schema.claims import claim_sql, claims_sql, read_claims
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rolled_columns import SUMS
from flowvis.clickhouse.schema.rolls import Note, Roll, StoredBatch
from flowvis.clickhouse.schema.rollups import ROLLUPS, Rollup, sums_sql
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.runtime.clock import utc

STAGE = "clickhouse"  # of the ledger: what it sent is stored
STORED_S = 120  # from a batch to the page of the books that says it is stored, as a rule

Execute = Callable[[str, Mapping[str, int | str]], Iterable[Sequence[Any]]]
"""Executes one statement with settings, on a connection of the roll-ups' own; StoreError."""


class RollupTables:
    """The roll-ups of a store. Methods block; errors are StoreErrors."""

    def __init__(
        self,
        execute: Execute,
        layout: TableLayout,
        *,
        alone: bool,
        options: Mapping[str, int | str] | None = None,
        late_projections: bool = False,
    ) -> None:
        """`alone`: nobody else can write to the store. `options` are those of an INSERT there.

        `late_projections`: a part has none before its first merge.
        """
        self.alone = alone
        self.replicated = bool(layout.cluster)
        """Who is asked may lack what was just stored."""
        self._execute = execute
        self._layout = layout
        self._options = options or {}
        self._late_projections = late_projections

    def batches(self, since_s: int, begins: Mapping[str, int]) -> list[StoredBatch]:
        """Return the batches of records that were inserted since then, oldest first.

        Those that a roll-up lacks; before it `begins` (s, by its name) it is to have none.
        """
        sql = rolls.batches_sql(self._layout, since_s, begins)
        return list(rolls.read_batches(self._execute(sql, {})))

    def rolled(self, since_s: int) -> list[Note]:
        """Return what is noted of them."""
        return list(rolls.read_rolled(self._execute(rolls.rolled_sql(self._layout, since_s), {})))

    def now_s(self) -> int:
        """Return what the store's clock says."""
        ((now_s,),) = self._execute("SELECT toUInt32(now())", {})
        return int(now_s)

    def strangers_at_s(self, writer: str, since_s: int, until_s: int) -> int:
        """Return when somebody else committed last, in a span, what was rolled; 0: nobody did."""
        sql = rolls.strangers_sql(self._layout, writer, since_s, until_s)
        ((at_s,),) = self._execute(sql, {})
        return int(at_s)

    def taken(self, roll: Roll) -> dict[BatchId, bool]:
        """Return which batches are noted of other rolls into its table, and whether that is done.

        Those of the roll are among them.
        """
        return rolls.read_taken(self._execute(rolls.taken_sql(self._layout, roll), {}))

    def claim(self, rollup: Rollup, claimant: str, batches: Sequence[BatchId]) -> None:
        """Say that batches are going to be rolled by somebody, unless another one was first."""
        self._execute(claim_sql(self._layout, rollup, claimant, batches), self._options)

    def claimants(self, rollup: Rollup, batches: Sequence[BatchId]) -> dict[BatchId, str]:
        """Return who was first, of batches of the same moments as well."""
        return read_claims(self._execute(claims_sql(self._layout, rollup, batches), {}))

    def committed(self, before_s: int) -> Lost | None:
        """Return what the books have of after all that was rolled, and before a moment (s)."""
        ((until_s,),) = self._execute(rolls.rolled_until_sql(self._layout), {})
        from_s = int(until_s) + STORED_S if int(until_s) else 0
        sql = rolls.committed_sql(self._layout, STAGE, from_s, before_s)
        ((records, begin_s, end_s),) = self._execute(sql, {})
        if not int(records):
            return None
        return Lost(int(begin_s), int(end_s), int(records), expired=True)

    def there(self, from_s: int, to_s: int) -> dict[BatchId, int]:
        """Return how many records there are of each batch that was inserted in a span (s)."""
        return rolls.read_there(self._execute(rolls.there_sql(self._layout, from_s, to_s), {}))

    def forget(self, now_s: float) -> list[str]:
        """Drop notes of months that no record is of any more; return which, as YYYYMM."""
        layout = self._layout
        ((oldest,),) = self._execute(outlived.oldest_day_sql(layout), {})
        months = [str(month) for (month,) in self._execute(outlived.months_sql(layout), {})]
        gone = list(outlived.outlived(months, str(oldest), now_s))
        for month in gone:
            self._execute(outlived.drop_sql(layout, month), {})
        return gone

    def make_alike(self) -> list[str]:
        """Have days that are over become one part, where they would not; return which."""
        if not self._late_projections:
            return []
        days = [str(day) for (day,) in self._execute(whole_days.unlike_sql(self._layout), {})]
        for day in days:
            self._execute(whole_days.alike_sql(self._layout, day), {})
        return days

    def note(self, roll: Roll, *, done: bool) -> None:
        """Note that a roll begins or is done."""
        self._execute(rolls.note_sql(self._layout, roll, done=done), self._options)

    def roll(self, roll: Roll) -> None:
        """Roll; nothing happens if this roll was stored before."""
        self._roll(roll, roll.token)

    def roll_anew(self, roll: Roll) -> None:
        """Roll what is known not to be there, though the engine may take it for a repetition."""
        self._roll(roll, f"{roll.token}-{secrets.token_hex(4)}")

    def lacks(self, roll: Roll) -> bool:
        """Whether there is nothing of a roll that was acknowledged; False if nobody can say."""
        before, after = (
            self._sums(repeated.rolled_sums_sql(self._layout, roll, with_it=with_it))
            for with_it in (False, True)
        )
        return before != after and self.sums(roll.rollup.name, *repeated.span_of(roll)) == before

    def _roll(self, roll: Roll, token: str) -> None:
        options = {**rolls.WHOLE_BLOCK, "insert_deduplication_token": token, **self._options}
        self._execute(rolls.roll_sql(self._layout, roll), options)

    def sums(self, table: str, from_s: int, to_s: int) -> tuple[int, ...]:
        """Return the sums of a span of records, or of a roll-up, in the order of `SUMS`."""
        return self._sums(sums_sql(self._layout, table, from_s, to_s))

    def _sums(self, sql: str) -> tuple[int, ...]:
        found = next(iter(self._execute(sql, {})), ())
        return tuple(int(value) for value in found)


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that records and a roll-up do not agree in."""

    rollup: str
    from_s: int
    to_s: int
    measure: str
    records: int
    rolled: int

    def __str__(self) -> str:
        return (
            f"{self.rollup} has {self.measure} {self.rolled} of"
            f" {utc(self.from_s)} to"
            f" {time.strftime('%H:%M:%SZ', time.gmtime(self.to_s))}, records have {self.records}"
        )


def differences(tables: RollupTables, from_s: int, to_s: int) -> list[Difference]:
    """Compare the sums of a settled span of whole hours, or minutes, with those of its records."""
    expected = tables.sums(TABLE, from_s, to_s)
    found = []
    for rollup in ROLLUPS:
        if rollup.start_s(from_s) != from_s or rollup.start_s(to_s) != to_s:
            continue
        rolled = tables.sums(rollup.name, from_s, to_s)
        for column, right, has in zip(SUMS, expected, rolled, strict=True):
            if right != has:
                found.append(Difference(rollup.name, from_s, to_s, column.name, right, has))
    return found
