"""Antrea's audit log of policies (np.log): lines to columns.

A line is the date and time, then, each after one blank: OpenFlow table, policy, rule, direction,
action, priority, Pod that the policy applies to, source, its port, destination, its port, protocol,
length, label; and in brackets how many such packets it stands for. `<nil>` is what there is not.
Before Antrea 1.13 there was neither direction nor Pod, before 1.12 no label, before 1.9 no rule,
before 1.6 no ports. A rule's name is any text; no other field has blanks, so that a line is read
from both sides and the name is what is left. Does no I/O and has no clock; the log's is taken for
UTC, as Antrea's containers have it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np

from flowvis.batch import address_bytes
from flowvis.counts import count
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import POLICY_TYPES, DenialVerdict
from flowvis.fields import RuleAction

CLOCK_SKEW_MS = 60_000  # a time further off than that is of another time zone, or of no clock
MAX_COUNT = 1 << 32  # packets in one line: far more than pass in the second that it is about

PROTOCOLS = {"ICMP": 1, "IGMP": 2, "TCP": 6, "UDP": 17, "IPv6-ICMP": 58, "ICMPv6": 58, "SCTP": 132}
"""As Antrea writes them; what it has no name for is not one either here (0)."""

_HEAD = (
    r"(?P<timestamp>(?P<date>\d{4}/\d\d/\d\d) (?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)) "
    r"(?P<table>\S+) (?P<policy>\S+)"
)
_DECISION = r"(?P<action>Allow|Drop|Reject|Pass|Redirect) (?P<priority>\d*|<nil>)"
_POD = r"(?P<pod>[^ /]+/[^ /]+|<nil>)"
_COUNT = r"(?: \[(?P<count>\d{1,12}) packets in [^\]]*\])?"
_PACKET = (
    r"(?P<source>[0-9a-fA-F.:]+) (?P<source_port>\d{1,5}|<nil>|) "
    r"(?P<destination>[0-9a-fA-F.:]+) (?P<destination_port>\d{1,5}|<nil>|) "
    r"(?P<protocol>\S+) (?P<length>\d{1,9})"
    rf"(?: (?P<label>\S+))?{_COUNT}"
)
_PACKET_WITHOUT_PORTS = (
    r"(?:SRC: )?(?P<source>[0-9a-fA-F.:]+)(?P<source_port>) "
    r"(?:DEST: )?(?P<destination>[0-9a-fA-F.:]+)(?P<destination_port>) "
    rf"(?P<length>\d{{1,9}}) (?P<protocol>\S+){_COUNT}"
)
PATTERNS = (
    rf"{_HEAD} (?P<rule>.*) (?P<direction>Ingress|Egress|<nil>) {_DECISION} {_POD} {_PACKET}",
    rf"{_HEAD}(?: (?P<rule>.*))?(?P<direction>) {_DECISION} {_PACKET}",
    rf"{_HEAD}(?P<rule>)(?P<direction>) {_DECISION} {_PACKET_WITHOUT_PORTS}",
)
"""The newest first: only there a Pod stands before the addresses. Names take as much as they can,
as what looks like the rest of a line may be a part of one. Each is of a whole line, and `.` is any
character. The parsers of deploy/logs are made of them."""

_GENERATIONS = tuple(re.compile(text, re.DOTALL) for text in PATTERNS)

_FORMATTED = re.compile(r"%!(\w)\(MISSING\)")
"""What Go makes of `%` and a letter, or `%`, blank and letter, in a name that it takes for a format
(lines without a count, until 2.1)."""

_ACTIONS = {"Drop": RuleAction.DROP, "Reject": RuleAction.REJECT}
_NIL = "<nil>"


@dataclass(slots=True)
class AuditStats:
    """What the audit log reported."""

    lines: int = count("Lines of the audit log")
    allowed: int = count("Lines of the audit log about packets that were not denied")
    malformed: int = count("Lines of the audit log that could not be read")


class AuditLog:
    """Reads lines of the log."""

    def __init__(self) -> None:
        self.stats = AuditStats()

    def parse(self, lines: Sequence[bytes], now_ms: int) -> Packets:
        """Return the denied packets of whole lines."""
        verdicts: dict[DenialVerdict, int] = {}
        rows = []
        self.stats.lines += len(lines)
        for line in lines:
            match = _match(line.decode(errors="replace").rstrip("\r\n "))
            if match is None:
                self.stats.malformed += 1
            elif match["action"] not in _ACTIONS:
                self.stats.allowed += 1
            else:
                try:
                    row = _row(match, now_ms)
                except ValueError:  # an address, a time or a number that is none
                    self.stats.malformed += 1
                else:
                    verdict = verdicts.setdefault(_verdict(match), len(verdicts))
                    rows.append((*row, verdict))
        columns = list(zip(*rows, strict=True)) if rows else [()] * 9
        source, destination = (_addresses(column) for column in columns[:2])
        destination_port = np.array(columns[3], dtype=np.uint16)
        return Packets(
            source,
            destination,
            np.array(columns[2], dtype=np.uint16),
            destination_port,
            np.array(columns[4], dtype=np.uint8),
            np.array(columns[5], dtype=np.uint64),
            np.array(columns[6], dtype=np.uint64),
            destination,
            destination_port,
            np.array(columns[7], dtype=np.uint64),
            np.zeros(len(rows), dtype=np.uint64),
            np.array(columns[8], dtype=np.int64),
            list(verdicts),
        )


def _match(text: str) -> re.Match[str] | None:
    """Return a line's fields, by the generation that it is of."""
    text = _FORMATTED.sub(r"% \1", text)
    return next(filter(None, (pattern.fullmatch(text) for pattern in _GENERATIONS)), None)


def _row(match: re.Match[str], now_ms: int) -> tuple[bytes, bytes, int, int, int, int, int, int]:
    """Return a line's packet, in the order of the columns; ValueError if it cannot be one."""
    packets = int(match["count"] or 1)
    source_port, destination_port = (
        int(match[name]) if match[name].isdigit() else 0 for name in _PORTS
    )
    if max(source_port, destination_port) > 0xFFFF or not 0 < packets <= MAX_COUNT:
        raise ValueError(match[0])
    return (
        _address(match["source"]),
        _address(match["destination"]),
        source_port,
        destination_port,
        PROTOCOLS.get(match["protocol"], 0),
        packets,
        packets * int(match["length"]),
        _time_ms(match["timestamp"], now_ms),
    )


_PORTS = ("source_port", "destination_port")


def _verdict(match: re.Match[str]) -> DenialVerdict:
    kind, _, name = match["policy"].partition(":")
    namespace, slash, bare = name.partition("/")
    rule = match["rule"]
    direction = match["direction"] or match["table"]
    return DenialVerdict(
        _ACTIONS[match["action"]],
        egress="Egress" in direction,
        name=bare if slash else name,
        namespace=namespace if slash else "",
        type=POLICY_TYPES.get(kind.lower(), 0),
        rule="" if rule in {None, _NIL} else rule,
    )


def _time_ms(text: str, now_ms: int) -> int:
    """Return a line's time; now, if that is far from it."""
    stamp = datetime.fromisoformat(text[:19].replace("/", "-")).replace(tzinfo=UTC)
    at_ms = int(stamp.timestamp()) * 1000 + int(text[20:23].ljust(3, "0"))
    return at_ms if abs(at_ms - now_ms) <= CLOCK_SKEW_MS else now_ms


@lru_cache(4096)
def _address(text: str) -> bytes:
    return address_bytes(text)


def _addresses(column: Sequence[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(column), dtype=np.uint8).reshape(len(column), 16)
