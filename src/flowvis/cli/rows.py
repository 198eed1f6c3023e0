"""Rows for programs: JSON lines and CSV, harmless to a terminal all the same."""

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from flowvis.runtime.visible import visible, visible_json


class Rows(Protocol):
    """Takes rows and writes them to standard output."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row, by the names of its columns."""


class JsonRows:
    """A JSON object a line; of all columns, or of those that are named."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = names

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        chosen = {name: row[name] for name in self._names} if self._names else row
        print(visible_json(chosen))


class CsvRows:
    """CSV (RFC 4180) under a heading: the names that are given, else the first row's."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = list(names)
        self._writer = csv.writer(sys.stdout)
        if self._names:
            self._writer.writerow(map(field, self._names))

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        if not self._names:
            self._names = list(row)
            self._writer.writerow(map(field, self._names))
        self._writer.writerow([field(row[name]) for name in self._names])


def write_table(form: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows of values as JSON lines or CSV; CSV has its heading also where there are none."""
    writing: Rows = JsonRows(columns) if form == "json" else CsvRows(columns)
    for row in rows:
        writing.write(dict(zip(columns, row, strict=True)))


def field(value: Any) -> Any:
    """Return a value as CSV shows it: a text on one line, a number; all else as JSON."""
    if isinstance(value, str):
        return visible(value)
    if value is None:
        return ""
    return visible_json(value) if isinstance(value, list | dict | bool) else value
