"""What of a store goes first when its disk fills: whole partitions, the oldest of records first.

Dropping a partition needs no room; a mutation, or a TTL that rewrites parts, does, when there is
least of it. So what can be kept is as fine as partitions are. Only where a disk does not hold the
newest hour parts of it go: an engine that has no room to merge in has small ones.

On a cluster each server has a disk of its own, and a part of all records. What the fullest one has
to give up goes on all of them, so that what is there is as old everywhere.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from flowvis.clickhouse.schema.partitions import Disk, Partition, Server
from flowvis.clickhouse.schema.rolls import StoredBatch
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES
from flowvis.clickhouse.schema.tables import BOOKS, TABLE

NEWEST_S = 3600
"""What was committed within so long stays, unless it alone fills the disk."""
LEAST_S = 300
"""What was committed within so long is never dropped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much room a store may take."""

    threshold: float = 0.9
    """Of the disk, and of `max_bytes`: above it something goes."""
    share: float = 0.1
    """Of the store's bytes: so much goes at once, at the least."""
    max_bytes: int = 0
    """The store's own size; 0: as the disk has."""


@dataclass(frozen=True, slots=True)
class Excess:
    """What is too much."""

    bytes: int = 0
    """That have to go; 0: all is well, or nothing of the store would help."""
    why: str = ""
    foreign: bool = False
    """Others fill the disk, so that it is too full even without the store."""
    urgent: bool = False
    """Nothing will fit in soon: also of the newest hour something has to go."""


def excess(
    limits: Limits,
    own: int,
    disks: Sequence[Disk],
    replaced: int = 0,
    *,
    full: bool = False,
    dropped: bool = False,
) -> Excess:
    """Say how many bytes are too many, of a store that has `own` of them.

    `replaced` bytes more are going to be given back, unless the disk is full before; soon, if they
    are of what was just `dropped`. From halfway between the threshold and a full disk on it is
    urgent, or when the engine says that it is `full`.
    """
    found = [Excess()]
    least = round(own * limits.share)
    if limits.max_bytes and (over := own - int(limits.max_bytes * limits.threshold)) > 0:
        part = own / limits.max_bytes
        why = f"the store has {part:.0%} of clickHouse.monitor.storageSize"
        found.append(Excess(max(over, least), why))
    for disk in disks:
        left = disk.used - (replaced if dropped else 0)
        urgent = full or left > disk.total * (1 + limits.threshold) / 2
        over = disk.used - int(disk.total * limits.threshold) - (0 if urgent else replaced)
        if full and disk.used > disk.total / 2:  # a commit needs room for it uncompressed
            over = max(over, least)
        if over <= 0 or not disk.total:
            continue
        why = f"disk {disk.name} is {disk.used / disk.total:.0%} full"
        if over >= own + replaced:
            found.append(Excess(0, f"{why}, and not with flows: free some of it", foreign=True))
        else:
            found.append(Excess(max(over, least), why, urgent=urgent))
    return max(found, key=lambda each: (each.urgent, each.bytes, each.foreign))


def whole(servers: Sequence[Server]) -> dict[tuple[str, str], Partition]:
    """Return the partitions of all servers, each with what all shards have of it together.

    Replicas of a shard have the same, but for what one has yet to fetch.
    """
    by_shard: dict[tuple[str, str], dict[str, Partition]] = {}
    for server in servers:
        for each in server.partitions:
            shards = by_shard.setdefault(each.known, {})
            before = shards.get(server.shard)
            if before is None or (each.rows, each.bytes) > (before.rows, before.bytes):
                shards[server.shard] = each
    return {
        known: replace(
            next(iter(shards.values())),
            rows=sum(each.rows for each in shards.values()),
            bytes=sum(each.bytes for each in shards.values()),
        )
        for known, shards in by_shard.items()
    }


def with_unrolled(
    partitions: Iterable[Partition], batches: Sequence[StoredBatch], most: int
) -> Iterator[Partition]:
    """Add how many records of each partition no roll-up has.

    `batches` are the oldest that are not in all roll-ups, oldest first. If there are `most` of
    them, there may be more: of anything later nobody knows that it was rolled.
    """
    known_s = batches[-1].batch_id.inserted_s if len(batches) >= most else None
    moments = [batch.batch_id.inserted_s for batch in batches]
    before = [0, *accumulate(batch.records for batch in batches)]
    for each in partitions:
        first, last = (bisect_left(moments, end_s) for end_s in (each.begin_s, each.end_s))
        unrolled = before[last] - before[first]
        if known_s is not None and each.end_s > known_s:
            unrolled = each.rows
        if each.table == TABLE and unrolled:
            yield replace(each, unrolled=unrolled)
        else:
            yield each


def choose(partitions: Iterable[Partition], needed: int, now_s: int) -> list[Partition]:
    """Return what is to be dropped for `needed` bytes, in order; less where there is no more.

    Records that the roll-ups have come first, then minutes, hours, and the books of what is gone
    altogether; records that no roll-up has are last. Each from its oldest on, and nothing that was
    committed in the newest hour.
    """
    there = sorted(partitions, key=lambda each: each.end_s)
    old = [each for each in there if each.end_s <= now_s - NEWEST_S]

    def of(table: str) -> list[Partition]:
        return [each for each in old if each.table == table and not each.unrolled]

    first = [*of(TABLE), *of(MINUTES.name), *of(HOURS.name)]
    left = set(there).difference(first)
    left_s = min((each.begin_s for each in left if each.table != BOOKS), default=now_s)
    books = [each for each in of(BOOKS) if each.end_s <= left_s]
    unrolled = [each for each in old if each.unrolled]
    return list(_enough([*first, *books, *unrolled], needed))


def _enough(order: Iterable[Partition], needed: int) -> Iterator[Partition]:
    """Go through the first ones that have `needed` bytes together."""
    for each in order:
        if needed <= 0:
            return
        yield each
        needed -= each.bytes


def choose_newest(pieces: Iterable[Partition], needed: int, now_s: int) -> list[Partition]:
    """Return what of the newest hour goes where it alone fills the disk, in order.

    The same order, of parts; nothing that was committed in the newest minutes.
    """
    old = sorted(
        (each for each in pieces if each.end_s <= now_s - LEAST_S), key=lambda each: each.end_s
    )
    tables = (TABLE, MINUTES.name, HOURS.name)
    order = [each for name in tables for each in old if each.table == name and not each.unrolled]
    return list(_enough([*order, *(each for each in old if each.unrolled)], needed))
