"""Why records are given up: the reasons of each stage of the ledger, and what they mean."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """A fixed short word, as it stands in the books, and what it means."""

    meaning: str
    is_loss: bool
    """Somebody wanted them: nothing else has what they said."""

    def __new__(cls, word: str, meaning: str, is_loss: bool = True) -> Self:
        """Make a member that is its word."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.meaning = meaning
        member.is_loss = is_loss
        return member


class EntryDropped(Reason):
    """Entries of the kernel's dumps and events that become no connection of ours."""

    OUT_OF_SCOPE = (
        "out-of-scope",
        "of a zone, protocol or kind (loopback, our own session) left out",
        False,
    )
    NOT_LOCAL = "not-local", "of no Pod of this node", False
    DYING = (
        "dying",
        "about to leave the kernel's table, or where one just left: an event tells that one's end",
        False,
    )
    REPORTED_BEFORE = (
        "reported-before",
        "reported whole before: by our predecessor, or until evicted",
        False,
    )
    TABLE_FULL = "table-full", "no room: raise flowExporter.maxConnections"
    OTHER_EVENT = "other-event", "an event that is neither a beginning nor an end", False
    LOST = "lost", "events that the kernel dropped, as we did not read fast enough"
    DEFAULT_ZONE = "default-zone", "on nodes with Antrea: they only complete others", False
    FAILED = "failed", "a defect of ours, in the log"


class PacketDropped(Reason):
    """Packets logged as denied that become no connection of ours."""

    LOST = "lost", "logged by the kernel or by Antrea, but not read: the log was too fast"
    MALFORMED = "malformed", "not what such a log has", False
    NOT_DENIED = "not-denied", "logged, but not by a rule that denies", False
    OUT_OF_SCOPE = "out-of-scope", "of a protocol or kind left out", False
    RATE_LIMIT = "rate-limit", "beyond denied.maxPacketsPerSecond"
    NOT_LOCAL = "not-local", "of no Pod of this node", False
    TABLE_FULL = "table-full", "no room: raise denied.maxConnections"
    FAILED = "failed", "a defect of ours, in the log"


class ExportDropped(Reason):
    """Records that an exporter does not bring to its collector."""

    PENDING_FULL = "pending-full", "the collector was away for longer than the queue lasts"
    UNCONFIRMED = (
        "unconfirmed",
        "sent, not acknowledged, and can not be sent again: it may be stored",
    )
    OVERSIZE = "oversize", "no message is large enough for it"
    CUT_OFF = "cut-off", "the time to stop was up while they were being sent"
    STOPPED = "stopped", "the exporter stopped, and the collector did not take them"
    FAILED = "failed", "a defect of ours, in the log"


class FlowDropped(Reason):
    """Records that change nothing in the table of flows."""

    LATE = "late", "their node has reported something newer", False
    REPEATED = "repeated", "they say nothing new", False
    UNCHANGED = "unchanged", "only their end is later: nothing is written for that", False
    LEFT = "left", "the aggregator stopped, and their exporters keep them for the next one", False
    FULL = "full", "every flow of the table waits to be written: raise maxFlows"
    FAILED = "failed", "a defect of ours, in the log with what is needed to reproduce it"


class OutgoingDropped(Reason):
    """Written records that do not reach a destination."""

    QUEUE_FULL = "queue-full", "the destination was away or slow for longer than its queue lasts"
    REJECTED = "rejected", "the store will never take them: its answer is in the log"
    OVERSIZE = "oversize", "no message is large enough for it"
    CLOSED = "closed", "they came after the end"
    SHUTDOWN = "shutdown", "the time to stop was up"
    SPOOL_FULL = "spool-full", "the store was away for longer than the spool lasts: the oldest go"
    SPOOL_CORRUPT = "spool-corrupt", "their file in the spool is damaged, and kept as *.corrupt"
    FILTERED = "filtered", "not wanted there: flowLogger.filters", False
    LEFT = "left", "in the spool as the aggregator stopped: the next one goes on with them", False
    FAILED = "failed", "a defect of ours, in the log"


@dataclass(frozen=True, slots=True)
class Page:
    """What the columns of one stage's page mean."""

    stage: str
    received: str
    sent: str
    merged: str = ""
    dropped: type[Reason] | None = None


PAGES = (
    Page(
        "exporter `entries`",
        "entries of dumps and events",
        "connections admitted",
        "entries of known connections",
        EntryDropped,
    ),
    Page("exporter `connections`", "admitted", "ended and reported"),
    Page(
        "exporter `denied packets`",
        "packets logged as denied",
        "connections admitted",
        "packets of known connections",
        PacketDropped,
    ),
    Page("exporter `denied connections`", "admitted", "reported and let go"),
    Page(
        "exporter `records`",
        "due",
        "acknowledged; handed to the kernel where the collector acknowledges nothing",
        dropped=ExportDropped,
    ),
    Page("aggregator `collector`", "decoded from sessions", "given to the correlator"),
    Page(
        "aggregator `correlator`",
        "from the collector",
        "written",
        "joined a record that waited",
        FlowDropped,
    ),
    Page(
        "aggregator: each destination (`clickhouse`, `ipfix`, ...)",
        "from the correlator",
        "acknowledged by the store; handed to the kernel",
        dropped=OutgoingDropped,
    ),
)
"""The stages of both daemons' ledgers, in the order that records pass them."""


def reason_of(stage: str, word: str) -> Reason | None:
    """Return the reason that a stage of the ledger has by this word, if it is on its page.

    A stage that has no page of its own is a destination's.
    """
    page = next((page for page in PAGES if f"`{stage}`" in page.stage), PAGES[-1])
    return next((reason for reason in page.dropped or () if reason == word), None)


def documentation() -> str:
    """Return the pages, and what their reasons mean, as Markdown tables."""
    lines = ["| Stage | Received | Sent | Merged | Dropped, by reason |", "|---|---|---|---|---|"]
    for page in PAGES:
        reasons = ", ".join(page.dropped or ())
        lines.append(
            f"| {page.stage} | {page.received} | {page.sent} | {page.merged} | {reasons} |"
        )
    lines += ["", "| Dropped by | Reason | A loss | Meaning |", "|---|---|---|---|"]
    for page in PAGES:
        for reason in page.dropped or ():
            loss = "yes" if reason.is_loss else ""
            lines.append(f"| {page.stage} | {reason} | {loss} | {reason.meaning} |")
    return "\n".join(lines) + "\n"
