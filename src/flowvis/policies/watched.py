"""Objects of some kinds of the API, as they were at any time of the last minutes."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from flowvis.policies.history import ObjectHistory
from flowvis.policies.objects import SELECTED_BY, Key, Parsers, created_ms, key_of, parse


class ObjectStats(Protocol):
    """What is counted of the objects."""

    malformed: int
    refused: int


class WatchedObjects:
    """Learns of objects from watchers or files; who extends it hears when things changed."""

    def __init__(self, parsers: Parsers, stats: ObjectStats) -> None:
        self._history = ObjectHistory()
        self._parsers = parsers
        self._counted = stats
        self._uids: dict[Key, str] = {}

    def __len__(self) -> int:
        """How many objects are kept."""
        return len(self._history)

    def upsert(
        self, item: Mapping[str, Any], now_ms: int, *, undated_ms: int | None = None
    ) -> None:
        """Learn of an object, new or changed; other kinds are passed over.

        One that is new counts from its creation on, or from `undated_ms` (else from now) where it
        does not tell. ValueError if it is not what its kind says; then its last good version stays.
        """
        try:
            key = key_of(item, self._parsers)
            if key is None:
                return
            value = parse(key, item, self._parsers)
        except ValueError:
            self._counted.malformed += 1
            raise
        since_ms = None
        if key not in self._history:
            created = created_ms(item)
            since_ms = undated_ms if created is None else created
        self._put(key, value, now_ms if since_ms is None else min(since_ms, now_ms), now_ms)
        if key[1] not in SELECTED_BY and self._history.remembers(key):
            self._uids[key] = str(item["metadata"].get("uid") or "")

    def uid(self, *keys: Key) -> str:
        """Return the UID of the first of some objects that there is, or lately was; "" of none.

        Of policies and Egresses only, not of what they refer to.
        """
        return next((self._uids[key] for key in keys if key in self._uids), "")

    def delete(self, item: Mapping[str, Any], now_ms: int) -> None:
        """Note that an object is gone; one that was not known is passed over."""
        key = key_of(item, self._parsers)
        if key is not None:
            self._put(key, None, now_ms, now_ms)

    def retain(
        self, group: str, kind: str, names: Collection[tuple[str, str]], now_ms: int
    ) -> None:
        """Note that of a kind there are only those of these (namespace, name)."""
        for key in self._history:
            if key[:2] == (group, kind) and key[2:] not in names:
                self._put(key, None, now_ms, now_ms)

    def replace(
        self, items: Iterable[Mapping[str, Any]], now_ms: int, *, undated_ms: int | None = None
    ) -> None:
        """Learn of all objects there are, as `upsert` does: what is not among them is gone.

        ValueError names the first object that is not what its kind says; the others count.
        """
        problem: ValueError | None = None
        listed: set[Key | None] = set()
        for item in items:
            try:
                listed.add(key_of(item, self._parsers))
                self.upsert(item, now_ms, undated_ms=undated_ms)
            except ValueError as error:
                problem = problem or error
        for group, kind in self._parsers:
            names = {key[2:] for key in listed if key is not None and key[:2] == (group, kind)}
            self.retain(group, kind, names, now_ms)
        if problem is not None:
            raise problem

    def expire(self, now_ms: int) -> None:
        """Forget what changed too long ago; to be called now and then."""
        self._history.expire(now_ms)
        for key in [key for key in self._uids if not self._history.remembers(key)]:
            del self._uids[key]

    def _put(self, key: Key, value: Any, since_ms: int, now_ms: int) -> None:
        counts = self._counts(key)
        since = self._history.put(key, value, since_ms, now_ms, counts=counts)
        self._counted.refused = self._history.refused
        if since is not None:
            self._changed(since)

    def _counts(self, key: Key) -> bool:  # noqa: ARG002  who extends it looks at the key
        """Whether anything depends on an object."""
        return True

    def _changed(self, since_ms: int) -> None:
        """Forget what was worked out for times from then on."""
        raise NotImplementedError
