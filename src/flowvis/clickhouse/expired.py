"""What goes by its age before it is rolled up: found, noted in the store, and told.

A roll cannot tell: of records that went it just finds fewer. So of batches that are as old as
records become it is counted what is there, after their roll and each minute while they wait. What
went is noted as it goes, since whoever comes after a kill finds no batch any more.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Protocol

from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.partitions import HOUR_S
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rolls import StoredBatch
from flowvis.runtime.clock import utc

log = logging.getLogger(__name__)

LOOK_S = 60.0  # between looks at what went of batches that wait

Call = Callable[..., Awaitable[Any]]
"""Calls a function that blocks, with its arguments, where it delays nobody."""


class Tables(Protocol):
    """What of the roll-ups' tables is needed here; StoreError."""

    def there(self, from_s: int, to_s: int) -> dict[BatchId, int]:
        """Return how many records there are of each batch that was inserted in a span (s)."""

    def committed(self, before_s: int) -> Lost | None:
        """Return what the books have of after all that was rolled, and before a moment (s)."""


class LossNotes(Protocol):
    """Where a store keeps what roll-ups will never have."""

    def note_expired(self, lost: Sequence[Lost]) -> None:
        """Note what went by its age; StoreError."""


class LosingStore(Protocol):
    """What of a store is needed here."""

    lost: Sequence[Lost]

    @property
    def partitions(self) -> LossNotes | None:
        """Where it keeps what is lost; there where there are roll-ups."""

    @property
    def kept(self) -> Retention:
        """How long each table keeps what it has."""


class Counted(Protocol):
    """Where what is lost is counted."""

    expired_records: int


class Expired:
    """Knows what went of batches before they were rolled."""

    def __init__(
        self, store: LosingStore, stats: Counted, call: Call, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._stats = stats
        self._call = call
        self._clock = clock
        self._noted: dict[BatchId, int] = {}
        """How many records of a batch went, as far as that is noted."""
        self._looked_at_s = -LOOK_S
        """By the monotonic clock."""

    def clear(self) -> None:
        """Forget the batches: the store may be another one."""
        self._noted.clear()

    async def look(self, tables: Tables, unrolled: Iterable[StoredBatch]) -> AbstractSet[BatchId]:
        """Find out, from time to time, what went of batches.

        Returns those of which nothing is there any more.
        """
        if time.monotonic() - self._looked_at_s < LOOK_S:
            return frozenset()
        batches = list(unrolled)
        gone: AbstractSet[BatchId] = frozenset()
        if aged := self.aged(batches):
            gone = aged.keys() - (await self._note(tables, aged)).keys()
        still = {batch.batch_id for batch in batches}
        self._noted = {known: n for known, n in self._noted.items() if known in still}
        self._looked_at_s = time.monotonic()
        return gone

    async def of_roll(self, tables: Tables, batches: Sequence[StoredBatch]) -> int:
        """Return how many records of batches went, also as they were rolled just now."""
        if aged := self.aged(batches):
            await self._note(tables, aged)
        return sum(self._noted.get(batch.batch_id, 0) for batch in batches)

    async def unseen(self, tables: Tables, first_s: int) -> None:
        """Note what went while no process was there that knew it: the books say what was stored.

        Of what was committed before `first_s` nothing is there.
        """
        if not (kept_s := self._store.kept.records_s):
            return
        found = await self._call(tables.committed, min(first_s, int(self._clock()) - kept_s))
        if found is None:
            return
        known = sum(
            each.records
            for each in self._store.lost
            if each.begin_s < found.end_s and found.begin_s < each.end_s
        )
        if found.records > known:
            await self._lose([replace(found, records=found.records - known)])

    def aged(self, batches: Iterable[StoredBatch]) -> dict[BatchId, StoredBatch]:
        """Return those whose records are so old that they may be gone."""
        kept_s = self._store.kept.records_s
        before_s = int(self._clock()) - kept_s if kept_s else 0
        return {each.batch_id: each for each in batches if each.batch_id.inserted_s <= before_s}

    async def _note(
        self, tables: Tables, aged: Mapping[BatchId, StoredBatch]
    ) -> Mapping[BatchId, int]:
        """Note and tell what is gone of batches; return how many records there are of them.

        It may have been rolled by an attempt that nobody knows the outcome of: no more is lost.
        What the store's monitor dropped unrolled was told by it.
        """
        moments = [known.inserted_s for known in aged]
        there: dict[BatchId, int] = await self._call(tables.there, min(moments), max(moments) + 1)
        dropped = [each for each in self._store.lost if not each.expired]
        fresh: dict[BatchId, int] = {}
        for known, batch in aged.items():
            gone = batch.records - there.get(known, 0) - self._noted.get(known, 0)
            if gone > 0 and not any(d.begin_s <= known.inserted_s < d.end_s for d in dropped):
                fresh[known] = gone
        if not fresh:
            return there
        await self._lose(_by_hour(fresh))
        for known, gone in fresh.items():
            self._noted[known] = self._noted.get(known, 0) + gone
        return there

    async def _lose(self, lost: Sequence[Lost]) -> None:
        """Note what the roll-ups will never have, and tell of it."""
        if (notes := self._store.partitions) is not None:
            await self._call(notes.note_expired, lost)
        self._store.lost = [*self._store.lost, *lost]
        for each in lost:
            self._stats.expired_records += each.records
            log.error(
                "roll-ups: %d records that were committed from %s to %s went by clickHouse.ttl"
                " before they were rolled up, and are lost to the roll-ups",
                each.records, utc(each.begin_s), utc(each.end_s),
            )  # fmt: skip


def _by_hour(lost: Mapping[BatchId, int]) -> list[Lost]:
    """Put what went of batches together by the hour in which they were committed."""
    hours: dict[int, list[BatchId]] = {}
    for known in sorted(lost, key=lambda each: each.inserted_s):
        hours.setdefault(known.inserted_s // HOUR_S, []).append(known)
    return [
        Lost(
            of[0].inserted_s, of[-1].inserted_s + 1, sum(lost[known] for known in of), expired=True
        )
        for of in hours.values()
    ]
