"""The sessions of exporters: one peer's bytes or datagrams, as the server hands them over."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flowvis.aggregator.exporters import Source
from flowvis.aggregator.reporters import Reporter, latest, summed
from flowvis.aggregator.vitals import ClockOffset, RecordRate
from flowvis.errors import PeerError
from flowvis.ipfix.acknowledgement import frame
from flowvis.ipfix.collector import CollectorSession
from flowvis.ipfix.events import Event
from flowvis.ipfix.exporter_report import ExporterReport
from flowvis.ipfix.limits import CollectorLimits
from flowvis.ipfix.occupancy import Occupant
from flowvis.ipfix.order import LATE_S
from flowvis.native.contract.ipfix import MAX_DOMAINS
from flowvis.runtime.clock import now_ms
from flowvis.transport.server import Peer

if TYPE_CHECKING:
    from flowvis.aggregator.collector import Collector

LOOK_S = 10.0  # between looks at what node a session's records name
WORK = 500  # of a session at one of its turns, as `CollectorSession` counts it: half a millisecond
PAUSE_S = 0.1  # between turns of a session that makes work and sends no records
HELD_S = 0.0005
"""While the table takes no records a session rests for so long for each that there is: thousands
that look in vain ten times a second are a whole core, as long as the store is away."""


class ExporterStream:
    """One peer's bytes, as the server hands them over."""

    own_bytes = 70 << 10
    """What a session takes, most of it OpenSSL's."""
    datagrams = False

    def __init__(
        self,
        collector: "Collector",
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
        if self._collector.holds:
            return max(HELD_S * len(self._collector.sessions), PAUSE_S)
        return PAUSE_S if self.fruitless else 0.0

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
            self._collector.waiting.add(self.peer.address, more)

    def _note_templates(self) -> bool:
        """Note what templates take; return whether that is more than before."""
        more = self._session.template_bytes - self.template_bytes
        if more:
            self.template_bytes += more
            self._collector.templates.add(self.peer.address, more)
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
