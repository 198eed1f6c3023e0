"""The books as their history has them: of each stage of the ledger, and of each node."""

from collections.abc import Callable, Iterator, Mapping

from flowvis.aggregator.nodes import Nodes
from flowvis.clickhouse.schema.books import EXPORTER, BookEntry, What
from flowvis.runtime.ledger import Ledger

EXPECTED_S = 3600
"""How long a node is expected after it was last heard, where no inventory says which nodes there
are."""


def book_entries(
    ledger: Ledger,
    nodes: Callable[[], Nodes],
    clock: Callable[[], float],
    receiving: Callable[[], bool],
    settled: Callable[[], Mapping[str, int]],
) -> Callable[[int], Iterator[BookEntry]]:
    """Return what gives all numbers, for an interval of so many seconds that ends now.

    `clock` is the one that nodes were heard by. While we are not `receiving`, as a replica that
    waits or at a stop, that a node has no session here says nothing of it. `settled` tells of
    roll-ups until when they have all, in milliseconds.
    """

    def entries(seconds: int) -> Iterator[BookEntry]:
        for stage in ledger.stages.values():
            yield BookEntry(stage.name, What.RECEIVED, stage.received)
            yield BookEntry(stage.name, What.SENT, stage.sent)
            yield BookEntry(stage.name, What.MERGED, stage.merged)
            yield BookEntry(stage.name, What.HELD, stage.held())
            for reason, records in stage.dropped.items():
                yield BookEntry(stage.name, What.DROPPED, records, reason)
        for rollup, until_ms in settled().items():
            yield BookEntry(rollup, What.SETTLED, until_ms // 1000)
        now, known = clock(), nodes()
        present = known.listed()
        for node in known.reports():
            away = None if node.last_s is None else now - node.last_s
            expected = node.name in present if present else away is None or away < EXPECTED_S
            if not (expected or node.sessions):
                continue
            yield BookEntry(EXPORTER, What.RECEIVED, node.records, node=node.name)
            yield BookEntry(EXPORTER, What.LOST, node.lost, node=node.name)
            if receiving() and not node.sessions:
                silent = seconds if away is None else min(round(away), seconds)
                yield BookEntry(EXPORTER, What.SILENT, silent, node=node.name)

    return entries
