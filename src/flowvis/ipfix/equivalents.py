"""What other exporters send in place of our elements, as steps of a decode program.

Routers, probes and hosts count totals only or deltas only, which the merge adds up, and export
times in microseconds, since the system began, before the export, or as a duration. A template tells
which, once; its records are then decoded by a plan of their own.
"""

from collections.abc import Mapping, Sequence

from flowvis.fields import BY_NAME, Merge, Side
from flowvis.ipfix.template import FieldSpecifier
from flowvis.native.contract.ipfix import DecodeOp

Step = tuple[int, int, int]  # op, argument, column

COUNTERS: dict[str, tuple[str, ...]] = {
    "octetDeltaCount": (
        "initiatorOctets",
        "postOctetDeltaCount",
        "transportOctetDeltaCount",
        "layer2OctetDeltaCount",
    ),
    "packetDeltaCount": ("initiatorPackets", "postPacketDeltaCount", "transportPacketDeltaCount"),
    "octetTotalCount": ("postOctetTotalCount", "layer2OctetTotalCount"),
    "packetTotalCount": ("postPacketTotalCount",),
    "reverseOctetDeltaCount": (
        "responderOctets",
        "reversePostOctetDeltaCount",
        "reverseTransportOctetDeltaCount",
        "reverseLayer2OctetDeltaCount",
    ),
    "reversePacketDeltaCount": (
        "responderPackets",
        "reversePostPacketDeltaCount",
        "reverseTransportPacketDeltaCount",
    ),
    "reverseOctetTotalCount": ("reversePostOctetTotalCount", "reverseLayer2OctetTotalCount"),
    "reversePacketTotalCount": ("reversePostPacketTotalCount",),
}
"""What counts nearly the same, best first; initiator and responder count "since the previous
report" (IANA elements 231, 232, 298, 299)."""

PAIRS = tuple(
    (field.name, field.counter)
    for field in BY_NAME.values()
    if field.merge is Merge.DELTA and field.side is Side.COMMON and field.counter is not None
)
"""Each delta and its total."""

MOMENTS = (
    ("Microseconds", DecodeOp.NTP),
    ("Nanoseconds", DecodeOp.NTP),
    ("DeltaMicroseconds", DecodeOp.BEFORE_EXPORT),
)
"""How else than in our elements the time of flowStart and flowEnd is reported, best first."""

OBSERVED = (
    ("observationTimeMilliseconds", DecodeOp.UNSIGNED),
    ("observationTimeMicroseconds", DecodeOp.NTP),
    ("observationTimeNanoseconds", DecodeOp.NTP),
    ("observationTimeSeconds", DecodeOp.UNSIGNED),
)
"""The one time of a record about an event (Cisco's NSEL)."""

ENDS = ("Start", "End")
UNITS = ("Milliseconds", "Seconds")
DURATIONS = ("flowDurationMilliseconds", "flowDurationMicroseconds")
BOOT = "systemInitTimeMilliseconds"


class Equivalents:
    """Finds, for one template, the steps that fill columns which none of its own elements fills.

    `names` are those of the template's usable elements, None for the others; `columns` the places
    of the fields that there are; `written` those that are filled already, and afterwards all that
    are. `steps` go in place of what would be skipped, `after` follow all of them.
    """

    def __init__(
        self,
        specifiers: Sequence[FieldSpecifier],
        names: Sequence[str | None],
        columns: Mapping[str, int],
        written: set[int],
    ) -> None:
        self.steps: dict[int, Step] = {}
        self.after: list[Step] = []
        self._specifiers = specifiers
        self._at = {name: at for at, name in reversed([*enumerate(names)]) if name is not None}
        self._columns = columns
        self._written = written
        if BOOT in self._at:
            at = self._at[BOOT]
            self.steps[at] = (DecodeOp.BOOT, specifiers[at].length, 0)

    @property
    def missing(self) -> list[str]:
        """What flows, which records with an address are, do not tell, for people."""
        missing: list[str] = []
        if not self._has("sourceIP"):
            return missing
        if not any(self._has(name) for pair in PAIRS for name in pair):
            missing.append("no count of octets or packets")
        if not any(self._has(f"flow{end}{unit}") for end in ENDS for unit in UNITS):
            missing.append("no time")
        return missing

    def complete(self) -> None:
        """Fill what can be filled of counters and times."""
        self._count()
        self._time()

    def _count(self) -> None:
        for field, others in COUNTERS.items():
            for other in others:
                self._take(other, DecodeOp.UNSIGNED, field)
        for delta, total in PAIRS:
            if self._has(total):
                self._derive(DecodeOp.COPY, self._columns[total], delta)

    def _time(self) -> None:
        start, end = "flowStartMilliseconds", "flowEndMilliseconds"
        if not {start, end} <= self._columns.keys():
            return
        for stem in ("flowStart", "flowEnd"):
            for suffix, op in MOMENTS:
                self._take(stem + suffix, op, f"{stem}Milliseconds")
            if self._has(f"{stem}Seconds"):
                seconds = self._columns[f"{stem}Seconds"]
                self._derive(DecodeOp.MILLISECONDS, seconds, f"{stem}Milliseconds")
        self._count_from_boot(start, end)
        self._observe(end)
        self._last(start, end)
        for stem in ("flowStart", "flowEnd"):
            if self._has(f"{stem}Milliseconds"):
                self._derive(
                    DecodeOp.SECONDS, self._columns[f"{stem}Milliseconds"], f"{stem}Seconds"
                )

    def _count_from_boot(self, start: str, end: str) -> None:
        """Times in milliseconds since the system began; its beginning may come in options."""
        taken = [
            field
            for name, field in (("flowStartSysUpTime", start), ("flowEndSysUpTime", end))
            if self._take(name, DecodeOp.UNSIGNED, field)
        ]
        for field in taken:  # the start first, as both need the end's uptime
            self.after.append((DecodeOp.UPTIME, self._columns[taken[-1]], self._columns[field]))

    def _observe(self, end: str) -> None:
        for name, op in OBSERVED:
            if name == "observationTimeSeconds" and self._take(name, op, "flowEndSeconds"):
                self._derive(DecodeOp.MILLISECONDS, self._columns["flowEndSeconds"], end)
            elif name != "observationTimeSeconds":
                self._take(name, op, end)

    def _last(self, start: str, end: str) -> None:
        """Where one of start and end is missing, a duration gives it; without one they are equal.

        A duration alone ends at the export.
        """
        duration = next((name for name in DURATIONS if name in self._at), None)
        if self._has(start) == self._has(end):
            if duration is None or self._has(start):
                return
            self._derive(DecodeOp.EXPORT_TIME, 0, end)
        known, other = (start, end) if self._has(start) else (end, start)
        if duration is None:
            if known == end:
                self._derive(DecodeOp.COPY, self._columns[end], start)
            return
        self._take(duration, DecodeOp.UNSIGNED, other)
        column = self._columns[other]
        if duration == DURATIONS[1]:
            self.after.append((DecodeOp.SECONDS, column, column))  # a thousandth of itself
        self.after.append(
            (DecodeOp.ADD if known == start else DecodeOp.SUBTRACT, self._columns[known], column)
        )

    def _has(self, field: str) -> bool:
        return self._columns.get(field) in self._written

    def _take(self, name: str, op: DecodeOp, field: str) -> bool:
        """Let an element of the template fill a field that nothing fills yet."""
        at = self._at.get(name)
        if at is None or at in self.steps or field not in self._columns or self._has(field):
            return False
        length = 0 if op is DecodeOp.NTP else self._specifiers[at].length
        self.steps[at] = (op, length, self._columns[field])
        self._written.add(self._columns[field])
        return True

    def _derive(self, op: DecodeOp, argument: int, field: str) -> None:
        """Let a field that nothing fills yet follow from others."""
        if field in self._columns and not self._has(field):
            self.after.append((op, argument, self._columns[field]))
            self._written.add(self._columns[field])
