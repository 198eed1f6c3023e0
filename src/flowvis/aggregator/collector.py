"""Turns the bytes of all exporters into records for the correlator."""

import asyncio
import itertools
import logging
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from flowvis.aggregator.correlator import Correlator
from flowvis.fields import EXPORTED
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession, CollectorStats
from flowvis.ipfix.events import Event, Malformed, NotUnderstood, SequenceGap, TemplateLearned
from flowvis.ipfix.limits import CollectorLimits
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.server import Peer

log = logging.getLogger(__name__)

FULL_RECORDS = 8192  # handed on at once: columns of 3 MB, which the caches still like
DELAY_S = 0.02  # how long fewer records wait for company: a call costs as much as 100 records


class Collector:
    """All sessions, which decode into one buffer. `stage` is its page in the ledger."""

    name = "collector"

    def __init__(
        self, correlator: Correlator, stage: Stage, limits: CollectorLimits | None = None
    ) -> None:
        self.stage = stage
        self.sessions: dict[int, ExporterStream] = {}
        self._correlator = correlator
        self._limits = limits or CollectorLimits()
        self._buffer = RecordBuffer(EXPORTED, correlator.table.strings)
        self._numbers = itertools.count(1)
        self._ended = CollectorStats()
        self._timer: asyncio.TimerHandle | None = None
        self._log = LimitedLog(log)
        stage.held = lambda: len(self._buffer)

    async def start(self) -> None:
        """Nothing to open: sessions come from the server."""

    async def stop(self) -> None:
        """Hand on what the sessions left."""
        self.flush()

    def open(self, peer: Peer) -> "ExporterStream":
        """Return the handler of a new peer's bytes."""
        number = next(self._numbers) & 0xFFFFFFFF
        session = CollectorSession(str(peer), self._buffer, self._limits)
        self.sessions[number] = ExporterStream(self, peer, number, session)
        return self.sessions[number]

    def totals(self) -> CollectorStats:
        """Sum up all sessions since the start."""
        return total([self._ended, *(session.stats for session in self.sessions.values())])

    def received(self, peer: Peer, count: int, events: Iterable[Event]) -> None:
        """Note that a session has put records into the buffer."""
        self.stage.received += count
        if len(self._buffer) >= FULL_RECORDS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_S, self.flush)
        for event in events:
            self._tell(peer, event)

    def closed(self, session: "ExporterStream") -> None:
        """Note that a session is over."""
        del self.sessions[session.number]
        self._ended = total([self._ended, session.stats])

    def flush(self) -> None:
        """Hand the buffer's records to the correlator."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        count = len(self._buffer)
        if count:
            self._correlator.add(self._buffer.batch())
            self._buffer.clear()
            self.stage.sent += count
        self._buffer.strings = self._correlator.table.strings

    def _tell(self, peer: Peer, event: Event) -> None:
        who = str(peer)
        match event:
            case SequenceGap(domain, lost):
                text = "%d records are missing, by the sequence numbers"
                self._log.log(logging.WARNING, who, text, lost, domain=domain)
            case Malformed(error):
                self._log.log(logging.WARNING, who, "malformed: %s", error)
            case NotUnderstood(domain, template_id, elements, missing):
                level = logging.WARNING if missing else logging.INFO
                numbers = ", ".join(f"{enterprise}/{number}" for enterprise, number in elements)
                text = "template %d: %s; elements that are not known: %s; said once a session"
                parts = (template_id, " and ".join(missing) or "complete", numbers or "none")
                self._log.log(level, who, text, *parts, domain=domain)
            case TemplateLearned(domain, template_id, count, unknown):
                text = "template %d: %d fields, %d of them unknown"
                self._log.log(logging.DEBUG, who, text, template_id, count, unknown, domain=domain)


class ExporterStream:
    """One peer's bytes, as the server hands them over."""

    def __init__(
        self, collector: Collector, peer: Peer, number: int, session: CollectorSession
    ) -> None:
        self.peer = peer
        self.number = number
        self.stats = session.stats
        self._collector = collector
        self._session = session

    def data_received(self, data: memoryview) -> None:
        """Decode; PeerError ends the session, what was decoded before it counts."""
        before = self.stats.records
        events: list[Event] = []
        try:
            events = self._session.receive(data)
        finally:
            self._collector.received(self.peer, self.stats.records - before, events)

    def eof(self) -> None:
        """The peer has finished: PeerError inside a message."""
        self._session.eof()

    def closed(self) -> None:
        """The session is over."""
        self._collector.closed(self)

    def as_dict(self) -> dict[str, Any]:
        """The session as the API shows it."""
        return {
            "peer": str(self.peer),
            "messages": self.stats.messages,
            "records": self.stats.records,
            "lost": self.stats.lost_records,
            "errors": self.stats.malformed.total(),
        }


def total(parts: Iterable[CollectorStats]) -> CollectorStats:
    """Add up the counts of sessions."""
    whole = CollectorStats()
    for part in parts:
        for field in fields(CollectorStats):
            value = getattr(whole, field.name) + getattr(part, field.name)
            setattr(whole, field.name, value)
    return whole
