"""Objects as they were at any time of the last hours, to explain what was decided then.

`ObjectHistory` has the minutes that verdicts need, at a cost for each of its epochs. Here is what
comes after: it costs nothing but the versions themselves, and is looked at when somebody asks. A
large object that is changed again and again has thousands of versions: they count by their size.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

from flowvis.policies.objects import Key

KEPT_MS = 24 * 3_600_000  # twice as long as records are stored by default
MAX_CHANGES = 1 << 14  # versions that are over, of all objects; then the oldest go early
MAX_VALUES = 1 << 21  # that these are made of, some 60 bytes each: 128 in one of 16,384
OF_NETWORK = 10  # values as large as the object that Python has for a network


class _Version(NamedTuple):
    since_ms: int
    value: Any
    """None: the object is gone."""


class ObjectArchive:
    """Versions of objects, the last that are over: `MAX_CHANGES`, of `MAX_VALUES`, at most."""

    def __init__(self, known_from_ms: int = 0) -> None:
        self.known_from_ms = known_from_ms
        """From when on it knows everything: what came before nobody saw, or is forgotten."""
        self.changed_ms = 0
        """From when on nothing has changed."""
        self.changes = 0
        """How often anything did, whatever time it counts from."""
        self._versions: dict[Key, list[_Version]] = {}
        self._ends: deque[tuple[int, Key, int]] = deque()
        """When a version ended, whose it was, and its size; oldest first."""
        self._size = 0
        """Of all that ended."""

    def __len__(self) -> int:
        """How many versions are kept."""
        return sum(map(len, self._versions.values()))

    def put(self, key: Key, value: Any, since_ms: int, *, counts: bool = True) -> None:
        """Note an object's value, None for its end; what does not count has one version."""
        versions = self._versions.get(key)
        if (versions[-1].value if versions else None) == value:
            return
        self.changes += 1
        self.changed_ms = max(self.changed_ms, since_ms)
        if versions is None:
            self._versions[key] = [_Version(since_ms, value)]
            return
        last = versions[-1]
        if not counts and len(versions) == 1:
            if value is None:
                del self._versions[key]
            else:
                versions[0] = _Version(last.since_ms, value)
            return
        since_ms = max(since_ms, last.since_ms)
        versions.append(_Version(since_ms, value))
        size = _size(last.value)
        self._ends.append((since_ms, key, size))
        self._size += size
        while len(self._ends) > MAX_CHANGES or self._size > MAX_VALUES:
            self._forget()

    def expire(self, now_ms: int) -> None:
        """Forget what was over too long ago; to be called now and then."""
        while self._ends and self._ends[0][0] <= now_ms - KEPT_MS:
            self._forget()

    def at(self, time_ms: int) -> Iterator[tuple[Key, Any]]:
        """Go through the objects that there were at a time."""
        for key, versions in self._versions.items():
            place = bisect_right(versions, time_ms, key=lambda version: version.since_ms) - 1
            if place >= 0 and versions[place].value is not None:
                yield key, versions[place].value

    def latest(self) -> Iterator[tuple[Any, int]]:
        """Go through the objects that there are, each with since when it is as it is."""
        for versions in self._versions.values():
            if versions[-1].value is not None:
                yield versions[-1].value, versions[-1].since_ms

    def _forget(self) -> None:
        """Forget the version that ended first."""
        ended_ms, key, size = self._ends.popleft()
        self._size -= size
        self.known_from_ms = max(self.known_from_ms, ended_ms)
        versions = self._versions[key]
        del versions[0]
        if len(versions) == 1 and versions[0].value is None:
            del self._versions[key]


def _size(value: Any) -> int:
    """Return about how many values a value is made of; what it has several times counts once."""
    size, left, seen = 0, [value], set()
    while left:
        one = left.pop()
        size += 1
        if isinstance(one, str | bytes):
            size += len(one) >> 6
        elif isinstance(one, IPv4Network | IPv6Network):
            size += OF_NETWORK
        elif isinstance(one, tuple | frozenset | Mapping) or is_dataclass(one):
            if id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, Mapping):
                left += (*one.keys(), *one.values())
            elif is_dataclass(one):
                left += (getattr(one, field.name) for field in fields(one))
            else:
                left += one
    return size
