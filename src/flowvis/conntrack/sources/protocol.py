"""What a source of connections is to who polls it: the kernel's table, or a switch's."""

from dataclasses import dataclass
from typing import Protocol

from flowvis.conntrack.entries import Entries
from flowvis.counts import count, gauge


@dataclass(slots=True)
class ConntrackStats:
    """What was read; each number has one writer, so polls and events may run in two threads."""

    polls: int = count("Dumps of the table of connections")
    entries: int = count("Entries of dumps, before the filter by zone")
    malformed_entries: int = count("Entries of dumps that could not be decoded; skipped")
    interrupted: int = count("Dumps during which the table changed: entries may lack or come twice")
    events: int = count("Events of connections that began or ended")
    malformed_events: int = count("Events that could not be decoded; skipped")
    lost_events: int = count("Events that the kernel dropped, as we read too slowly")
    overruns: int = count("Times that the kernel dropped events, as we read too slowly")
    turned_off: int = count("Times that counters, start times or events were found turned off")
    off: int = gauge("Of counters, start times and events, how many are off and may not be set")


class Source(Protocol):
    """A table of connections that is listed as a whole; some report beginnings and ends as well.

    `poll` blocks and may run in a thread while another one reads events.
    """

    stats: ConntrackStats
    needs_resync: bool
    """Events were lost since the last poll began: only a poll tells what happened."""
    unread: bool
    """Whether the last read of events may have left some that had arrived before it."""
    counts: bool
    """Whether it can count packets and bytes at all."""

    def open(self) -> None:
        """Reach the table; SystemRefused with the remedy when that may not be. May block."""

    def close(self) -> None:
        """Let go of it; may be called again. A poll under way in another thread is cut off."""

    def prepare(self) -> list[str]:
        """Have it tell all that it can; one line for each thing that will be missing."""

    def turned_off(self) -> list[str]:
        """Turn on again what somebody has turned off since the last look; a line for each."""

    def count(self) -> int:
        """How many connections it holds, of all zones."""

    def maximum(self) -> int:
        """How many it can hold."""

    def closed_s(self) -> dict[str, int]:
        """For how many seconds it keeps closed TCP connections, by state."""

    def unanswered_s(self) -> dict[int, int]:
        """For how many seconds it keeps connections that nobody answers, by protocol."""

    def poll(self) -> Entries:
        """All connections of the zones that are wanted."""

    def event_fileno(self) -> int:
        """The descriptor that becomes readable when there are events, where there are any."""

    def read_events(self) -> Entries:
        """Some of the events that have arrived, in their order; does not block."""
