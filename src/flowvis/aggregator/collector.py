"""Turns the bytes of all exporters into records for the correlator."""

import asyncio
import itertools
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

from flowvis.aggregator.correlation.relayed import number_originals
from flowvis.aggregator.correlator import Correlator
from flowvis.aggregator.enrichment.reported_nodes import LONGEST_NAME
from flowvis.aggregator.exporters import Exporters, Source
from flowvis.aggregator.payers import Payers
from flowvis.aggregator.reporters import Reporter, latest, summed
from flowvis.aggregator.vitals import ClockOffset, RecordRate
from flowvis.errors import LimitExceeded, PeerError
from flowvis.fields import EXPORTED
from flowvis.ipfix.acknowledgement import frame
from flowvis.ipfix.buffer import DOMAIN, RecordBuffer
from flowvis.ipfix.collector import CollectorSession, CollectorStats
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
from flowvis.ipfix.occupancy import Occupant
from flowvis.ipfix.order import LATE_S
from flowvis.native.contract.ipfix import MAX_DOMAINS
from flowvis.runtime.clock import now_ms
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.server import Peer

log = logging.getLogger(__name__)

NODE_NAMES = ("sourceNodeName", "destinationNodeName")
FULL_RECORDS = 8192  # handed on at once, sessions wait meanwhile: 3 MB, which caches still like
LOOK_S = 10.0  # between looks at what node a session's records name
MAX_FORMER = 10_000  # exporters without a session that are remembered: two for each node at most
WORK = 500  # of a session at one of its turns, as `CollectorSession` counts it: half a millisecond
PAUSE_S = 0.1  # between turns of a session that makes work and sends no records
RECORD_S = 2e-6  # what handing a record on costs, until some were
HAND_ON_S = 0.1  # nobody else is served meanwhile: of records that cost more, fewer go at once
LEAST_RECORDS = 256
TEMPLATE_LIFE_S = 1800.0  # over UDP: three times the usual time between two (RFC 7011 section 8.4)
DELAY_S = 0.04  # how long fewer records wait for company: a call costs as much as 200 records


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
        self._max_waiting = waiting_bytes
        self._waiting: Counter[str] = Counter()  # bytes that wait to be decoded, by address
        self._waiting_bytes = 0
        self._max_templates = template_bytes
        self._templates: Counter[str] = Counter()  # bytes of templates, by address
        self._template_bytes = 0
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

    def open(self, peer: Peer) -> "ExporterStream":
        """Return the handler of a new peer's bytes."""
        return self._opened(ExporterStream, peer)

    def open_datagrams(self, peer: Peer) -> "ExporterDatagrams":
        """Return the handler of a new sender's datagrams."""
        return self._opened(ExporterDatagrams, peer)

    def _opened(self, kind: "type[Handler]", peer: Peer) -> "Handler":
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

    def received(self, session: "ExporterStream", count: int, events: Iterable[Event]) -> None:
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

    def repeats(self, session: "ExporterStream") -> None:
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

    def wait(self, address: str, more: int) -> None:
        """Note how much more, or less, of an address waits to be decoded."""
        self._waiting_bytes += more
        self._waiting[address] += more
        if not self._waiting[address]:
            del self._waiting[address]

    def check_waiting(self, address: str) -> None:
        """Raise LimitExceeded if too much waits, and of this address more than of others."""
        if self._waiting_bytes <= self._max_waiting:
            return
        waiting = self._waiting[address]
        share = max(self._max_waiting // len(self._waiting), self._limits.pending_bytes)
        if waiting > share:
            detail = f"{address} has sent {waiting} bytes that are not decoded yet; at most "
            raise LimitExceeded("waiting-memory", f"{detail}{share} now, as all sessions do so")

    def hold(self, address: str, more: int) -> None:
        """Note how much more, or less, the templates of an address take."""
        self._template_bytes += more
        self._templates[address] += more
        if not self._templates[address]:
            del self._templates[address]

    def check_templates(self, session: "ExporterStream") -> None:
        """Raise LimitExceeded if templates take too much, this address's more than others'."""
        if self._template_bytes <= self._max_templates:
            return
        if session.template_bytes <= ASSURED_TEMPLATE_BYTES:
            return
        address = session.peer.address
        taken, share = self._templates[address], self._max_templates // len(self._templates)
        if taken > share:
            detail = f"templates of {address}, or domains, take {taken} bytes; at most {share} now"
            raise LimitExceeded("template-memory", f"{detail}, as all sessions have so many")

    def memory_bytes(self) -> int:
        """About what receiving takes in memory."""
        sessions = sum(session.own_bytes for session in self.sessions.values())
        held = self._waiting_bytes + self._template_bytes
        return held + self.buffer.memory_bytes + sessions

    def refused(self, session: "ExporterStream", payer: int) -> None:
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

    def closed(self, session: "ExporterStream") -> None:
        """Note that a session is over."""
        del self.sessions[session.number]
        self._unnoted.discard(session)
        if session.acknowledged and session.taken():
            self._correlator.acknowledgements.forget(session)
        self._payers.close(session.peer.address)
        self.wait(session.peer.address, -session.waiting_bytes)
        self.hold(session.peer.address, -session.template_bytes)
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

    def note(self, session: "ExporterStream") -> None:
        """Note that a session is over."""
        address = session.peer.address
        self[address] = session.reporter(self.pop(address, None))
        if len(self) > MAX_FORMER:
            self.popitem(last=False)


class ExporterStream:
    """One peer's bytes, as the server hands them over."""

    own_bytes = 70 << 10
    """What a session takes, most of it OpenSSL's."""
    datagrams = False

    def __init__(
        self,
        collector: Collector,
        peer: Peer,
        number: int,
        limits: CollectorLimits,
        payer: int,
    ) -> None:
        self.peer = peer
        self.number = number
        self._collector = collector
        self.acknowledged = peer.answer is not None
        """Whether the exporter is told what is durable."""
        self._session = CollectorSession(
            str(peer),
            collector.buffer,
            limits,
            self._exporter,
            datagrams=self.datagrams,
            acknowledged=self.acknowledged,
        )
        self._sources: dict[int, Source] = {}  # by observation domain, of the latest of them
        self.stats = self._session.stats
        self.durable = 0
        """How many of the session's records it was told are durable."""
        self.named = ""
        """The node that its records name."""
        self.last_s = time.monotonic()
        """When something came at last."""
        self.rate = RecordRate(self.last_s)
        self.clock = ClockOffset()
        self._looked_s = float("-inf")
        self.waiting_bytes = 0
        """Bytes that came and are not decoded: of a message that is not whole, or for its turn."""
        self.template_bytes = 0
        """About what its templates take in memory, and what is remembered of its domains."""
        self._payer = payer
        self._refused_texts = 0  # of which the log has been asked to say
        self.missed_s: float | None = None
        """When the exporter said that it had missed more than before."""
        self._report: ExporterReport | None = None  # the last one that was looked at

    @property
    def durable_or_none(self) -> int | None:
        """`durable`, or None where the exporter is told nothing."""
        return self.durable if self.acknowledged else None

    @property
    def waiting(self) -> int:
        """How many of its records the exporter waits to hear of."""
        return self.stats.records - self.durable if self.acknowledged else 0

    def taken(self) -> int:
        """How many data records have come."""
        return self.stats.records

    @property
    def proven(self) -> bool:
        """Whether it has sent records."""
        return self.stats.records > 0

    @property
    def pending(self) -> bool:
        """Whether work was left for `go_on`."""
        return self._session.pending

    @property
    def pause_s(self) -> float:
        """How long it is to rest before its next turn."""
        return PAUSE_S if self.fruitless or self._collector.holds else 0.0

    @property
    def fruitless(self) -> bool:
        """Whether it only makes work: it has sent no records for long."""
        return self._session.fruitless

    @property
    def repeating(self) -> bool:
        """Whether its next records may have been received before."""
        return self.number in self._collector.sessions and self._session.repeating

    def mark_repeating(self, *, repeating: bool) -> None:
        """Have its exporters' records count as ones that may have been received before, or not."""
        for source in self._sources.values():
            source.may_repeat = repeating

    def acknowledge(self, count: int) -> None:
        """Tell the exporter that the first `count` of the session's records are durable.

        Does nothing where that is known already, or it takes no acknowledgements; never waits.
        """
        if count <= self.durable or self.peer.answer is None:
            return
        if count > self.stats.records:
            raise ValueError(f"{count} records acknowledged, {self.stats.records} came")
        self.durable = count
        self.peer.answer(frame(next(iter(self._sources)), count))

    def _exporter(self, domain: int) -> int:
        """Return the number of the exporter of an observation domain."""
        if self.acknowledged and self._sources and domain not in self._sources:
            detail = f"domain {domain} in a session that acknowledges, which has one domain"
            raise PeerError("second-domain", detail)
        exporters = self._collector.exporters
        number = exporters.number(self.peer, domain)
        if self._sources.get(domain) is not exporters.source(number):  # new, or forgotten meanwhile
            if len(self._sources) >= MAX_DOMAINS:
                del self._sources[next(iter(self._sources))]
            self._sources[domain] = source = exporters.begin(number, time.monotonic())
            source.keeps = self.acknowledged
        return number

    def data_received(self, data: memoryview) -> float:
        """Decode; PeerError ends the session, what was decoded before it counts.

        Return what its records will cost, less what those of others did meanwhile, in seconds.
        """
        self.last_s = time.monotonic()
        return self._note(partial(self._session.receive, data, WORK))

    def go_on(self) -> float:
        """Decode more of what came; as `data_received`."""
        return self._note(partial(self._session.go_on, WORK))

    def _note(self, decode: Callable[[], list[Event]]) -> float:
        collector = self._collector
        before, handed_s = self.stats.records, collector.handed_s
        repeating, sent_again = self._session.repeating, self.stats.sent_again
        events: list[Event] = []
        buffer = self._collector.filling()
        buffer.payer = self._payer
        try:
            events = decode()
        finally:
            buffer.payer = 0
            records = self.stats.records - before
            if repeating or self.stats.sent_again > sent_again:
                collector.repeats(self)
            self._note_vitals(records)
            self._note_missed()
            self._note_waiting()
            grown = self._note_templates()
            collector.received(self, records, events)
            if self.stats.refused_texts > self._refused_texts:
                self._refused_texts = self.stats.refused_texts
                collector.refused(self, self._payer)
        if self.waiting_bytes:
            collector.check_waiting(self.peer.address)
        if grown and not self.datagrams:  # of these the server sees to it
            collector.check_templates(self)
        return records * collector.record_s - (collector.handed_s - handed_s)

    def _note_vitals(self, records: int) -> None:
        if records:
            self.rate.add(records, self.last_s)
        if self._session.export_ms and not self._session.pending:  # else it waited for us
            self.clock.note(self._session.export_ms, now_ms())

    def _note_missed(self) -> None:
        """Note when the exporter says that it has missed more than it had."""
        report, before = self._session.report, self._report
        if report is None or report is before:
            return
        self._report = report
        if report.misses_more_than(before or self._collector.reported_by(self.peer.address)):
            self.missed_s = self.last_s

    def _note_waiting(self) -> None:
        more = self._session.waiting_bytes - self.waiting_bytes
        if more:
            self.waiting_bytes += more
            self._collector.wait(self.peer.address, more)

    def _note_templates(self) -> bool:
        """Note what templates take; return whether that is more than before."""
        more = self._session.template_bytes - self.template_bytes
        if more:
            self.template_bytes += more
            self._collector.hold(self.peer.address, more)
        return more > 0

    def eof(self) -> None:
        """The peer has finished: PeerError inside a message."""
        self._session.eof()

    def closed(self) -> None:
        """The session is over."""
        self._collector.closed(self)

    def may_be_named(self) -> bool:
        """Whether it is time to look at which node the records name."""
        if self.named or self.last_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = self.last_s
        return True

    def reporter(self, before: Reporter | None = None) -> Reporter:
        """Return it as one who reports; with what is over, where it is over itself."""
        is_open = self.number in self._collector.sessions
        records = self.stats.records + (before.records if before else 0)
        named = self.named or (before.named if before else "")
        return Reporter(
            self.peer.address,
            named,
            records,
            self.last_s,
            is_open,
            self.stats.lost_records + (before.lost if before else 0),
            self.stats.gaps + (before.gaps if before else 0),
            self.rate.per_second(time.monotonic()),
            self.clock.seconds,
            self.stats.sent_again + (before.sent_again if before else 0),
            summed(before.acknowledged if before else None, self.durable_or_none),
            self.waiting if is_open else 0,
            self._session.report or (before.report if before else None),
            latest(self.missed_s, before.missed_s if before else None),
            self._occupancy(before),
        )

    def _occupancy(self, before: Reporter | None) -> tuple[Occupant, ...] | None:
        if self._session.occupancy is None:
            return before.occupancy if before else None
        return self._session.occupancy

    def as_dict(self) -> dict[str, Any]:
        """The session as the API shows it."""
        return {
            "peer": str(self.peer),
            "messages": self.stats.messages,
            "records": self.stats.records,
            "lost": self.stats.lost_records,
            "sentAgain": self.stats.sent_again,
            "acknowledged": self.durable_or_none,
            "waiting": self.waiting,
            "errors": self.stats.malformed.total(),
        }


class ExporterDatagrams(ExporterStream):
    """One sender's datagrams, as the server hands them over."""

    own_bytes = 8 << 10
    datagrams = True

    def datagrams_received(self, datagrams: list[bytes]) -> float:
        """Decode; as `data_received`. A datagram that is no message ends nothing."""
        self.last_s = self._session.now_s = time.monotonic()
        return self._note(partial(self._session.receive_datagrams, datagrams, WORK))

    def look(self) -> None:
        """See which records are lost by now, and which templates were not sent again."""
        self._settle(LATE_S)

    def closed(self) -> None:
        """The session is over: what is missing does not come any more."""
        self._settle(0.0)
        super().closed()

    def _settle(self, patience_s: float) -> None:
        self._session.now_s = time.monotonic()
        life_s = self._collector.template_life_s
        self._collector.tell(self.peer, self._session.settle(life_s, patience_s=patience_s))
        self._note_templates()


Handler = TypeVar("Handler", bound=ExporterStream)


def total(parts: Iterable[CollectorStats]) -> CollectorStats:
    """Add up the counts of sessions."""
    whole = CollectorStats()
    for part in parts:
        for field in fields(CollectorStats):
            value = getattr(whole, field.name) + getattr(part, field.name)
            setattr(whole, field.name, value)
    return whole
