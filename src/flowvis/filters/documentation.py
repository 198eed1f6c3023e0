"""The tables of the filter language's reference page."""

from collections.abc import Iterator

from flowvis.filters.attributes import Kind
from flowvis.filters.vocabulary import NAMES, SIDES, Name, listed

_UNITS = {
    Kind.BYTES: "bytes: `1500`, `10MB`, `1GiB`",
    Kind.RATE: "bit/s: `5k`, `1Gbit/s`, `2MB/s`",
    Kind.DURATION: "duration: `90` (seconds), `500ms`, `1h30m`",
    Kind.TIME: "time: `2026-01-31`, `2026-01-31T12:00:00Z`, ms since 1970",
    Kind.NUMBER: "number: `443`, `10k`",
    Kind.ADDRESS: "address or network",
    Kind.ENUM: "one of its values",
}


def names() -> str:
    """Return the names as a Markdown table."""
    lines = ["| Name | Of ends | Values | Meaning |", "|---|---|---|---|"]
    for name in listed():
        if not name.column:
            ends = ", ".join(f"`{side}.`" for side in SIDES) if name.sided else ""
            lines.append(f"| `{name.name}` | {ends} | {_values(name)} | {_meaning(name)} |")
    return "\n".join(lines) + "\n"


def columns() -> str:
    """Return the names of columns, by the kind of their values, as a Markdown table."""
    lines = ["| Values | Columns |", "|---|---|"]
    for kind in Kind:
        found = [f"`{name.name}`" for name in listed() if name.column and name.kind is kind]
        if found:
            lines.append(f"| {_UNITS.get(kind, kind.value)} | {', '.join(found)} |")
    return "\n".join(lines) + "\n"


def operators() -> str:
    """Return which kinds of values have which operators, as a Markdown table."""
    lines = ["| Values | Operators |", "|---|---|"]
    seen: dict[str, list[str]] = {}
    for name in NAMES.values():
        written = ", ".join(f"`{operator.value}`" for operator in name.operators)
        kinds = seen.setdefault(written, [])
        if name.kind.value not in kinds:
            kinds.append(name.kind.value)
    lines += [f"| {', '.join(kinds)} | {written} |" for written, kinds in seen.items()]
    return "\n".join(lines) + "\n"


def _values(name: Name) -> str:
    known = ", ".join(_known(name))
    if name.kind is Kind.TEXT and known:
        return f"text, as {known}"
    return known or _UNITS.get(name.kind, name.kind.value)


def _known(name: Name) -> Iterator[str]:
    return (f"`{word}`" for word in name.known)


def _meaning(name: Name) -> str:
    return name.help.removesuffix(", of either end")
