"""Objects as they were at a time, for some minutes back."""

from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.policies.objects import Key

KEPT_MS = 600_000  # longer than any record is on its way, or waits for its other half
MAX_OBJECTS = 1 << 17  # ten times the policies, namespaces and nodes of the largest clusters
MAX_EPOCHS = 16  # each may have a compiled generation, of some 5 MB
BUSY_MS = 60_000
BUSY = 6  # epochs of the last `BUSY_MS` from which on changes wait for others
WAIT_MS = 5000  # a generation of a thousand policies takes a second to compile and fill
FRESH_MS = 5000  # what changed earlier than that before we knew does not wait, as at a start


@dataclass(slots=True)
class _Version:
    since_ms: int
    value: Any
    """None: the object is gone."""


class ObjectHistory:
    """Versions of objects; an epoch is the time from one change to the next.

    There are at most `MAX_EPOCHS`: beyond, a change counts from the next one on where that is
    least for how long ago it was, so that what is lately was is known best. Where there are many,
    a change waits until `WAIT_MS` after the last one, and counts from then on, with those that
    came meanwhile. What changed longer than `KEPT_MS` ago counts as having always been so.
    """

    def __init__(self) -> None:
        self.refused = 0
        """Objects not kept since there are `MAX_OBJECTS`."""
        self._versions: dict[Key, list[_Version]] = {}
        self._changes = [0]

    def __len__(self) -> int:
        return len(self._versions)

    def __iter__(self) -> Iterator[Key]:
        """Go through the objects that exist by the latest change."""
        return iter([key for key in self._versions if key in self])

    def kept(self, *kinds: str) -> Iterator[Any]:
        """Go through all versions of the objects of some kinds."""
        for (_, kind, _, _), versions in self._versions.items():
            if kind in kinds:
                yield from (version.value for version in versions if version.value is not None)

    def kinds(self) -> set[str]:
        """Return the kinds of which any version of any object is kept."""
        return {kind for _, kind, _, _ in self._versions}

    def __contains__(self, key: Key) -> bool:
        """Whether the object exists by the latest change."""
        return key in self._versions and self._versions[key][-1].value is not None

    @property
    def latest(self) -> int:
        """The epoch that goes on: when it began."""
        return self._changes[-1]

    def remembers(self, key: Key) -> bool:
        """Whether any version of the object is kept."""
        return key in self._versions

    def put(
        self, key: Key, value: Any, since_ms: int, now_ms: int, *, counts: bool = True
    ) -> int | None:
        """Note an object's value, None for its end; return from when on things changed, if so.

        What does not count, as nothing refers to the object, replaces its only version.
        """
        if not counts and len(self._versions.get(key, ())) < 2:
            if value is None:
                self._versions.pop(key, None)
            elif self._has_room(key):
                self._versions[key] = [_Version(self._changes[0], value)]
            return None
        versions = self._versions.get(key)
        first = self._changes[0]
        since_ms = first if since_ms <= now_ms - KEPT_MS else max(since_ms, first)
        since_ms = self._counts_from(since_ms, now_ms)
        if versions is None:
            if value is None:
                return None
            if not self._has_room(key):
                return None
            versions = self._versions[key] = []
        elif versions[-1].value == value:
            return None
        else:
            since_ms = max(since_ms, versions[-1].since_ms)
        if versions and versions[-1].since_ms == since_ms:
            versions[-1].value = value
        else:
            versions.append(_Version(since_ms, value))
        self._mark(since_ms)
        if len(versions) > MAX_EPOCHS + 1:
            self._prune(versions)
        return since_ms

    def expire(self, now_ms: int) -> None:
        """Forget what changed too long ago; to be called now and then."""
        horizon = now_ms - KEPT_MS
        last = bisect_right(self._changes, horizon) - 1
        if last <= 0:
            return
        del self._changes[:last]  # the last one stays, as the start of the first epoch
        for key, versions in list(self._versions.items()):
            while len(versions) > 1 and versions[1].since_ms <= horizon:
                del versions[0]
            if len(versions) == 1 and versions[0].value is None and versions[0].since_ms <= horizon:
                del self._versions[key]

    def split(self, times_ms: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64] | slice]]:
        """Go through the epochs of times, each with its times' places: mostly one that has all."""
        if not len(times_ms):
            return
        first, last = (self._epoch(int(time)) for time in (times_ms.min(), times_ms.max()))
        if first == last:
            yield first, slice(None)
            return
        epochs = self.epochs(times_ms)
        for epoch in np.unique(epochs).tolist():
            yield epoch, np.flatnonzero(epochs == epoch)

    def epochs(self, times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the epoch of each time: when it began; what came before the first is the first."""
        changes = np.array(self._changes, dtype=np.int64)
        places = np.searchsorted(changes, times_ms, "right") - 1
        return np.asarray(changes[np.maximum(places, 0)])

    def values(self, epoch_ms: int) -> Iterator[tuple[Key, Any]]:
        """Go through the objects as they were when an epoch began."""
        for key, versions in self._versions.items():
            at = _place(versions, epoch_ms)
            if at >= 0 and versions[at].value is not None:
                yield key, versions[at].value

    def _counts_from(self, since_ms: int, now_ms: int) -> int:
        """Return from when on a change counts."""
        latest = self._changes[-1]
        lately = len(self._changes) - bisect_right(self._changes, now_ms - BUSY_MS)
        if lately < BUSY or since_ms == latest or since_ms <= now_ms - FRESH_MS:
            return since_ms
        if latest > now_ms:  # others wait; or the clock was set back
            return max(since_ms, latest) if latest <= now_ms + WAIT_MS else since_ms
        return max(since_ms, latest + WAIT_MS)

    def _epoch(self, time_ms: int) -> int:
        """Return the epoch of one time."""
        return self._changes[max(bisect_right(self._changes, time_ms) - 1, 0)]

    def _prune(self, versions: list[_Version]) -> None:
        """Forget versions, which may be large, that were over before any epoch began."""
        seen = {_place(versions, epoch_ms) for epoch_ms in self._changes}
        seen.add(len(versions) - 1)
        versions[:] = [version for place, version in enumerate(versions) if place in seen]

    def _has_room(self, key: Key) -> bool:
        room = key in self._versions or len(self._versions) < MAX_OBJECTS
        self.refused += not room
        return room

    def _mark(self, when_ms: int) -> None:
        at = bisect_right(self._changes, when_ms)
        if self._changes[at - 1] == when_ms:
            return
        insort(self._changes, when_ms)
        if len(self._changes) > MAX_EPOCHS:
            changes = np.array(self._changes)
            joined, ages = changes[2:] - changes[:-2], changes[-1] - changes[:-2]
            del self._changes[1 + int(np.argmin(joined / ages))]


def _place(versions: list[_Version], time_ms: int) -> int:
    """Which of some versions there was at a time; -1 before the first."""
    return bisect_right(versions, time_ms, key=lambda version: version.since_ms) - 1
