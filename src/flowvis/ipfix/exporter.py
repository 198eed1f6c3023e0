"""The sending side of one session: batches in, messages out."""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column, is_ipv4, is_unset
from flowvis.fields import Field, Kind
from flowvis.ipfix.acknowledgement import sent_again
from flowvis.ipfix.exporter_report import ExporterReport, report_message
from flowvis.ipfix.fitting import fitted
from flowvis.ipfix.occupancy import Occupant, occupancy_message
from flowvis.ipfix.plan import encode_program
from flowvis.ipfix.stats import ExporterStats
from flowvis.ipfix.template import TEMPLATE_SET, Template, of_fields, write_set, write_template
from flowvis.native import RecordEncoder
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, SET, VERSION, minimum_length
from flowvis.strings import Strings

TEMPLATE_IDS = {4: FIRST_DATA_SET, 6: FIRST_DATA_SET + 1}


_WITHDRAWAL = write_set(TEMPLATE_SET, write_template(Template(TEMPLATE_SET, ())))

PROBE = HEADER.pack(VERSION, HEADER.size + len(_WITHDRAWAL), 0, 0, 0) + _WITHDRAWAL
"""A message that changes nothing: the withdrawal of all templates (RFC 7011 section 8.1) of
observation domain 0, in which nothing is exported."""


class ExporterSession:
    """Turn batches into IPFIX messages for one transport session. Does no I/O.

    Records of IPv4 go out under template 256, the others under 257; a field that a batch lacks goes
    out as 0 or empty. A record that no message can hold goes out with its longest texts shortened.
    `now` is in seconds since the epoch. Templates go out with `templates`, at the start of the
    session, and, if `template_refresh` (seconds) is given, again with `encode` as that often (RFC
    7011 section 8.4: for UDP).
    """

    def __init__(
        self,
        domain: int,
        fields: Sequence[Field],
        *,
        max_message: int = 65535,
        template_refresh: int | None = None,
    ) -> None:
        self.stats = ExporterStats()
        self._domain = domain
        self._fields = tuple(fields)
        self.max_message = max_message
        if (least := least_message(self._fields)) > max_message:
            raise ValueError(f"messages of {max_message} bytes: a template takes {least}")
        self._refresh = template_refresh
        self._refreshed: int | None = None
        self._sequence = 0
        self.encoded = 0
        self.oversized: list[int] = []
        self._template_sets = _template_sets(self._fields)
        self._text = tuple(f.name for f in self._fields if f.kind is Kind.TEXT)
        self._fixed = {  # bytes of a record beside its texts
            version: minimum_length(encode_program(self._fields, version)) - len(self._text)
            for version in TEMPLATE_IDS
        }
        self._encoders: dict[int, RecordEncoder] = {
            version: RecordEncoder(domain, template_id, encode_program(self._fields, version))
            for version, template_id in TEMPLATE_IDS.items()
        }

    def restart(self) -> None:
        """Begin another session of the same templates, whose records are numbered from 0."""
        self._sequence, self._refreshed = 0, None

    def templates(self, now: int) -> list[bytes]:
        """The messages with the templates, one in each."""
        self._refreshed = now
        return self._sent([self._header(len(body), now) + body for body in self._template_sets])

    def templates_due(self, now: int) -> list[bytes]:
        """The messages with the templates where it is time for them again, else none."""
        return self.templates(now) if self._refresh_due(now) else []

    def sent_again(self, count: int, now: int) -> list[bytes]:
        """The message that says that so many of the first records may have been received before.

        For the beginning of a session that acknowledges (see `flowvis.ipfix.acknowledgement`).
        """
        message = sent_again(self._domain, count, export_time=now, sequence=self._sequence)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sent([message])

    def report(self, report: ExporterReport, now: int) -> list[bytes]:
        """The message that says what the exporter counts; for sessions that acknowledge."""
        message = report_message(self._domain, report, export_time=now, sequence=self._sequence)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sent([message])

    def occupancy(self, occupants: Sequence[Occupant], now: int) -> list[bytes]:
        """The message that says who fills the node's table; for sessions that acknowledge."""
        sequence, domain = self._sequence, self._domain
        message = occupancy_message(domain, occupants, export_time=now, sequence=sequence)
        self._sequence = (sequence + max(len(occupants), 1)) & 0xFFFFFFFF
        return self._sent([message])

    def encode(self, batch: Batch, now: int, *, max_bytes: int = sys.maxsize) -> list[bytes]:
        """Whole messages with the records of a batch: IPv4, then IPv6; see `in_sending_order`.

        The last message is the one with which they have `max_bytes`. The first `encoded` records,
        in that order, are in them, or `oversized`: places in the batch of those that no message can
        hold.
        """
        self.encoded, self.oversized = 0, []
        messages = self.templates_due(now)
        if not len(batch):
            return messages
        columns = [_column(batch, field) for field in self._fields]
        ipv4 = go_as_ipv4(batch)
        for version, mask in ((4, ipv4), (6, ~ipv4)):
            rows = np.flatnonzero(mask)
            if not len(rows):
                continue
            before = self.encoded
            made = self._encode(version, columns, batch, rows, now, max_bytes=max_bytes)
            messages += made
            max_bytes -= sum(map(len, made))
            if self.encoded - before < len(rows) or max_bytes <= 0:
                break
        return messages

    def records_from(self, messages: Sequence[bytes]) -> int:
        """How many records are in the last messages of this session, from these on."""
        return (self._sequence - _sequence(messages[0])) & 0xFFFFFFFF if messages else 0

    def _encode(
        self,
        version: int,
        columns: list[Column],
        batch: Batch,
        rows: NDArray[np.int64],
        now: int,
        *,
        max_bytes: int,
    ) -> list[bytes]:
        encoder = self._encoders[version]
        messages, written = self._written(
            encoder, columns, batch.strings, rows, now, max_bytes=max_bytes
        )
        if long := encoder.oversized:
            # All of them once more: who resends some counts on their order.
            rows = rows[: written + len(long)]
            room = self.max_message - HEADER.size - SET.size - self._fixed[version]
            fitting = fitted(batch, self._text, long, room)
            columns = [_column(fitting, field) for field in self._fields]
            strings = fitting.strings
            messages, written = self._written(
                encoder, columns, strings, rows, now, max_bytes=max_bytes
            )
            done = rows[: written + len(encoder.oversized)]
            self.stats.shortened += int(np.isin(long, done).sum()) - len(encoder.oversized)
        self.encoded += written + len(encoder.oversized)
        self._sequence = (self._sequence + written) & 0xFFFFFFFF
        self.stats.records += written
        self.stats.oversize += len(encoder.oversized)
        self.oversized += encoder.oversized
        return self._sent(messages)

    def _written(
        self,
        encoder: RecordEncoder,
        columns: list[Column],
        strings: Strings,
        rows: NDArray[np.int64],
        now: int,
        *,
        max_bytes: int,
    ) -> tuple[list[bytes], int]:
        return encoder.encode(
            columns,
            strings,
            rows,
            export_time=now,
            sequence=self._sequence,
            max_message=self.max_message,
            max_bytes=max_bytes,
        )

    def _refresh_due(self, now: int) -> bool:
        if self._refresh is None or self._refreshed is None:
            return False
        return not 0 <= now - self._refreshed < self._refresh  # the clock may be set back

    def _sent(self, messages: list[bytes]) -> list[bytes]:
        self.stats.messages += len(messages)
        self.stats.octets += sum(map(len, messages))
        return messages

    def _header(self, length: int, now: int) -> bytes:
        return HEADER.pack(VERSION, HEADER.size + length, now, self._sequence, self._domain)


def go_as_ipv4(batch: Batch) -> NDArray[np.bool_]:
    """Which records have elements of IPv4: no other fits the address of an end that is of IPv6."""
    ipv4 = is_ipv4(batch["sourceIP"])
    if "destinationIP" in batch:
        other = batch["destinationIP"]
        ipv4 &= is_ipv4(other) | is_unset(other)
    return ipv4


def in_sending_order(batch: Batch) -> Batch:
    """The records of a batch in the order that a session sends them in: IPv4, then IPv6."""
    ipv4 = go_as_ipv4(batch)
    if ipv4.all() or not ipv4.any():
        return batch
    return batch.take(np.concatenate([np.flatnonzero(ipv4), np.flatnonzero(~ipv4)]))


def least_message(fields: Sequence[Field]) -> int:
    """Bytes of the largest message that a session of these fields cannot do without: a template."""
    return max(HEADER.size + len(body) for body in _template_sets(fields))


def _template_sets(fields: Sequence[Field]) -> list[bytes]:
    """One set for each template, each to go in a message of its own.

    RFC 7011 allows several templates in a set and several sets in a message; go-ipfix, and with it
    Antrea's aggregator, reads the first of either only.
    """
    return [
        write_set(TEMPLATE_SET, write_template(of_fields(template_id, tuple(fields), version)))
        for version, template_id in TEMPLATE_IDS.items()
    ]


def _column(batch: Batch, field: Field) -> Column:
    """The field's column as the encoder takes it; zeros without memory where there is none."""
    kind = field.kind
    if field.name not in batch:
        return np.broadcast_to(np.zeros(kind.shape, kind.dtype), (len(batch), *kind.shape))
    column = batch[field.name]
    if column.dtype != kind.dtype:
        raise TypeError(f"{field.name}: a column of {column.dtype}, need {kind.dtype}")
    return column


def _sequence(message: bytes) -> int:
    return int(HEADER.unpack_from(message)[3])


def observation_domain_id(node_name: str) -> int:
    """The hash of a node's name, as Antrea's exporters number themselves."""
    return fnv1(node_name.encode())


def host_domain_id(host_name: str, machine_id: str) -> int:
    """The hash of a host outside of clusters, where a name may be that of several."""
    return fnv1(f"{host_name}\0{machine_id}".encode())


def fnv1(data: bytes) -> int:
    """The 32-bit FNV-1 hash."""
    state = 0x811C9DC5
    for byte in data:
        state = (state * 0x01000193 & 0xFFFFFFFF) ^ byte
    return state
