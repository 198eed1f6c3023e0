"""Ports as rules ask for them: which of them rules tell apart, and whether one is among a rule's.

Whoever may write one policy can name ten thousand ports in it, and call as many: a port is looked
up among a rule's, and not compared with each.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from flowvis.fields import TRANSPORTS
from flowvis.policies.model import MAX_PORT, Ports

Answer = bool | None
"""None: not to be known."""
PortKey = tuple[int | None, int]
"""Protocol, None for every one, and port."""
PortName = tuple[int | None, str]
"""Protocol, None for any, and the name that a Pod gives a port of it."""

_ROWS = {number: row for row, number in enumerate(TRANSPORTS.values())}
_PORTS = MAX_PORT + 1
_OTHERS = len(_ROWS)
"""The row of protocols without ports: their classes go by protocol."""


class PortClasses:
    """A class for each protocol and port."""

    def __init__(self, ports: Iterable[Ports]) -> None:
        marks = np.zeros((_OTHERS + 1, MAX_PORT + 2), dtype=np.int32)
        marks[:, 0] = 1
        marks[_OTHERS, :256] = 1
        for some in ports:
            if not some.name and some.protocol in _ROWS:
                marks[_ROWS[some.protocol], [some.low, some.high + 1]] = 1
        classes = np.cumsum(marks[:, :-1].reshape(-1), dtype=np.int32)
        self._classes = classes
        self._first = np.full(256, _OTHERS * _PORTS, dtype=np.int64)  # of a protocol's classes
        self._first += np.arange(256)
        self._first[list(_ROWS)] = [row * _PORTS for row in _ROWS.values()]
        self._has_ports = np.zeros(256, dtype=np.int64)
        self._has_ports[list(_ROWS)] = 1
        self._next = int(classes[-1]) + 1
        self._alone: set[tuple[int, int]] = set()

    def find(self, protocols: NDArray[np.uint8], ports: NDArray[np.uint16]) -> NDArray[np.int32]:
        """Return the class of each protocol and destination port."""
        return self._classes.take(self._first[protocols] + self._has_ports[protocols] * ports)

    def set_apart(self, protocol: int, port: int) -> None:
        """Give a port that some Pod has a name for a class of its own."""
        if protocol in _ROWS and (protocol, port) not in self._alone:
            self._alone.add((protocol, port))
            self._classes[_ROWS[protocol] * _PORTS + port] = self._next
            self._next += 1


class AskedPorts:
    """The entries of ports of one rule; one that asks for more than a port leaves it open."""

    def __init__(self, entries: Collection[Ports]) -> None:
        numbered: dict[int | None, list[Ports]] = {}
        self._names: dict[PortName, Answer] = {}
        for some in entries:
            if not some.name:
                numbered.setdefault(some.protocol, []).append(some)
            elif not some.unknowable or (some.protocol, some.name) not in self._names:
                self._names[some.protocol, some.name] = None if some.unknowable else True
        of_any = numbered.pop(None, None)
        self._spans = {protocol: _Spans(those) for protocol, those in numbered.items()}
        self._of_any = None if of_any is None else _Spans(of_any)
        self.by_number = bool(self._spans) or of_any is not None
        """Whether any entry is of numbers."""
        self.by_name = bool(self._names)
        """Whether any entry is of a name."""
        single = not self._names and all(some.low == some.high for some in entries)
        self.keys = frozenset((some.protocol, some.low) for some in entries if single)
        """The ports, if they are single ones by number; else none."""

    def numbered(self, protocol: int, port: int) -> Answer:
        """Whether a port is among those by number."""
        spans = self._spans.get(protocol)
        found = False if spans is None else spans.has(port)
        return found if found or self._of_any is None else either(found, self._of_any.has(port))

    def named(self, names: Collection[PortName]) -> Answer:
        """Whether a port that has these names is among those by name."""
        found: Answer = False
        for name in names:
            found = either(found, self._names.get(name, False))
        return found


class _Spans:
    """Ranges of ports, which may overlap, cut where they begin and end."""

    def __init__(self, ranges: Iterable[Ports]) -> None:
        steps: dict[bool, Counter[int]] = {False: Counter(), True: Counter()}
        for some in ranges:
            steps[bool(some.unknowable)][some.low] += 1
            steps[bool(some.unknowable)][some.high + 1] -= 1
        self._points = sorted({0, *steps[False], *steps[True]})
        self._answers: list[Answer] = []
        certain = in_doubt = 0
        for point in self._points:
            certain += steps[False][point]
            in_doubt += steps[True][point]
            self._answers.append(True if certain else None if in_doubt else False)

    def has(self, port: int) -> Answer:
        """Whether a port is in any of them."""
        return self._answers[bisect_right(self._points, port) - 1]


def either(one: Answer, other: Answer) -> Answer:
    """Whether one or the other is so."""
    return True if one or other else None if one is None or other is None else False
