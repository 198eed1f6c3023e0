"""Which ports rules tell apart: the ports of a class match the same rules."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from flowvis.fields import TRANSPORTS
from flowvis.policies.model import MAX_PORT, Ports

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
