"""The kernel's connections, polled and as they come and go."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pyroute2.netlink.nfnetlink import NFNLGRP_CONNTRACK_DESTROY, NFNLGRP_CONNTRACK_NEW

from flowvis.conntrack.entries import Entries
from flowvis.conntrack.sources.protocol import ConntrackStats
from flowvis.conntrack.sources.sockets import DumpSocket, EventSocket
from flowvis.conntrack.sources.sysctls import ACCOUNTING, EVENTS, ROOT, TIMESTAMPS, Switch, Sysctls
from flowvis.conntrack.sources.tracking import REMEDY, is_tracked
from flowvis.errors import SystemRefused
from flowvis.native import EntryDecoder

EVENT_BUFFER_BYTES = 8 << 20
"""Asked of the kernel for waiting events: some ten thousand, a second of a busy node."""


class Conntrack:
    """A `Source`: connections of the network namespace in which `open` was called.

    `poll` blocks and may run in a thread while another one reads events. A poll may hold an entry
    twice when the table changes under it. A connection that began before anybody listened may end
    without an event (see `sysctls.EVENTS`): it is just missing in the next poll.
    """

    def __init__(
        self,
        zones: Sequence[int] | None = None,
        *,
        events: bool = True,
        event_buffer_bytes: int = EVENT_BUFFER_BYTES,
        proc: Path = ROOT,
    ) -> None:
        """Watch these zones, or all; `proc` is where the sysctls are."""
        self.stats = ConntrackStats()
        self.needs_resync = False
        self.unread = False
        self.counts = True
        self._zones = None if zones is None else np.unique(np.array(zones, dtype=np.uint16))
        self._wants_events = events
        self._wanted = (ACCOUNTING, TIMESTAMPS, *([EVENTS] if events else []))
        self._off: set[str] = set()  # of these, what is known to be off and may not be set
        self._event_buffer_bytes = event_buffer_bytes
        self._sysctls = Sysctls(proc)
        self._dumps: DumpSocket | None = None
        self._events: EventSocket | None = None
        self._zones_in_kernel = True  # until a dump shows that it does not heed them (before 6.8)

    def open(self) -> None:
        """Open the sockets; SystemRefused with the remedy when that may not be."""
        self._dumps = DumpSocket()
        if self._wants_events:
            try:
                groups = (NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY)
                self._events = EventSocket(groups, self._event_buffer_bytes)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the sockets; may be called again."""
        for opened in (self._dumps, self._events):
            if opened is not None:
                opened.close()
        self._dumps = self._events = None

    def prepare(self) -> list[str]:
        """Turn on counters, timestamps and events; one line for each thing that will be missing."""
        problems = [problem for switch in self._wanted if (problem := self._enable(switch))]
        try:
            if not is_tracked(self._sysctls.count):
                problems.append(
                    "no rule here makes the kernel track connections, so there are none to see: "
                    f"run `{REMEDY}`"
                )
        except SystemRefused as refusal:
            problems.append(str(refusal))
        return problems

    def turned_off(self) -> list[str]:
        """Turn on again what was turned off since the last look (`sysctl --system`, a tuner).

        One line for each, that says what is missing of the connections that began meanwhile.
        """
        lines = []
        for switch in self._wanted:
            if not self._sysctls.is_off(switch):
                self._off.discard(switch.name)
            elif switch.name not in self._off:
                self.stats.turned_off += 1
                lines.append(
                    self._enable(switch)
                    or f"net.netfilter.{switch.name} was turned off while we ran, and is set to 1 "
                    f"again: meanwhile {switch.without}"
                )
        self.stats.off = len(self._off)
        return lines

    def count(self) -> int:
        """How many connections the kernel holds, of all zones."""
        return self._sysctls.count()

    def maximum(self) -> int:
        """How many it can hold."""
        return self._sysctls.maximum()

    def closed_s(self) -> dict[str, int]:
        """For how many seconds it keeps closed TCP connections, by state."""
        return self._sysctls.closed_s()

    def unanswered_s(self) -> dict[int, int]:
        """For how many seconds it keeps connections that nobody answers, by protocol."""
        return self._sysctls.unanswered_s()

    def poll(self) -> Entries:
        """All connections of the zones, IPv4 and IPv6; blocks for some 3 us a connection."""
        if self._dumps is None:
            raise ValueError("Conntrack is not open")
        self.needs_resync = False
        self.stats.polls += 1
        if self._zones is not None and self._zones_in_kernel:
            parts = []
            for zone in self._zones.tolist():
                part = self._dump(self._dumps, zone)
                if (part.zone != zone).any():
                    self._zones_in_kernel = False
                    return self._of_zones(part)
                parts.append(part)
            return Entries.concat(parts)
        return self._of_zones(self._dump(self._dumps, None))

    def event_fileno(self) -> int:
        """The descriptor that becomes readable when there are events."""
        return self._event_socket().fileno()

    def read_events(self) -> Entries:
        """Some of the events that have arrived, in their order; does not block."""
        decoder = EntryDecoder()
        overruns, self.unread = self._event_socket().read(decoder)
        lost = self._event_socket().dropped()
        self.stats.overruns += overruns
        self.stats.lost_events += lost
        if overruns or lost or decoder.malformed:
            self.needs_resync = True
        self.stats.events += len(decoder)
        self.stats.malformed_events += decoder.malformed
        return self._of_zones(Entries.of(decoder.take()))

    def _enable(self, switch: Switch) -> str | None:
        """Turn a switch on; what is lost where that may not be."""
        problem = self._sysctls.enable(switch)
        if problem:
            self._off.add(switch.name)
        self.stats.off = len(self._off)
        return problem

    def _event_socket(self) -> EventSocket:
        if self._events is None:
            raise ValueError("Conntrack is not open, or without events")
        return self._events

    def _dump(self, dumps: DumpSocket, zone: int | None) -> Entries:
        decoder = EntryDecoder()
        dumps.dump(decoder, zone)
        self.stats.entries += len(decoder)
        self.stats.malformed_entries += decoder.malformed
        self.stats.interrupted += decoder.interrupted
        return Entries.of(decoder.take())

    def _of_zones(self, entries: Entries) -> Entries:
        if self._zones is None:
            return entries
        inside = np.isin(entries.zone, self._zones)
        return entries if inside.all() else entries.take(inside)
