"""From the tables to the collector: what is pending first, then what is due."""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from flowvis.batch import Batch
from flowvis.delivery.messages import all_but, encode_next
from flowvis.delivery.patience import Patience
from flowvis.delivery.queue import Queue
from flowvis.fields import EXPORTED, Field
from flowvis.ipfix.acknowledgement import Acknowledgements
from flowvis.ipfix.exporter import PROBE, ExporterSession, least_message
from flowvis.ipfix.exporter_report import ExporterReport
from flowvis.ipfix.occupancy import Occupant
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.address import CollectorAddress
from flowvis.transport.client import Client, ConnectionLost, Hosts, by_name
from flowvis.transport.eyeballs import Attempted
from flowvis.transport.tls import TlsFiles

log = logging.getLogger(__name__)

LIVE_ROWS = 8192  # in one batch: at times a node's whole table is due at once
PAUSE_S = 0.1  # between two looks at the table: each costs half a millisecond
REPORT_S = 30.0  # between two reports; each is 200 bytes, and one of occupants 60 for each
CLOSING_S = 2.0  # of the time to stop in, kept for the end of the session
CUT_S = 0.5  # for a session that was cut to be noticed; at once, but on a busy machine


class ReportingTable(Protocol):
    """What has records to be sent."""

    survives: bool
    """Whether its source keeps the connections, so that a successor reports them."""

    def due(self, now_ms: int, *, live: int) -> Batch:
        """Return the records of all that departed and of up to `live` live ones that are due."""

    def flush(self, *, live: int) -> Batch:
        """Return what is not reported yet, of up to `live` live connections."""

    def next_deadline(self) -> int | None:
        """When something will be due; None while nothing will."""


class Kept(Protocol):
    """What keeps records for the exporter that follows, until they are settled."""

    def has(self, mark: int) -> bool:
        """Whether it keeps the records of this mark."""

    def settled(self) -> None:
        """Forget what the queue has settled."""


class Exporter:
    """Component: sends the tables' records to one collector, in one session after the other.

    While the collector is away, records of ended connections wait in `pending`; live ones become
    due only when they can be sent, and denied ones wait in their table, which is bounded. What a
    session could not send is sent by the next one. So is, where both collectors acknowledge, what
    was sent and not acknowledged; the collector is told how much that is at most. Where the next
    one does not, it would count that twice: it is not sent again.
    """

    name = "exporter"

    def __init__(
        self,
        tables: Sequence[ReportingTable],
        pending: Queue,
        address: CollectorAddress,
        tls: TlsFiles | None,
        *,
        domain: int,
        server_name: str = "",
        fields: Sequence[Field] = EXPORTED,
        hosts: Hosts = by_name,
        on_attempt: Attempted | None = None,
        drain_s: float = 10.0,
        template_refresh_s: int = 600,
        kept: Kept | None = None,
        report: Callable[[], ExporterReport] | None = None,
        occupancy: Callable[[], Sequence[Occupant]] | None = None,
    ) -> None:
        """Export these fields under an observation domain; stop within `drain_s`.

        Over UDP templates go out anew every `template_refresh_s`. Where records are `kept`, those
        that cannot be sent any more are left to the exporter that follows, and so are live
        connections. A collector that acknowledges gets a `report` now and then,
        and the `occupancy` of the node's table.
        """
        self.client = Client(
            address,
            tls,
            server_name=server_name,
            hosts=hosts,
            probe=PROBE,
            on_attempt=on_attempt,
            on_data=self._acknowledged,
            on_state=lambda _: self._wake.set(),
        )
        self._tables = deque(tables)  # whose turn it is comes first
        self._pending = pending
        self._domain = domain
        self._acknowledgements = Acknowledgements(domain)
        self._fields = fields
        self._drain_s = drain_s
        self._template_refresh_s = template_refresh_s
        self._kept = kept
        self._report = report
        self._occupancy = occupancy
        self._report_at_s = 0.0  # when the next one is due, by the monotonic clock
        self._wake = asyncio.Event()
        self._stopping = False
        self._log = LimitedLog(log)
        self._redirect: Callable[[], None] | None = None
        self._done = False
        self._read = False  # whether the last collector confirmed that it read all
        self._task: asyncio.Task[None] | None = None

    @property
    def queue(self) -> Queue:
        """What waits to be sent, and what is kept until it is acknowledged."""
        return self._pending

    def collect(self, table: ReportingTable) -> None:
        """Bring what has ended in a table to the pending records; look what is due in it."""
        self._pending.put(table.due(now_ms(), live=0))
        self.look()

    def look(self) -> None:
        """Look what is due: it may be so sooner than it was."""
        self._wake.set()

    def redirect(
        self,
        address: CollectorAddress,
        tls: TlsFiles | None,
        *,
        server_name: str = "",
        fields: Sequence[Field] = EXPORTED,
    ) -> None:
        """Send these fields to this collector from now on, once the present session has ended well.

        A collector that does not take what is under way gets as long as it would at a stop; then
        the next one gets what it has not taken.
        """

        def turn() -> None:
            self._fields = fields
            self.client.redirect(address, tls, server_name=server_name)

        self._redirect = turn
        if self.client.connected:
            self._wake.set()
            asyncio.get_running_loop().call_later(self._drain_s, self._cut)
        else:
            self._turn()

    def _turn(self) -> None:
        if self._redirect is not None:
            self._redirect()
            self._redirect = None

    def _cut(self) -> None:
        if self._redirect is not None:
            self.client.cut()

    async def start(self) -> None:
        """Begin to connect; it does not matter whether the collector is there."""
        self._task = spawn(self.name, self._serve())

    async def stop(self) -> None:
        """Send all that is not reported yet, as far as time allows; the rest is counted."""
        self._stopping = True
        self.client.hurry()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._drain_s - CLOSING_S, self._drain_s / 2)):
                await self._finish()
        await self._cut_short()
        await self._end_session()
        self._give_up()

    async def _cut_short(self) -> None:
        """End a sending that is under way, so that it is known what of it has left."""
        self._done = True
        if self._task is not None and self._pending.leaving:
            self.client.cut()
            await asyncio.wait((self._task,), timeout=CUT_S)
        await end(self._task)

    async def _end_session(self) -> None:
        """End the session in good order; what the collector confirms to have read is sent."""
        self._read = await self.client.close(min(CLOSING_S, self._drain_s / 2))
        self._pending.rewind()

    async def _finish(self) -> None:
        """Wait until everything is sent."""
        self._wake.set()
        if not self.client.connected:
            # It may be in a long pause between two attempts.
            await end(self._task)
            self._task = spawn("exporter's last session", self._serve())
        if self._task is not None:
            await asyncio.wait((self._task,))

    def _give_up(self) -> None:
        """Leave what cannot be sent any more to who follows, or count it."""
        pending = self._pending
        for table in self._tables:
            if self._kept is not None and table.survives:
                continue
            while len(batch := table.flush(live=LIVE_ROWS)):
                pending.put(batch)
                self._lose_unless_kept()
        self._lose_unless_kept()
        if left := len(pending):
            log.info("%d records that were not acknowledged are left to the next exporter", left)

    def _lose_unless_kept(self) -> None:
        pending = self._pending
        if self._kept is not None:
            lost = pending.give_up(ExportDropped.STOPPED, unless=self._kept.has, read=self._read)
        else:
            if self._read:
                pending.keep_from_repeating(read=True)
            lost = pending.abandon(ExportDropped.STOPPED)
        if lost:
            log.warning("%d records are lost: %s did not take them", lost, self.client.address)

    async def _serve(self) -> None:
        """Hold one session after the other until, when stopping, all is sent."""
        while not self._done:
            if self._redirect is not None:
                await self._end_session()
                self._turn()
            await self.client.connect()
            session = self._session()
            opening = session.templates(now_ms() // 1000) + self._begin(session)
            try:
                await self.client.send(opening)
                await self._export(session)
            except ConnectionLost:  # the client has logged it
                self._pending.rewind()

    def _begin(self, session: ExporterSession) -> list[bytes]:
        """Begin with what was not acknowledged; return what the collector is told of it."""
        acknowledges = self.client.acknowledges
        repeated = self._pending.begin(acknowledged=acknowledges)
        self._acknowledgements = Acknowledgements(self._domain)
        read, self._read = self._read, False
        if acknowledges:
            return session.sent_again(repeated, now_ms() // 1000)
        withheld = self._pending.keep_from_repeating(read=read)
        if withheld and not read:
            text = "%s acknowledges nothing: %d records that were sent before are not sent again"
            log.warning(text, self.client.address, withheld)
        return []

    def _acknowledged(self, data: memoryview) -> None:
        """Take what a collector says is durable; PeerError where it can be true of none."""
        pending = self._pending
        if pending.acknowledge(self._acknowledgements.receive(data, pending.acknowledgeable)):
            self.client.took()
        self._settled()

    def _session(self) -> ExporterSession:
        """Return what makes messages for the client's session, as large as its path takes."""
        refresh_s = self._template_refresh_s if self.client.datagrams else None
        least = least_message(self._fields)  # where the path takes less, the client says so
        size = max(self.client.max_message, least)
        return ExporterSession(
            self._domain, self._fields, max_message=size, template_refresh=refresh_s
        )

    async def _export(self, session: ExporterSession) -> None:
        """Send until the session is lost, is to end or, when stopping, nothing is left."""
        self._report_at_s = 0.0
        while self._redirect is None:
            await self._send_report(session)
            if not self._pending.waiting:
                self._wake.clear()
                self._pull()
            if self._pending.waiting:
                await self._send(session)
            elif self._stopping:
                self._done = True
                return
            else:
                # Over UDP only these say that somebody is there, where there is nothing to tell.
                if templates := session.templates_due(now_ms() // 1000):
                    await self.client.send(templates)
                await self._rest()

    def _pull(self) -> None:
        """Bring what is due in one table to the pending records; the next time another's."""
        for table in tuple(self._tables):
            self._tables.rotate(-1)
            if self._stopping:
                batch = table.flush(live=LIVE_ROWS)
            else:
                batch = table.due(now_ms(), live=LIVE_ROWS)
            if len(batch):
                self._pending.put(batch)
                return

    async def _send(self, session: ExporterSession) -> None:
        """Send one batch; what did not leave comes first in the next session."""
        pending, shortened = self._pending, session.stats.shortened
        try:
            now_s = now_ms() // 1000
            messages = encode_next(pending, session, now_s, oversize=ExportDropped.OVERSIZE)
        except Exception:
            log.exception("a defect of ours: %d records are given up", pending.taken)
            pending.drop(ExportDropped.FAILED, pending.taken)
            return
        if count := session.stats.shortened - shortened:
            text = "%d records have shortened texts, as they fit into no message"
            self._log.log(logging.WARNING, str(self.client.address), text, count)
        patience = Patience(f"collector {self.client.address}")
        try:
            with patience.waiting(f"take {pending.taken} records"):
                await self.client.send(messages)
        except ConnectionLost as lost:
            all_but(pending, session, lost.unsent)
            raise
        except asyncio.CancelledError:
            if self._kept is None:
                pending.drop(ExportDropped.CUT_OFF, pending.taken)
            raise
        all_but(pending, session, ())
        self._settled()

    async def _send_report(self, session: ExporterSession) -> None:
        """Say what is counted here, when it is time, to a collector of ours."""
        now_s = time.monotonic()
        if self._report is None or not self.client.acknowledges or now_s < self._report_at_s:
            return
        self._report_at_s = now_s + REPORT_S
        now = now_ms() // 1000
        messages = session.report(self._report(), now)
        if self._occupancy is not None:
            messages += session.occupancy(self._occupancy(), now)
        await self.client.send(messages)

    def _settled(self) -> None:
        """Have what is kept forgotten as far as it is settled: sent, or acknowledged."""
        if self._kept is not None:
            self._kept.settled()

    async def _rest(self) -> None:
        """Wait until there may be something to send, or the session is lost."""
        deadlines = [table.next_deadline() for table in self._tables]
        earliest = min((deadline for deadline in deadlines if deadline is not None), default=None)
        pause = None if earliest is None else max((earliest - now_ms()) / 1000, PAUSE_S)
        if self.client.datagrams:
            pause = min(self._template_refresh_s, math.inf if pause is None else pause)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                # What the last message was waited after may have been the session's end.
                if self.client.connected:
                    await self._wake.wait()
        if not self.client.connected:
            raise ConnectionLost("session lost", (), 0)
