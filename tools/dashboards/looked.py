"""What Grafana and the ClickHouse data source make of a panel's query before it is sent, for tests.

In the order in which they do it: `$__conditionalAll` by the variables' values, then variables with
their formats, both in the browser; then the macros of the range, in the data source's backend (its
pkg/macros; brackets as in sqlutil of Grafana's SDK for plugins).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tools.dashboards.ranges import BRANCHES

ALL = "$__all"
Value = str | Sequence[str]
Macro = Callable[..., str]

_VARIABLE = re.compile(r"\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\$\{(\w+)(?::(\w+))?\}")
"""In each of the forms that Grafana knows; a field's path is in none of ours."""
_NAMED = re.compile(r"(?<=\$\{)\w+(?=\})|(?<=\$)\w+")
"""The variable that a `$__conditionalAll` goes by: one with a format is none."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A dashboard as somebody looks at it."""

    from_s: int
    to_s: int
    """Seconds since the epoch."""
    interval_s: float = 60
    """What Grafana makes of the range and a panel's width."""
    values: Mapping[str, Value] = field(default_factory=dict)
    all_values: Mapping[str, str] = field(default_factory=dict)
    """What stands for all, of the variables that have such a value."""
    rest_ms: int = 0
    """What both ends of the range have beyond whole seconds."""

    @property
    def _range_ms(self) -> tuple[int, int]:
        return self.from_s * 1000 + self.rest_ms, self.to_s * 1000 + self.rest_ms

    def refreshed(self, ask: Callable[[str], str]) -> "Looked":
        """Return it with what Grafana asks of the store whenever the range changes.

        `ask` returns the only value that the store finds for a statement.
        """
        known = {each.name: ask(self.sql(each.sql)) for each in BRANCHES}
        return replace(self, values={**known, **self.values})

    def sql(self, raw: str) -> str:
        """Return what the server gets; ValueError for what the data source refuses."""
        return self._expanded(self.replaced(self._conditional(raw)))

    def _conditional(self, raw: str) -> str:
        macro = "$__conditionalAll("
        while (begin := raw.rfind(macro)) >= 0:
            cut = _arguments(raw, begin + len(macro) - 1)
            if cut is None or len(cut[0]) != 2:
                return raw
            (condition, variable), end = cut
            named = _NAMED.search(variable.strip())
            if named is not None and self._as_text(named[0]) in {"", ALL}:
                condition = "1=1"
            # The first one of the same text, by a replacement in which some of `$` have a meaning.
            whole = raw[begin:end]
            at = raw.find(whole)
            raw = raw[:at] + _meant(condition) + raw[at + len(whole) :]
        return raw

    def _as_text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if value is None or isinstance(value, str) else ",".join(value)

    def replaced(self, text: str) -> str:
        """Put in variables, and the range as links have it."""
        return _VARIABLE.sub(self._variable, text)

    def _variable(self, match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[4]
        format_ = match[3] or match[5]
        if name in {"__from", "__to"}:
            return str(self._range_ms[name == "__to"])
        if name not in self.values:
            return match[0]
        value = self.values[name]
        values = [value] if isinstance(value, str) else list(value)
        if values[:1] == [ALL]:
            return self.all_values[name]  # as it is, in whatever format
        if format_ == "singlequote":
            return ",".join("'" + each.replace("'", "\\'") + "'" for each in values)
        if format_ == "csv":
            return ",".join(values)
        if format_ is not None:
            raise ValueError(f"{match[0]}: no format that dashboards use here")
        # The data source's own: nothing is escaped.
        return value if isinstance(value, str) else "'" + "','".join(values) + "'"

    def _macros(self) -> dict[str, tuple[int, Macro]]:
        """Return of each macro how many arguments it has and what it becomes."""
        begin, end = (f"toDateTime({each})" for each in (self.from_s, self.to_s))
        begin_ms, end_ms = (f"fromUnixTimestamp64Milli({each})" for each in self._range_ms)
        first, last = (
            f"toDate('{datetime.fromtimestamp(each, UTC):%Y-%m-%d}')"
            for each in (self.from_s, self.to_s)
        )
        seconds = max(int(self.interval_s), 1)
        interval_ms = max(round(self.interval_s * 1000), 1)

        def between(column: str, low: str, high: str) -> str:
            return f"{column} >= {low} AND {column} <= {high}"

        def dates_and_times(date: str, time: str) -> str:
            return f"({between(date, first, last)}) AND ({between(time, begin, end)})"

        return {
            "fromTime": (0, lambda: begin),
            "toTime": (0, lambda: end),
            "fromTime_ms": (0, lambda: begin_ms),
            "toTime_ms": (0, lambda: end_ms),
            "interval_s": (0, lambda: str(seconds)),
            "timeFilter": (1, lambda column: between(column, begin, end)),
            "timeFilter_ms": (1, lambda column: between(column, begin_ms, end_ms)),
            "dateFilter": (1, lambda column: between(column, first, last)),
            "dateTimeFilter": (2, dates_and_times),
            "dt": (2, dates_and_times),
            "timeInterval": (
                1,
                lambda column: (
                    f"toStartOfInterval(toDateTime({column}), INTERVAL {seconds} second)"
                ),
            ),
            "timeInterval_ms": (
                1,
                lambda column: (
                    f"toStartOfInterval(toDateTime64({column}, 3),"
                    f" INTERVAL {interval_ms} millisecond)"
                ),
            ),
        }

    def _expanded(self, sql: str) -> str:
        """Expand the macros of the range; what is none stays."""
        macros = self._macros()
        found, last = [], 0
        for match in re.finditer(r"\$__(\w+)", sql):
            if match[1] not in macros or match.start() < last:
                continue
            count, macro = macros[match[1]]
            end, arguments = match.end(), list[str]()
            if sql[end : end + 1] == "(":
                cut = _arguments(sql, end)
                if cut is None:
                    raise ValueError(f"{match[0]}: a bracket is not closed")
                arguments, end = [self._expanded(each.strip()) for each in cut[0]], cut[1]
            if count and len(arguments) != count:
                raise ValueError(f"{match[0]}: {len(arguments)} arguments, not {count}")
            found += [sql[last : match.start()], macro(*arguments[:count])]
            last = end
        return "".join([*found, sql[last:]])


def _arguments(text: str, begin: int) -> tuple[list[str], int] | None:
    """Cut what is in a pair of brackets at its commas; the data source knows no quotes in it.

    Returns the parts and where the text behind the bracket goes on, or None where none closes it.
    """
    found, depth, last = [], 0, begin + 1
    for match in re.finditer(r"[(),]", text[begin:]):
        at = begin + match.start()
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if (match[0] == "," and depth == 1) or depth == 0:
            found.append(text[last:at])
            last = at + 1
        if depth == 0:
            return found, last
    return None


def _meant(replacement: str) -> str:
    """Return what a browser puts in for a text: a dollar and some signs are not themselves."""
    if found := re.search(r"(?<!\$)\$[&`']", replacement):
        raise ValueError(f"{found[0]} in $__conditionalAll: a browser takes it for another text")
    return replacement.replace("$$", "$")
