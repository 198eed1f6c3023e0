"""What Grafana and the ClickHouse data source make of a panel's query before it is sent, for tests.

In the order in which they do it: `$__conditionalAll` by the variables' values, then variables with
their formats, both in the browser; then the macros of the range, in the data source's backend.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ALL = "$__all"
Value = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Looked:
    """A dashboard as somebody looks at it."""

    from_s: int
    to_s: int
    """Seconds since the epoch."""
    interval_s: int = 60
    """What Grafana makes of the range and a panel's width."""
    values: Mapping[str, Value] = field(default_factory=dict)
    all_values: Mapping[str, str] = field(default_factory=dict)
    """What stands for all, of the variables that have such a value."""

    def sql(self, raw: str) -> str:
        """Return what the server gets."""
        return self._macros(self.replaced(self._conditional(raw)))

    def _conditional(self, raw: str) -> str:
        macro = "$__conditionalAll("
        while (begin := raw.rfind(macro)) >= 0:
            arguments = _arguments(raw, begin + len(macro) - 1)
            if len(arguments) != 2:
                return raw
            condition, variable = arguments
            name = re.search(r"(?<=\$\{)\w+(?=\})|(?<=\$)\w+", variable.strip())
            if name is not None:
                value = self.values[name[0]]
                text = value if isinstance(value, str) else ",".join(value)
                if text in {"", ALL}:
                    condition = "1=1"
            raw = raw.replace(f"{macro}{','.join(arguments)})", condition, 1)
        return raw

    def replaced(self, text: str) -> str:
        """Put in variables, and the range as links have it."""
        text = text.replace("${__from}", str(self.from_s * 1000))
        text = text.replace("${__to}", str(self.to_s * 1000))
        return re.sub(r"\$\{(\w+)(?::(\w+))?\}", self._variable, text)

    def _variable(self, match: re.Match[str]) -> str:
        name, format_ = match[1], match[2]
        if name not in self.values:
            return match[0]
        value = self.values[name]
        values = [value] if isinstance(value, str) else list(value)
        if values == [ALL]:
            return self.all_values[name]
        if format_ == "singlequote":
            return ",".join("'" + each.replace("'", "\\'") + "'" for each in values)
        if format_ not in {None, "csv"}:
            raise ValueError(f"{match[0]}: no format that dashboards use here")
        return ",".join(values)

    def _macros(self, sql: str) -> str:
        begin, end = f"toDateTime({self.from_s})", f"toDateTime({self.to_s})"
        sql = re.sub(
            r"\$__timeFilter\(([^()]*)\)",
            lambda match: f"{match[1]} >= {begin} AND {match[1]} <= {end}",
            sql,
        )
        sql = re.sub(
            r"\$__timeInterval\(([^()]*)\)",
            lambda match: (
                f"toStartOfInterval(toDateTime({match[1]}), INTERVAL"
                f" {max(self.interval_s, 1)} second)"
            ),
            sql,
        )
        for name, value in (
            ("fromTime", begin),
            ("toTime", end),
            ("interval_s", str(max(self.interval_s, 1))),
        ):
            sql = re.sub(rf"\$__{name}\b", value, sql)
        return sql


def _arguments(text: str, begin: int) -> list[str]:
    """Cut what is in a pair of brackets at its commas, which the data source knows no quotes in."""
    found, depth, last = [], 0, begin + 1
    for match in re.finditer(r"[(),]", text[begin:]):
        at = begin + match.start()
        if match[0] == "(":
            depth += 1
        elif match[0] == ")":
            depth -= 1
        if (match[0] == "," and depth == 1) or depth == 0:
            found.append(text[last:at])
            last = at + 1
        if depth == 0:
            return found
    return []
