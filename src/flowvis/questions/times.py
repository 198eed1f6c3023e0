"""Ranges of time: what people write for them, the one to compare with, and their intervals.

A moment is `now`, ms since the epoch, ISO 8601 (UTC where it says no offset), or relative to now:
-15m, -2h, -1d, also with `now` before it. A range is [from, to); a record is of the range that its
flowEndSeconds lies in.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from flowvis.filters.literals import are_seconds
from flowvis.questions.problem import QuestionError, shown

DEFAULT_FROM = "-15m"
LATEST_MS = ((1 << 32) - 1) * 1000  # what DateTime and dateTimeSeconds (RFC 7011 6.1.7) can have
MAX_INTERVALS = 1500
"""Intervals of one series: more than a screen is wide."""
AUTO_INTERVALS, LEAST_INTERVALS = 120, 60
"""Intervals at most, and at least, where their length is not given."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_RELATIVE = re.compile(r"(?:now)?\s*([+-])\s*(\d{1,9})(ms|s|m|h|d|w)", re.ASCII)
_LENGTH = re.compile(r"(\d{1,9})(ms|s|m|h|d|w)", re.ASCII)
_STEPS_S = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800,
)  # fmt: skip
_WRITTEN = "now, -15m, -2h, -1d, ms since the epoch, or ISO 8601 as 2026-01-31T12:00:00Z"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From (included) to (not included), ms since the epoch.

    The store has whole seconds, and each is a moment: so one that begins where another ends has
    none of its seconds.
    """

    from_ms: int
    to_ms: int

    @property
    def from_s(self) -> int:
        """The first second that is not before it."""
        return -(-self.from_ms // 1000)

    @property
    def to_s(self) -> int:
        """The first one after it: there is one of it at least, also of less than a second."""
        return max(-(-self.to_ms // 1000), self.from_s + 1)

    @property
    def seconds(self) -> int:
        """How many seconds it has."""
        return self.to_s - self.from_s

    def condition(self) -> str:
        """Return the SQL that is true of its records."""
        return (
            f"flowEndSeconds >= toDateTime({self.from_s})"
            f" AND flowEndSeconds < toDateTime({self.to_s})"
        )

    def moved(self, by_ms: int) -> "TimeRange":
        """Return one as long that begins that much later."""
        return TimeRange(self.from_ms + by_ms, self.to_ms + by_ms)


def apart(ranges: Sequence[TimeRange]) -> list[TimeRange]:
    """Return the same time in ranges between which something lies, in the order of the first."""
    found: list[TimeRange] = []
    for each in ranges:
        beside = [o for o in found if o.from_ms <= each.to_ms and each.from_ms <= o.to_ms]
        joined = [*beside, each]
        whole = TimeRange(min(o.from_ms for o in joined), max(o.to_ms for o in joined))
        place = found.index(beside[0]) if beside else len(found)
        found = [o for o in found if o not in beside]
        found.insert(place, whole)
    return found


@dataclass(frozen=True, slots=True)
class Intervals:
    """The equal intervals of a range, of whole seconds; the first and last may reach beyond it."""

    range: TimeRange
    step_s: int

    @property
    def first_s(self) -> int:
        """When the first one begins: a multiple of their length."""
        return self.range.from_s // self.step_s * self.step_s

    def __len__(self) -> int:
        return max(-(-(self.range.to_s - self.first_s) // self.step_s), 1)

    def starts_ms(self) -> list[int]:
        """When each begins."""
        return [(self.first_s + n * self.step_s) * 1000 for n in range(len(self))]

    def spans(self, read: TimeRange | None = None) -> Iterator[int]:
        """Go through how many seconds of each are within what was read, at least 1.

        That is the range, unless it was read in whole minutes or hours or some of it is gone.
        """
        within = read or self.range
        starts = [self.first_s + n * self.step_s for n in range(len(self))]
        for begin, end in pairwise([*starts, within.to_s]):
            yield max(min(end, within.to_s) - max(begin, within.from_s), 1)

    def sql(self) -> str:
        """Return the number of a record's interval."""
        return f"intDiv(toUInt32(flowEndSeconds) - {self.first_s}, {self.step_s})"

    def moved(self, other: TimeRange, whole_s: int = 1) -> "Intervals":
        """Return as many of another range as long, which begin as far before it as these do.

        `whole_s`: of how many seconds, or of multiples, these have to be. They begin with such a
        one, as much earlier, and the last one is as much longer.
        """
        before_s = self.range.from_s - self.first_s
        return _Shifted(other, self.step_s, before_s, len(self), whole_s)


@dataclass(frozen=True, slots=True)
class _Shifted(Intervals):
    """Intervals that do not begin at multiples of their length."""

    before_s: int
    count: int
    whole_s: int

    @property
    def first_s(self) -> int:
        return max((self.range.from_s - self.before_s) // self.whole_s * self.whole_s, 0)

    def __len__(self) -> int:
        return self.count

    def sql(self) -> str:
        return f"least({Intervals.sql(self)}, {self.count - 1})"


def parse_moment(parameter: str, text: str, now_ms: int) -> int:
    """Read a moment, in ms since the epoch; QuestionError names what is wrong."""
    written = text.strip()
    if written == "now":
        return now_ms
    if match := _RELATIVE.fullmatch(written):
        moved = int(match[2]) * _UNITS[match[3]]
        moment = now_ms + (moved if match[1] == "+" else -moved)
    elif written.isascii() and written.isdecimal() and len(written) > 8:
        moment = int(written[:20])
        if are_seconds(moment):  # a range of 50 years would be the answer
            problem = f"{shown(text)}: ms since the epoch are meant; of seconds: {moment}000"
            raise QuestionError("bad-range", f"{parameter} {problem}")
    else:
        try:
            parsed = datetime.fromisoformat(written)
            moment = round(parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp() * 1000)
        except (ValueError, OverflowError) as error:
            raise QuestionError("bad-range", f"{parameter} {shown(text)}: {_WRITTEN}") from error
    if not 0 <= moment <= LATEST_MS:
        raise QuestionError("bad-range", f"{parameter} {shown(text)}: from 1970 to 2106")
    return moment


def parse_range(text_from: str, text_to: str, now_ms: int) -> TimeRange:
    """Read a range; "" is -15m and now, and `from` may have both: -2h..-1h."""
    begin, dots, end = text_from.partition("..")
    if dots and end and text_to:
        raise QuestionError(
            "bad-range", f"from {shown(text_from)} has an end, and so has to {shown(text_to)}"
        )
    begin_ms = parse_moment("from", begin or DEFAULT_FROM, now_ms)
    end_ms = parse_moment("to", end or text_to or "now", now_ms)
    if begin_ms >= end_ms:
        raise QuestionError(
            "bad-range",
            f"from {shown(begin or DEFAULT_FROM)} is not before"
            f" to {shown(end or text_to or 'now')}",
        )
    return TimeRange(begin_ms, end_ms)


def parse_compare(text: str, asked: TimeRange, now_ms: int) -> TimeRange | None:
    """Read what to compare a range with; "": nothing.

    `previous`, how much earlier as -1d, or a range as long, -2d..-1d.
    """
    if not text:
        return None
    if text == "previous":
        return _earlier(text, asked, asked.to_ms - asked.from_ms)
    begin, dots, end = text.partition("..")
    if dots:
        moments = (begin, end or "now")
        found = TimeRange(*(parse_moment("compare", each, now_ms) for each in moments))
        length_ms = asked.to_ms - asked.from_ms
        if abs(found.to_ms - found.from_ms - length_ms) >= 1000:
            raise QuestionError(
                "bad-range",
                f"compare {shown(text)}: not as long as the range, which has"
                f" {length_ms / 1000:g} s",
            )
        return found
    match = _RELATIVE.fullmatch(text)
    if match is None or match[1] == "+" or not int(match[2]):
        raise QuestionError(
            "bad-range",
            f"compare {shown(text)}: previous, how much earlier as -1d, or a range as -2d..-1d",
        )
    return _earlier(text, asked, int(match[2]) * _UNITS[match[3]])


def _earlier(text: str, asked: TimeRange, by_ms: int) -> TimeRange:
    """Return a range as long, so much earlier; QuestionError where there was no time yet."""
    if by_ms > asked.from_ms:
        raise QuestionError("bad-range", f"compare {shown(text)}: that begins before 1970")
    return asked.moved(-by_ms)


def parse_interval(text: str, asked: TimeRange, least_s: int = 1) -> Intervals | None:
    """Read the length of intervals: `none` or "", `auto`, or as 60s, 5m.

    `auto` makes 60 to 120, of whole minutes where it can, and of a multiple of `least_s`.
    """
    if text in {"", "none"}:
        return None
    if text == "auto":
        fitting = [
            step
            for step in _STEPS_S
            if asked.seconds <= step * AUTO_INTERVALS and step % least_s == 0
        ]
        whole = [s for s in fitting if s % 60 == 0 and asked.seconds >= s * LEAST_INTERVALS]
        long_s = -(-asked.seconds // (AUTO_INTERVALS * least_s)) * least_s
        step_s = next(iter([*whole, *fitting]), long_s)
        return Intervals(asked, step_s)
    match = _LENGTH.fullmatch(text)
    step_s, rest_ms = divmod(int(match[1]) * _UNITS[match[2]] if match else 0, 1000)
    if step_s < 1 or rest_ms:
        raise QuestionError(
            "bad-query",
            f"interval {shown(text)}: none, auto, or a length of whole seconds as 60s, 5m",
        )
    if (made := Intervals(asked, step_s)) and len(made) > MAX_INTERVALS:
        raise QuestionError(
            "bad-query",
            f"interval {shown(text)}: {len(made)} intervals of the range, more than"
            f" {MAX_INTERVALS}: longer ones, or auto",
        )
    return made
