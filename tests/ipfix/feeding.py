"""Streams fed in every manner that a network may choose."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from flowvis.fields import EXPORTED, Field
from flowvis.ipfix import CollectorLimits, CollectorSession, Event, RecordBuffer
from flowvis.ipfix.collector import UNBOUNDED

from .conftest import Leaf
from .records import records_of


class Fed:
    """A collector session with what it has decoded so far."""

    def __init__(
        self,
        leaf: Leaf,
        *,
        fields: Sequence[Field] = EXPORTED,
        limits: CollectorLimits | None = None,
    ) -> None:
        self.fields = fields
        self.buffer = RecordBuffer(fields, leaf.table())
        # Room that nobody has written yet is not always zero: records must not show it.
        for column in self.buffer.target.columns:
            column.view(np.uint8).fill(0xEE)
        self.session = CollectorSession("peer", self.buffer, limits or CollectorLimits())
        self.events: list[Event] = []

    def feed(self, pieces: Iterable[bytes | memoryview], work: int = UNBOUNDED) -> "Fed":
        for piece in pieces:
            self.events += self.session.receive(piece, work)
            while self.session.pending:
                self.events += self.session.go_on(work)
        return self

    @property
    def records(self) -> list[dict[str, int | str]]:
        return records_of(self.buffer.batch(), self.fields)


def whole(stream: bytes) -> Iterator[bytes]:
    yield stream


def bytewise(stream: bytes) -> Iterator[bytes]:
    for at in range(len(stream)):
        yield stream[at : at + 1]


def with_tail(stream: bytes) -> Iterator[memoryview]:
    """All but the last few bytes, which come alone, from a buffer that is used again."""
    reused = bytearray(stream[:-5])
    yield memoryview(reused)
    reused[:] = b"\xee" * len(reused)
    yield memoryview(stream)[-5:]


MANNERS: dict[str, Callable[[bytes], Iterator[bytes | memoryview]]] = {
    "whole": whole,
    "bytewise": bytewise,
    "with a tail": with_tail,
}


def fed_in_every_manner(leaf: Leaf, stream: bytes, **options: Any) -> Fed:
    """Feed a stream whole, byte by byte, with a tail and with little work a call: all must agree.

    Returns one of them.
    """
    outcomes = [Fed(leaf, **options).feed(manner(stream)) for manner in MANNERS.values()]
    outcomes += [Fed(leaf, **options).feed(manner(stream), work=1) for manner in MANNERS.values()]
    first = outcomes[0]
    for other in outcomes[1:]:
        assert other.records == first.records
        assert other.session.stats == first.session.stats
        assert [repr(event) for event in other.events] == [repr(event) for event in first.events]
    return first
