"""What became of the records that a table of flows was given."""

from dataclasses import dataclass

from flowvis.counts import count, gauge
from flowvis.runtime.dropped import FlowDropped


@dataclass(slots=True)
class FlowStats:
    """What became of the records: received = written + merged + held + parked + dropped."""

    received: int = count("Records that came in")
    written: int = count("Records that went out")
    merged: int = count("Records that joined what already waited to be written")
    held: int = gauge("Flows that have something to write")
    parked: int = gauge("Records that wait for what the store knows of their connections")
    restored: int = count("Flows gone on with from what the store knows of them")
    late: int = count("Records dropped since their node has said something newer")
    repeated: int = count("Records dropped since they say nothing new")
    unchanged: int = count("Records that had a later end only: not written, as nothing had changed")
    left: int = count("Records left to exporters that keep them, as the aggregator stopped")
    full: int = count("Records dropped since every flow of the table waits to be written")
    failed: int = count("Records dropped since their handling failed: a defect of ours")
    uncompleted: int = count("Records written without all that is added, as that failed")
    restarted: int = count("Records whose counters had started again from zero")
    further: int = count("Records of connections that two other exporters report already")
    reversed: int = count(
        "Records turned round, as another exporter saw client and server exchanged"
    )
    reused: int = count("5-tuples that a new connection took over from a live flow")
    orphaned: int = count("Records of connections older than those that the table knew of")
    half_waits: int = count("Flows first written without their other half")
    evicted: int = count("Flows with nothing to write, forgotten early to make room")
    expired: int = count("Flows forgotten after the inactive timeout")
    compactions: int = count("String tables left behind for a fresh one")
    refused_texts: int = count("Texts that became empty, as there was no room for them")
    shortened_texts: int = count("Texts of ours that were too long: labels, names of objects")

    @property
    def dropped(self) -> dict[str, int]:
        """Records that changed nothing, by reason."""
        return {reason.value: getattr(self, reason) for reason in FlowDropped}

    @property
    def imbalance(self) -> int:
        """0 when the books balance."""
        known = self.written + self.merged + self.held + self.parked + sum(self.dropped.values())
        return self.received - known
