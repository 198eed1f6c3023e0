"""Follows the API server: lists each kind, then watches it, for as long as the daemon runs.

The protocol is that of the API concepts' "efficient detection of changes": a list gives all objects
and the version that they are of; a watch from that version gives what changed since, and bookmarks
that say how far it has come; 410 Gone says that a version is too old, so that a new list is needed.
While the server is away, what is known stays.

A server may also be unable to go on from a version without a word of 410. So watches that bring us
no further are counted, and after some of them the list is made anew, whatever the server said. etcd
sends no progress notifications by default, and then nothing comes of a kind that does not
change: silence is no failure, and such a watch is opened again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from flowvis.counts import count, counts_by_reason
from flowvis.errors import ApiError
from flowvis.inventory.resources import Resource
from flowvis.inventory.sources.access import Access
from flowvis.inventory.sources.api import Broken, Garbled, KubernetesApi, Silent, Unreachable
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

PAGE = 200  # objects of a list at a time: Pods of 10 KB are 2 MB, and 10 MB while they are parsed
MAX_OBJECTS = 1 << 20  # of a kind: seven times what Kubernetes supports of Pods
WATCH_S = (300.0, 600.0)  # how long a watch is asked to last; the server's own draw is twice that
SHORT_S = 1.0  # a watch that ends sooner, with nothing said, is a failure; one that stands is good
DOUBT_S = 30.0  # how long a watch must stand at most, after one that failed later than at once
FAILED_WATCHES = 3  # in a row, from one version: another list
FRUITLESS_WATCHES = 20  # likewise, of those that ended with nothing new: half an hour of silence
EMPTY_PAGES = 16  # of a list, in a row
LOOK_AGAIN_S = 60.0  # for a kind that the cluster does not have yet
EXPIRE_S = 10.0
SLICE_S = 0.05  # how long objects are taken in before all else has its turn: one may take 0.4 s

MAX_WORDS = 200  # of the server's own, in what we say

FORBIDDEN, NOT_FOUND, GONE, TOO_LARGE = 403, 404, 410, 413


class Sink(Protocol):
    """What learns of the objects; ValueError from `upsert` names one that it cannot use."""

    def upsert(self, item: Mapping[str, Any], now_ms: int) -> None:
        """Learn of an object, new or changed; it has its apiVersion and kind."""

    def delete(self, item: Mapping[str, Any], now_ms: int) -> None:
        """Note that an object is gone."""

    def retain(
        self, group: str, kind: str, names: Collection[tuple[str, str]], now_ms: int
    ) -> None:
        """Note that of a kind there are only those of these (namespace, name)."""

    def expire(self, now_ms: int) -> None:
        """Forget what ended too long ago."""


@dataclass(frozen=True)
class Watched:
    """A kind that is watched, and who learns of it."""

    resource: Resource
    sinks: Sequence[Sink]
    selector: Mapping[str, str] = field(default_factory=dict)
    """Of the query: `{"fieldSelector": "spec.nodeName=node-1"}`."""
    namespace: str = ""
    """Where all of them are; "" for the whole cluster."""
    needed: bool = True
    """Whether a start waits for it even where the server refuses it: no right is no hiccup."""
    page: int | None = None
    """Objects of a list at a time, where `PAGE` would be too much memory."""
    cached: bool = False
    """Whether the first list may be as old as the server's cache. There alone Pods are indexed by
    node: a thousand exporters that start together would make etcd read all Pods a thousand times.
    """


@dataclass(slots=True)
class ApiWatchStats:
    """What was asked of the API server and what it said."""

    lists: int = count("Complete lists of a kind that were taken")
    watches: int = count("Watches that were opened")
    events: int = count("Objects that were new, changed or deleted")
    bookmarks: int = count("Bookmarks, by which a quiet watch stays fresh")
    silent: int = count("Watches that were opened again as nothing had come for long")
    expired: int = count("Times that the server had forgotten the version we were at")
    bad_objects: int = count("Objects that are not what their kind says; passed over")
    failures: dict[str, int] = counts_by_reason("Requests and watches that failed, by status")


class _Turns:
    """Lets all else have its turn while many objects that came together are taken in."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    async def give(self) -> None:
        """Give one, if `SLICE_S` has passed since the last."""
        if time.monotonic() - self._began_s > SLICE_S:
            await asyncio.sleep(0)
            self._began_s = time.monotonic()


class Watcher:
    """Follows one kind."""

    def __init__(
        self,
        api: KubernetesApi,
        watched: Watched,
        stats: ApiWatchStats,
        changed: Callable[["Watcher"], None],
        backoff: Backoff,
    ) -> None:
        self.resource = watched.resource
        self.synced = False
        """Whether all objects have been listed once, or the cluster does not have the kind."""
        self.problem = ""
        """Why it is not watched now; "" while it is."""
        self.in_step_s = time.monotonic()
        """When (monotonic) the server last showed that nothing is missing; first the start."""
        self._api = api
        self._watched = watched
        self._stats = stats
        self._changed = changed
        self._backoff = backoff
        self._limited = LimitedLog(log)
        self._page = watched.page or PAGE
        self._api_version, base = self.resource.paths()[0]
        self._path = self._list_path(base)
        self._version = ""
        """Up to where all is known; "" before a list."""
        self._failures = self._fruitless = 0
        """Watches in a row, from this version, that failed; and all that brought nothing new."""
        self._stand_s = SHORT_S
        """How long the next watch must stand to be good, where nothing comes."""
        self._expired = False
        """Whether the version was too old, and no watch has been good since."""

    def stale_s(self) -> float:
        """Return how long ago we last knew that nothing was missing."""
        return time.monotonic() - self.in_step_s

    async def run(self) -> None:
        """Follow the kind until cancelled."""
        while True:
            try:
                if not self._version and not await self._list():
                    await asyncio.sleep(LOOK_AGAIN_S * random.uniform(0.5, 1.5))  # noqa: S311  spread, not secret
                    continue
                await self._watch()
            except ApiError as error:
                self._failed(error)
                await asyncio.sleep(self._backoff.wait_s())

    async def _list(self) -> bool:
        """Learn of all objects there are; return whether the cluster has the kind."""
        if self.resource.optional and not await self._locate():
            self._retain(set())
            self._good()
            return False
        names: set[tuple[str, str]] = set()
        query = {"limit": str(self._page), **self._watched.selector}
        if self._watched.cached and not self.synced:
            query["resourceVersion"] = "0"
        empty = 0
        while True:
            page = await self._api.get(self._path, query)
            self._check_kind(page, "List")
            metadata = _mapping(page, "metadata")
            before, at_ms = len(names), now_ms()
            turns = _Turns()
            for item in _items(page):
                names.add(self._upsert(item, at_ms))
                await turns.give()
            if len(names) > MAX_OBJECTS:
                raise ApiError(f"{self._path}: more than {MAX_OBJECTS} objects", TOO_LARGE)
            if not metadata.get("continue"):
                break
            empty = 0 if len(names) > before else empty + 1
            if empty >= EMPTY_PAGES:
                raise Garbled(f"{self._path}: {empty} pages of the list had nothing new")
            query = {key: value for key, value in query.items() if key != "resourceVersion"}
            query["continue"] = str(metadata["continue"])
        version = _version(metadata)
        self._retain(names)
        self._version, self.in_step_s = version, time.monotonic()
        self._failures = self._fruitless = 0
        self._stats.lists += 1
        # A failing watch stays a problem until one is good: a list is of one moment only.
        self._state(self.problem, synced=True)
        return True

    async def _locate(self) -> bool:
        """Find out under which version the kind is served, if it is."""
        for api_version, base in self.resource.paths():
            try:
                found = await self._api.get(base, {})
            except ApiError as error:
                if error.status == NOT_FOUND:
                    continue
                raise
            names = [entry.get("name") for entry in _items(found, "resources")]
            if self.resource.plural in names:
                self._api_version, self._path = api_version, self._list_path(base)
                return True
        return False

    def _list_path(self, base: str) -> str:
        namespace = self._watched.namespace
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{base}{within}/{self.resource.plural}"

    async def _watch(self) -> None:
        """Take in changes until the server ends the watch."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(round(random.uniform(*WATCH_S))),  # noqa: S311  spread, not secret
            **self._watched.selector,
        }
        before, began = self._version, time.monotonic()
        try:
            await self._take_all(query)
        except Silent:
            self._stats.silent += 1
        except Unreachable:
            self._fruitless -= 1  # a list would not get further
            raise
        except ApiError as error:
            self._failures += 1
            if not isinstance(error, Broken):  # as by a restart, which says nothing of the next
                self._stand_s = min(max(2 * (time.monotonic() - began), SHORT_S), DOUBT_S)
            raise
        finally:
            self._fruitless = 0 if self._version != before else self._fruitless + 1
            if self._failures >= FAILED_WATCHES or self._fruitless >= FRUITLESS_WATCHES:
                self._version = ""

    async def _take_all(self, query: Mapping[str, str]) -> None:
        before, began = self._version, time.monotonic()
        async with self._api.watch(self._path, query) as batches:
            self._stats.watches += 1
            standing = asyncio.get_running_loop().call_later(self._stand_s, self._good)
            try:
                async for events in batches:
                    at_ms = now_ms()
                    turns = _Turns()
                    for event in events:
                        self._take(event, at_ms)
                        await turns.give()
                    if self._version != before or not self.problem:
                        self._good()
            finally:
                standing.cancel()
        lasted_s = time.monotonic() - began
        if lasted_s < SHORT_S and self._version == before:
            raise ApiError(f"{self._path}: the watch ended at once")
        if not self.problem:
            self.in_step_s = time.monotonic()  # the server ended it in good order
        await asyncio.sleep(SHORT_S - lasted_s)

    def _good(self) -> None:
        """Note that the server shows that nothing is missing."""
        self.in_step_s = time.monotonic()
        self._failures, self._stand_s, self._expired = 0, SHORT_S, False
        self._backoff.reset()
        self._state("", synced=True)

    def _take(self, event: Mapping[str, Any], now_ms: int) -> None:
        kind, item = event.get("type"), _mapping(event, "object")
        if kind == "ERROR":
            status = item.get("code")
            message = f"{self._path}: {item.get('message')!s:.{MAX_WORDS}}"
            raise ApiError(message, status if _is_failure(status) else 0)
        self._check_kind(item)
        if kind in {"ADDED", "MODIFIED"}:
            self._upsert(item, now_ms)
        elif kind == "DELETED":
            for sink in self._watched.sinks:
                self._tell(sink.delete, item, now_ms)
        elif kind != "BOOKMARK":
            raise Garbled(f"{self._path}: an event of type {kind!r:.{MAX_WORDS}}")
        if kind == "BOOKMARK":
            self._stats.bookmarks += 1
        else:
            self._stats.events += 1
        self._version = _version(_mapping(item, "metadata"))

    def _check_kind(self, item: Mapping[str, Any], what: str = "") -> None:
        """Raise Garbled where an object, or a list of them, says that it is of another kind."""
        kind, expected = item.get("kind") or what, self.resource.kind + what
        if kind not in (expected, what):
            wanted = f"{expected} was expected"
            raise Garbled(f"{self._path}: {wanted}, not {kind!r:.{MAX_WORDS}}")

    def _upsert(self, item: Mapping[str, Any], now_ms: int) -> tuple[str, str]:
        for sink in self._watched.sinks:
            self._tell(sink.upsert, item, now_ms)
        metadata = item.get("metadata")
        about = metadata if isinstance(metadata, dict) else {}
        return str(about.get("namespace") or ""), str(about.get("name") or "")

    def _tell(
        self, learn: Callable[[Mapping[str, Any], int], None], item: Mapping[str, Any], now_ms: int
    ) -> None:
        """Pass an object on, with its kind, which the items of a list do not say."""
        named = {**item, "apiVersion": self._api_version, "kind": self.resource.kind}
        try:
            _check_names(item, self.resource.kind)
            learn(named, now_ms)
        except ValueError as error:
            self._stats.bad_objects += 1
            self._limited.log(logging.WARNING, self._api.url, "object passed over: %s", error)

    def _retain(self, names: set[tuple[str, str]]) -> None:
        for sink in self._watched.sinks:
            sink.retain(self.resource.group, self.resource.kind, names, now_ms())

    def _failed(self, error: ApiError) -> None:
        self._stats.failures[str(error.status or "none")] += 1
        if error.status == TOO_LARGE:
            self._page = max(1, self._page // 2)
        if error.status == GONE:
            self._stats.expired += 1
        if isinstance(error, Garbled) or error.status in {GONE, NOT_FOUND, TOO_LARGE}:
            self._version = ""
        if error.status == GONE and not self._expired:
            self._expired = True
            return  # no fault of anybody's: the list that follows tells
        dispensable = error.status == FORBIDDEN and not self._watched.needed
        self._state(str(error), synced=self.synced or self.resource.optional or dispensable)

    def _state(self, problem: str, *, synced: bool) -> None:
        if (problem, synced) != (self.problem, self.synced):
            self.problem, self.synced = problem, synced
            self._changed(self)


class Watchers:
    """Component: follows kinds of one API server."""

    name = "kubernetes"

    def __init__(
        self,
        access: Callable[[], Access],
        watched: Sequence[Watched],
        *,
        wait_s: float | None = None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        """`wait_s` is how long a start waits for the first lists: for ever without it."""
        self.stats = ApiWatchStats()
        self.watchers: list[Watcher] = []
        self._access = access
        self._watched = tuple(watched)
        self._wait_s = wait_s
        self._backoff = backoff
        self._api: KubernetesApi | None = None
        self._synced = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._away_since_s: float | None = None

    @property
    def api(self) -> KubernetesApi:
        """The API server, from start to stop."""
        if self._api is None:
            raise ValueError("start it first")
        return self._api

    async def start(self) -> None:
        """List every kind; SettingsError says what is wrong with the access."""
        access = await asyncio.to_thread(self._access)
        self._api = api = KubernetesApi(access)
        api.open()
        self.watchers = [
            Watcher(api, watched, self.stats, self._changed, self._backoff())
            for watched in self._watched
        ]
        self._tasks = [spawn(f"watch {w.resource}", w.run()) for w in self.watchers]
        self._tasks.append(spawn("expire", self._expire()))
        try:
            async with asyncio.timeout(self._wait_s):
                await self._synced.wait()
        except TimeoutError:
            log.warning("started without all that the API server knows: %s", self.not_synced())
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Follow nothing any more; what is known stays."""
        for task in self._tasks:
            await end(task)
        if self._api is not None:
            await self._api.close()

    def not_synced(self, kind: str = "") -> str:
        """Say what has not been listed yet, and why; "" when all, or all of a kind, has been."""
        if not self.watchers:
            return "not started"
        return "; ".join(
            f"{watcher.resource}: {watcher.problem or 'not listed yet'}"
            for watcher in self.watchers
            if not watcher.synced and kind in {"", watcher.resource.kind}
        )

    def problem(self) -> str:
        """Say what is not watched now, and since when; "" when all is."""
        failing = self._not_watched()
        if not failing:
            return ""
        worst = failing[0]
        more = f" (and {len(failing) - 1} more kinds)" if failing[1:] else ""
        return f"stale for {worst.stale_s():.0f} s: {worst.resource}: {worst.problem}{more}"

    def stale_s(self) -> float:
        """Return how old what we know is, in seconds, where something is not watched; else 0."""
        return next((watcher.stale_s() for watcher in self._not_watched()), 0.0)

    def _not_watched(self) -> list[Watcher]:
        """Return the watchers that fail, the stalest first."""
        failing = (watcher for watcher in self.watchers if watcher.problem)
        return sorted(failing, key=Watcher.stale_s, reverse=True)

    def _changed(self, watcher: Watcher) -> None:
        """Say so when the first watcher fails, and when the last one is well again."""
        if all(other.synced for other in self.watchers):
            self._synced.set()
        failing = any(other.problem for other in self.watchers)
        if failing and self._away_since_s is None:
            self._away_since_s = watcher.in_step_s
            log.warning("Kubernetes API: %s: what is known stays in use", watcher.problem)
        elif watcher.problem:
            log.info("Kubernetes API: %s", watcher.problem)
        elif not failing and self._away_since_s is not None:
            away_s = time.monotonic() - self._away_since_s
            log.info("Kubernetes API: watched again after %.0f s", away_s)
            self._away_since_s = None

    async def _expire(self) -> None:
        sinks = {id(sink): sink for watched in self._watched for sink in watched.sinks}
        while True:
            await asyncio.sleep(EXPIRE_S)
            for sink in sinks.values():
                sink.expire(now_ms())


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise Garbled(f"{key} is missing in what the API server sent")
    return value


def _is_failure(status: Any) -> TypeGuard[int]:
    return isinstance(status, int) and 300 <= status < 600


def _check_names(item: Mapping[str, Any], kind: str) -> None:
    """Raise ValueError where an object has no name to keep it by."""
    metadata = item.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise ValueError(f"{kind} without a name")
    for key in ("name", "namespace", "uid"):
        if not isinstance(metadata.get(key, ""), str):
            raise ValueError(f"{kind}: metadata.{key} {metadata[key]!r:.80} is not a text")  # noqa: TRY004  a Sink's


def _items(page: Mapping[str, Any], key: str = "items") -> list[Mapping[str, Any]]:
    items = page.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Garbled(f"{key}: not objects in what the API server sent")
    return items


def _version(metadata: Mapping[str, Any]) -> str:
    version = metadata.get("resourceVersion")
    if not isinstance(version, str) or not version:
        raise Garbled("metadata.resourceVersion is missing in what the API server sent")
    return version
