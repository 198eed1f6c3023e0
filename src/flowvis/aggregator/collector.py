"""Turns the bytes of all exporters into records for the correlator."""

import asyncio
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TypeVar

from flowvis.aggregator.correlation.relayed import number_originals
from flowvis.aggregator.correlator import Correlator
from flowvis.aggregator.enrichment.reported_nodes import LONGEST_NAME
from flowvis.aggregator.exporter_sessions import (
    PAUSE_S,
    ExporterDatagrams,
    ExporterStream,
)
from flowvis.aggregator.exporters import Exporters
from flowvis.aggregator.payers import Payers
from flowvis.aggregator.reporters import Reporter
from flowvis.aggregator.shares import Shares
from flowvis.errors import LimitExceeded
from flowvis.fields import EXPORTED
from flowvis.ipfix.buffer import DOMAIN, RecordBuffer
from flowvis.ipfix.collector import CollectorStats
from flowvis.ipfix.events import (
    Event,
    Fruitless,
    Malformed,
    NotUnderstood,
    SequenceGap,
    TemplateLearned,
)
from flowvis.ipfix.exporter_report import ExporterReport
from flowvis.ipfix.limits import ASSURED_TEMPLATE_BYTES, CollectorLimits
from flowvis.runtime.clock import now_ms
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.server import Peer

log = logging.getLogger(__name__)

NODE_NAMES = ("sourceNodeName", "destinationNodeName")
FULL_RECORDS = 8192  # handed on at once, sessions wait meanwhile: 3 MB, which caches still like
MAX_FORMER = 10_000  # exporters without a session that are remembered: two for each node at most
RECORD_S = 2e-6  # what handing a record on costs, until some were
HAND_ON_S = 0.1  # nobody else is served meanwhile: of records that cost more, fewer go at once
LEAST_RECORDS = 256
TEMPLATE_LIFE_S = 1800.0  # over UDP: three times the usual time between two (RFC 7011 section 8.4)
DELAY_S = 0.04  # how long fewer records wait for company: a call costs as much as 200 records

Handler = TypeVar("Handler", bound=ExporterStream)


class Collector:
    """All sessions, which decode into one buffer. `stage` is its page in the ledger."""

    name = "collector"

    def __init__(
        self,
        correlator: Correlator,
        stage: Stage,
        limits: CollectorLimits | None = None,
        *,
        waiting_bytes: int = 1 << 62,
        template_bytes: int = 1 << 62,
        template_life_s: float = TEMPLATE_LIFE_S,
    ) -> None:
        """`waiting_bytes` bounds what all sessions together hold that is not decoded yet.

        `template_bytes` bounds what all their templates take, beside what each may always have.
        Over UDP templates that do not come again within `template_life_s` are forgotten.
        """
        self.stage = stage
        self.sessions: dict[int, ExporterStream] = {}
        self._repeating: set[ExporterStream] = set()
        self.exporters = Exporters()
        self._correlator = correlator
        self._limits = limits or CollectorLimits()
        self.template_life_s = template_life_s
        self._payers = Payers()
        self.waiting = Shares(waiting_bytes)
        """What waits to be decoded."""
        self.templates = Shares(template_bytes)
        self.buffer = RecordBuffer(EXPORTED, correlator.table.strings, FULL_RECORDS)
        self._numbers = itertools.count(1)
        self._former, self._former_senders = _Former(), _Former()
        """Of streams, and of datagrams: addresses of these may be made up."""
        self._ended = CollectorStats()
        self._timer: asyncio.TimerHandle | None = None
        self._unnoted: set[ExporterStream] = set()
        """Sessions that acknowledge, of which the buffer has records."""
        self._log = LimitedLog(log)
        self.handed_s = 0.0
        """CPU time that handing records on took so far."""
        self.record_s = RECORD_S
        """What it took for one, lately."""
        correlator.quarantine.who = self.exporters.named
        correlator.table.own(self.exporters.address)
        correlator.keeps = self.exporters.keeps
        stage.held = lambda: len(self.buffer)
        self.asks: Callable[[], bool] = bool
        """Whether there is a store to say what was written before."""

    @property
    def holds(self) -> bool:
        """Whether records wait in the buffer, and sessions with theirs, as the table is to wait."""
        return self._correlator.full and len(self.buffer) > 0

    async def start(self) -> None:
        """Nothing to open: sessions come from the server."""

    async def stop(self) -> None:
        """Hand on what the sessions left."""
        self.flush(last=True)

    def open(self, peer: Peer) -> ExporterStream:
        """Return the handler of a new peer's bytes."""
        return self._opened(ExporterStream, peer)

    def open_datagrams(self, peer: Peer) -> ExporterDatagrams:
        """Return the handler of a new sender's datagrams."""
        return self._opened(ExporterDatagrams, peer)

    def _opened(self, kind: type[Handler], peer: Peer) -> Handler:
        number = next(self._numbers) & 0xFFFFFFFF
        payer = self._payers.open(peer.address, self.buffer.strings)
        handler = kind(self, peer, number, self._limits, payer)
        self.sessions[number] = handler
        return handler

    def filling(self) -> RecordBuffer:
        """Return the buffer to decode into, over the table's own strings where it is empty."""
        strings = self._correlator.table.strings
        if self.buffer.strings is not strings and not len(self.buffer):
            self.buffer.strings = strings
        return self.buffer

    def totals(self) -> CollectorStats:
        """Sum up all sessions since the start."""
        return total([self._ended, *(session.stats for session in self.sessions.values())])

    def received(self, session: ExporterStream, count: int, events: Iterable[Event]) -> None:
        """Note that a session has put records into the buffer."""
        self.stage.received += count
        if count and session.acknowledged:
            self._unnoted.add(session)
        if count and session.may_be_named():
            session.named = self._node_of_the_last()
        if len(self.buffer) >= min(FULL_RECORDS, max(HAND_ON_S / self.record_s, LEAST_RECORDS)):
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_S, self.flush)
        self.tell(session.peer, events)

    def repeats(self, session: ExporterStream) -> None:
        """Note that records of a session that are in the buffer may have been received before."""
        self._repeating.add(session)
        session.mark_repeating(repeating=True)

    def _end_repeats(self) -> None:
        """Note that the buffer has been handed on, and what was repeated in it with it."""
        for session in self._repeating:
            session.mark_repeating(repeating=False)
        self._repeating = {session for session in self._repeating if session.repeating}
        for session in self._repeating:
            session.mark_repeating(repeating=True)

    def check_waiting(self, address: str) -> None:
        """Raise LimitExceeded if too much waits, and of this address more than of others."""
        if excess := self.waiting.excess(address, self._limits.pending_bytes):
            held, share = excess
            detail = f"{address} has sent {held} bytes that are not decoded yet; at most "
            raise LimitExceeded("waiting-memory", f"{detail}{share} now, as all sessions do so")

    def check_templates(self, session: ExporterStream) -> None:
        """Raise LimitExceeded if templates take too much, this address's more than others'."""
        address = session.peer.address
        excess = self.templates.excess(address)
        if excess and session.template_bytes > ASSURED_TEMPLATE_BYTES:
            held, share = excess
            detail = f"templates of {address}, or domains, take {held} bytes; at most {share} now"
            raise LimitExceeded("template-memory", f"{detail}, as all sessions have so many")

    def memory_bytes(self) -> int:
        """About what receiving takes in memory."""
        sessions = sum(session.own_bytes for session in self.sessions.values())
        held = self.waiting.bytes + self.templates.bytes
        return held + self.buffer.memory_bytes + sessions

    def refused(self, session: ExporterStream, payer: int) -> None:
        """Say in the log that a session's text has no room any more."""
        strings = self.buffer.strings
        text = (
            "%d texts were refused and are empty: those of %s take %d of %d bytes for text, which "
            "is all that one address may have as long as others have what they have; "
            "raise memory.limit if it needs so much"
        )
        values = (session.stats.refused_texts, session.peer.address)
        bytes_of = (strings.charged(payer), strings.max_bytes)
        self._log.log(logging.WARNING, session.peer.address, text, *values, *bytes_of)

    def tell(self, peer: Peer, events: Iterable[Event]) -> None:
        """Say in the log what a session reports."""
        for event in events:
            self._tell(peer, event)

    def closed(self, session: ExporterStream) -> None:
        """Note that a session is over."""
        del self.sessions[session.number]
        self._unnoted.discard(session)
        if session.acknowledged and session.taken():
            self._correlator.acknowledgements.forget(session)
        self._payers.close(session.peer.address)
        self.waiting.add(session.peer.address, -session.waiting_bytes)
        self.templates.add(session.peer.address, -session.template_bytes)
        (self._former_senders if session.datagrams else self._former).note(session)
        self._ended = total([self._ended, session.stats])

    def reporters(self) -> list[Reporter]:
        """Return all exporters that have a session, and the last of those that had one."""
        former = itertools.chain(self._former.values(), self._former_senders.values())
        return [*former, *(each.reporter() for each in self.sessions.values())]

    def reported_by(self, address: str) -> ExporterReport | None:
        """Return what the exporter of the last session from there that is over said last."""
        former = self._former.get(address)
        return None if former is None else former.report

    def flush(self, *, last: bool = False) -> None:
        """Hand the buffer's records to the correlator, or later where that takes no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        count = len(self.buffer)
        if self.holds and not last:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self.flush)
        elif count:
            began = time.thread_time()
            batch = self.buffer.batch()
            try:
                number_originals(batch, self.exporters)
            except Exception as error:  # noqa: BLE001  then they are of who relayed them
                self._correlator.quarantine.note("numbering exporters", error, batch)
            if self.asks():
                batch.columns |= self.exporters.doubts(
                    batch[DOMAIN],
                    batch["flowEndMilliseconds"],
                    now_s=time.monotonic(),
                    now_ms=now_ms(),
                    late_ms=self._correlator.table.late_ms,
                )
            cycle = self._correlator.add(batch)
            self.buffer.clear()
            self._end_repeats()
            self._correlator.acknowledgements.note(cycle, self._unnoted, now_ms())
            self._unnoted.clear()
            self.stage.sent += count
            took = time.thread_time() - began
            self.handed_s += took
            self.record_s += (took / count - self.record_s) * min(count / FULL_RECORDS, 1.0)
        self.filling()

    def _node_of_the_last(self) -> str:
        """Return the node that the last record names: exporters name only their own."""
        last = self.buffer.batch().take(slice(-1, None))
        names = {last.strings.value(int(last[side][0])) for side in NODE_NAMES} - {b""}
        name = names.pop() if len(names) == 1 else b""
        return name.decode(errors="replace") if len(name) <= LONGEST_NAME else ""

    def _tell(self, peer: Peer, event: Event) -> None:
        who = str(peer)
        match event:
            case SequenceGap(domain, lost):
                text = "%d records are missing, by the sequence numbers"
                self._log.log(logging.WARNING, who, text, lost, domain=domain)
            case Malformed(error):
                self._log.log(logging.WARNING, who, "malformed: %s", error)
            case Fruitless(templates, faults):
                text = "sends no records, but templates (%d) and faults (%d): it is slowed down"
                self._log.log(logging.WARNING, peer.address, text, templates, faults, session=who)
            case NotUnderstood(domain, template_id, elements, missing):
                level = logging.WARNING if missing else logging.INFO
                numbers = ", ".join(f"{enterprise}/{number}" for enterprise, number in elements)
                text = "template %d: %s; elements that are not known: %s; said once a session"
                parts = (template_id, " and ".join(missing) or "complete", numbers or "none")
                self._log.log(level, who, text, *parts, domain=domain)
            case TemplateLearned(domain, template_id, count, unknown):
                text = "template %d: %d fields, %d of them unknown"
                self._log.log(logging.DEBUG, who, text, template_id, count, unknown, domain=domain)


class _Former(OrderedDict[str, Reporter]):
    """Exporters whose last session is over, by address; the latest of them."""

    def note(self, session: ExporterStream) -> None:
        """Note that a session is over."""
        address = session.peer.address
        self[address] = session.reporter(self.pop(address, None))
        if len(self) > MAX_FORMER:
            self.popitem(last=False)


def total(parts: Iterable[CollectorStats]) -> CollectorStats:
    """Add up the counts of sessions."""
    whole = CollectorStats()
    for part in parts:
        for field in fields(CollectorStats):
            value = getattr(whole, field.name) + getattr(part, field.name)
            setattr(whole, field.name, value)
    return whole
