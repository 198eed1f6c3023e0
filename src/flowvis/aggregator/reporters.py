"""Which nodes report: sessions that are open or were, and the nodes that the inventory has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowvis.batch import address_bytes
from flowvis.inventory.networks import NONE, address_column
from flowvis.inventory.services import NodeIndex
from flowvis.ipfix.exporter_report import ExporterReport
from flowvis.ipfix.occupancy import Occupant

SKEW_S = 2.0
"""From how far on a clock that differs is a problem: Pods are found by the times that it gives."""

NEARLY_FULL = 0.8
"""From which share on a connection table is a problem: the kernel drops what has no room."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """One exporter's session, open or over."""

    address: str
    """Where it comes from: exporters use the node's network."""
    named: str
    """The node that its records name; "" where they name none."""
    records: int
    last_s: float
    """When something came from it at last, by a clock that does not jump."""
    open: bool
    lost: int = 0
    """Records that never came, by the sequence numbers."""
    gaps: int = 0
    """How often some were missing."""
    rate: float = 0.0
    """Records a second, lately."""
    ahead_s: float | None = None
    """How far its clock is ahead of ours; None where no message came."""
    sent_again: int = 0
    """Records that may have been received before, as it says."""
    acknowledged: int | None = None
    """Records that it was told are durable; None where it takes no acknowledgements."""
    waiting: int = 0
    """Records that it was not told so of yet, and waits."""
    report: ExporterReport | None = None
    """What it said last of itself; None where it says nothing."""
    missed_s: float | None = None
    """When it said that it had missed more than before, by the clock of `last_s`."""
    occupancy: tuple[Occupant, ...] | None = None
    """Who fills its node's connection table, as it said last; None where it says nothing."""


@dataclass(frozen=True, slots=True)
class NodeReports:
    """What came from one node."""

    name: str
    sessions: int
    """Those that are open."""
    records: int
    last_s: float | None
    """None where nothing ever came."""
    lost: int = 0
    gaps: int = 0
    rate: float = 0.0
    """Of the sessions that are open."""
    ahead_s: float | None = None
    """Of the session from which something came last."""
    sent_again: int = 0
    acknowledged: int | None = None
    """None where none of its sessions takes acknowledgements."""
    waiting: int = 0
    report: ExporterReport | None = None
    """Of the session from which something came last."""
    missed_s: float | None = None
    """When one of its exporters last said that it had missed more."""
    occupancy: tuple[Occupant, ...] | None = None
    """Of the session from which something came last."""

    def as_dict(self, now_s: float) -> dict[str, Any]:
        """The node as the API shows it."""
        ahead_s = self.ahead_s
        return {
            "name": self.name,
            "sessions": self.sessions,
            "lastHeardSeconds": None if self.last_s is None else round(now_s - self.last_s, 1),
            "recordsPerSecond": round(self.rate, 2),
            "received": self.records,
            "lost": self.lost,
            "gaps": self.gaps,
            **self.acknowledgement(),
            "complete": bool(self.sessions) and not self.lost and not self.missing(),
            "clockSkewSeconds": None if ahead_s is None else round(ahead_s, 1),
            **self._reported(),
            "occupants": self._occupants(),
            "problems": self.problems(),
        }

    def acknowledgement(self) -> dict[str, Any]:
        """What its exporters know to be durable, as the API shows it."""
        return {
            "sentAgain": self.sent_again,
            "acknowledged": self.acknowledged,
            "waiting": self.waiting,
        }

    def _reported(self) -> dict[str, Any]:
        """What its exporter says of itself, as the API shows it."""
        report = self.report
        if report is None:
            return {"conntrack": None, "unobserved": None, "unseen": None, "dropped": None}
        # An exporter that has just begun has not looked yet; a switch tells no limit.
        looked = report.tracked or report.capacity
        return {
            "conntrack": {"entries": report.tracked, "max": report.capacity} if looked else None,
            "unobserved": report.unobserved,
            "unseen": report.unseen,
            "dropped": report.dropped,
        }

    def _occupants(self) -> list[dict[str, Any]] | None:
        """Who fills its connection table, as the API shows it; None where that is not known."""
        return None if self.occupancy is None else [each.as_dict() for each in self.occupancy]

    def filling(self) -> str:
        """Say that the node's connection table is nearly full, and who fills it; "" else."""
        report = self.report
        if report is None or report.tracked < NEARLY_FULL * (report.capacity or math.inf):
            return ""
        share = 100 * report.tracked / report.capacity
        full = f"its connection table is {share:.0f} % full"
        return full if not self.occupancy else f"{full}: {self.occupancy[0]}"

    def missed_ago_s(self, now_s: float) -> float | None:
        """For how many seconds nothing more has been missed; None where nothing ever was."""
        return None if self.missed_s is None else round(now_s - self.missed_s, 1)

    def missing(self) -> list[str]:
        """Say what never became a record that was sent, since its exporter began."""
        report, found = self.report, []
        if report is not None and report.unobserved:
            found.append(
                f"{report.unobserved} connections ended unobserved: what they did last is missing"
            )
        if report is not None and report.unseen:
            found.append(f"at most {report.unseen} connections began and ended unseen")
        if report is not None and report.dropped:
            found.append(f"its exporter dropped {report.dropped} records")
        return found

    def problems(self) -> list[str]:
        """Say what is not well."""
        found = []
        if not self.sessions:
            found.append("it has no session" if self.last_s is not None else "nothing ever came")
        if self.lost:
            found.append(f"{self.lost} of its records never came, by their sequence numbers")
        found += self.missing()
        if filling := self.filling():
            found.append(filling)
        if self.ahead_s is not None and self.ahead_s > SKEW_S:
            found.append(f"its clock is {self.ahead_s:.1f} s ahead of ours")
        if self.ahead_s is not None and self.ahead_s < -SKEW_S - 1:
            late = f"{-self.ahead_s:.1f} s"
            found.append(f"its clock is {late} behind ours, or its messages are that late")
        return found


def nodes_of(reporters: Sequence[Reporter], nodes: NodeIndex) -> list[str]:
    """Return the node of each: by its address, else as its records name it; "" where unknown."""
    column = address_column(_bytes(reporter.address) for reporter in reporters)
    handles = nodes.find(column).tolist()
    return [
        reporter.named if handle == NONE else nodes.objects[handle].name
        for reporter, handle in zip(reporters, handles, strict=True)
    ]


def by_node(reporters: Sequence[Reporter], nodes: NodeIndex) -> list[NodeReports]:
    """Return what came from each node, also from those that nothing came from, by name."""
    found = {node.name: NodeReports(node.name, 0, 0, None) for node in nodes.objects}
    for name, reporter in zip(nodes_of(reporters, nodes), reporters, strict=True):
        if name:
            before = found.get(name) or NodeReports(name, 0, 0, None)
            later = before.last_s is None or reporter.last_s >= before.last_s
            found[name] = NodeReports(
                name,
                before.sessions + reporter.open,
                before.records + reporter.records,
                reporter.last_s if later else before.last_s,
                before.lost + reporter.lost,
                before.gaps + reporter.gaps,
                before.rate + (reporter.rate if reporter.open else 0.0),
                reporter.ahead_s if later and reporter.ahead_s is not None else before.ahead_s,
                before.sent_again + reporter.sent_again,
                summed(before.acknowledged, reporter.acknowledged),
                before.waiting + reporter.waiting,
                reporter.report if later and reporter.report is not None else before.report,
                latest(before.missed_s, reporter.missed_s),
                reporter.occupancy
                if later and reporter.occupancy is not None
                else before.occupancy,
            )
    return [found[name] for name in sorted(found)]


def summed(one: int | None, other: int | None) -> int | None:
    """Add up numbers that may not be there."""
    return one if other is None else (one or 0) + other


def latest(one: float | None, other: float | None) -> float | None:
    """Return the later of moments that may not have been."""
    return max((moment for moment in (one, other) if moment is not None), default=None)


def _bytes(address: str) -> bytes:
    try:
        return address_bytes(address.partition("%")[0])
    except ValueError:
        return bytes(16)  # no node's
