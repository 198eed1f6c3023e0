"""Sends the written records to an external collector as JSON, an object a line.

The form is Antrea's: `{"ipfix": {<element>: value, ...}, "@timestamp": "2024-01-31T12:00:00Z"}`, as
Logstash takes it with its codec json_lines. Elements are those of the IPFIX templates, in their
order; addresses, UUIDs and texts are strings, all others numbers, times in seconds. `@timestamp` is
when it was sent. Over UDP a datagram is one line; an object is larger than most paths take, so it
may go in fragments.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.destinations.sending import CollectorDestination
from flowvis.aggregator.destinations.texts import each
from flowvis.aggregator.enrichment.uids import uuid_text
from flowvis.backlog import UNBOUNDED
from flowvis.batch import Batch, address_text, whole_rows
from flowvis.delivery.queue import Queue
from flowvis.fields import AGGREGATED, Field, Kind
from flowvis.ipfix.exporter import go_as_ipv4, in_sending_order
from flowvis.runtime.clock import utc
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.transport.client import Client

AT_ONCE = 500  # records encoded in one go: 1 MB, some 10 ms
AT_ONCE_BYTES = 4 << 20
"""Of lines made in one go: with the texts that an exporter may bring, one has up to 2 MB."""
PROBE = b" "  # before an object that means nothing
UNSET = {4: "0.0.0.0", 6: "::"}  # noqa: S104  what IPFIX has where there is no address


class JsonDestination(CollectorDestination):
    """Records as JSON, an object a line."""

    def __init__(
        self, client: Client, stage: Stage, *, fields: Sequence[Field] = AGGREGATED, **options: Any
    ) -> None:
        super().__init__("JSON collector", client, stage, **options)
        self._fields = tuple(fields)

    def _encoder(self) -> "_Lines":
        longest = self.client.max_message if self.client.datagrams else UNBOUNDED
        return _Lines(self._fields, self._now, longest)


class _Lines:
    """One session's messages."""

    def __init__(self, fields: Sequence[Field], now_s: Callable[[], int], longest: int) -> None:
        self._fields, self._now_s, self._longest = fields, now_s, longest
        self._batch: Batch | None = None  # what is taken
        self._lines: Iterator[bytes] = iter(())
        self.left = 0

    def opening(self) -> list[bytes]:
        """A session begins with the first record."""
        return []

    def next_messages(self, queue: Queue) -> list[bytes]:
        """Take records as messages of one line: of more a collector may have had a part.

        Those that no datagram can hold are dropped.
        """
        if not self.left:
            batch = queue.take(AT_ONCE)
            if batch is None:
                return []
            self._batch = in_sending_order(batch)
            queue.rewrite(self._batch)
            self._lines = json_lines(self._batch, self._fields, self._now_s())
            self.left = len(batch)
        lines, size = [], 0
        for line in self._lines:
            lines.append(line)
            size += len(line)
            if size > AT_ONCE_BYTES:
                break
        self.left -= len(lines)
        if max(map(len, lines)) > self._longest:
            fitting = [len(line) <= self._longest for line in lines]
            self._drop(queue, np.array(fitting))
            lines = list(compress(lines, fitting))
        return lines

    def _drop(self, queue: Queue, fitting: NDArray[np.bool_]) -> None:
        """Drop those of the next records of what is taken that do not fit."""
        if self._batch is not None:
            rest = self._batch.take(slice(len(self._batch) - self.left - len(fitting), None))
            kept = np.concatenate([fitting, np.ones(self.left, dtype=bool)])
            self._batch = rest.take(kept)
            queue.rewrite(self._batch, OutgoingDropped.OVERSIZE)

    def records_in(self, unsent: Sequence[bytes]) -> int:
        """Count the messages."""
        return len(unsent)


def json_lines(batch: Batch, fields: Sequence[Field], now_s: int) -> Iterator[bytes]:
    """Go through the lines of a batch's records, IPv4 before IPv6; `now_s` is since the epoch."""
    moment = utc(now_s)
    ipv4 = go_as_ipv4(batch)
    for version, rows in ((4, np.flatnonzero(ipv4)), (6, np.flatnonzero(~ipv4))):
        if not len(rows):
            continue
        present = [field for field in fields if field.elements]
        names = (json.dumps(field.element(version)) for field in present)
        form = (
            f'{{"ipfix":{{{",".join(f"{name}:%s" for name in names)}}},"@timestamp":"{moment}"}}\n'
        )
        columns = [_texts(batch, field, rows, version) for field in present]
        for values in zip(*columns, strict=True):
            yield (form % values).encode()


def _texts(batch: Batch, field: Field, rows: NDArray[np.int64], version: int) -> list[str]:
    """One field of some records as JSON; what is not in the batch is 0 or empty."""
    if field.name not in batch:
        unset = {Kind.TEXT: '""', Kind.UUID: '""', Kind.ADDRESS: f'"{UNSET[version]}"'}
        return [unset.get(field.kind, "0")] * len(rows)
    column = batch[field.name][rows]
    if field.kind is Kind.TEXT:
        return each(column, lambda codes: map(json.dumps, batch.strings.texts(codes)))
    if field.kind is Kind.ADDRESS:
        unset_text = UNSET[version]
        return each(
            whole_rows(column),
            lambda found: (f'"{address_text(one.tobytes()) or unset_text}"' for one in found),
        )
    if field.kind is Kind.UUID:
        return each(
            whole_rows(column), lambda found: (f'"{uuid_text(one.tobytes())}"' for one in found)
        )
    return list(map(str, column.tolist()))
