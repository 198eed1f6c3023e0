"""The inventory from files: what `kubectl get pods,services,nodes -A -o yaml` (or json) printed."""

import asyncio
import json
import logging
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from flowvis.errors import SettingsError
from flowvis.inventory.index import Inventory
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.documents import check_aliases, sound

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
MAX_FILE_BYTES = 256 << 20  # 150,000 Pods as YAML, some 1.5 KiB each once status is trimmed
LOOK_EVERY_S = 2.0

_LOADER: Any = sound(
    getattr(yaml, "CSafeLoader", yaml.SafeLoader)
)  # libyaml where it is: ten times faster

Signature = tuple[tuple[str, int, int, int], ...]


class Replaceable(Protocol):
    """What else learns of all objects in the files."""

    def replace(
        self, items: Sequence[Mapping[str, Any]], now_ms: int, *, undated_ms: int | None = None
    ) -> None:
        """Learn of them; those that do not say since when they are, are so from `undated_ms` on.

        ValueError names one that it cannot use.
        """

    def expire(self, now_ms: int) -> None:
        """Forget what changed too long ago."""


class InventoryFiles:
    """Component: keeps an inventory as its files say, and reads them again when they change.

    Files that are bad at the start are an error; later the last good state stays. So it does while
    they are being written: they are read when two looks have found the same, and one that is empty
    and was not says nothing of the cluster, as a shell empties it before `kubectl get` has begun.
    """

    name = "inventory files"

    def __init__(self, paths: Sequence[Path], inventory: Inventory, *others: Replaceable) -> None:
        """`others` learn of all objects as well, before the inventory does."""
        self.inventory = inventory
        self._others = others
        self.reloads = 0
        self.failures = 0
        self._paths = tuple(paths)
        self._seen: Signature = ()
        self._good: Signature = ()
        """Of what the inventory has."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the files; SettingsError names what is wrong with them."""
        self._seen = self._good = signature(self._paths)
        # What the files have at first has always been so, unless it says when it was created.
        self._replace(await asyncio.to_thread(read, self._paths), undated_ms=0)
        self._task = spawn(self.name, self._follow())

    async def stop(self) -> None:
        """Look at the files no more."""
        await end(self._task)

    async def _follow(self) -> None:
        before = self._seen
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.inventory.expire(now_ms())
            for other in self._others:
                other.expire(now_ms())
            seen = await asyncio.to_thread(signature, self._paths)
            if seen == before and seen != self._seen:
                self._seen = seen
                await self._reload()
            before = seen

    async def _reload(self) -> None:
        try:
            _check_emptied(self._good, self._seen)
            items = await asyncio.to_thread(read, self._paths)
            self._replace(items)
        except SettingsError as error:
            self.failures += 1
            log.error("inventory not read again, the last good one stays: %s", error)  # noqa: TRY400  the text says all
            return
        self._good = self._seen
        self.reloads += 1
        log.info("inventory read again: %d objects", len(self.inventory))

    def _replace(self, items: list[dict[str, Any]], *, undated_ms: int | None = None) -> None:
        try:
            for other in self._others:
                other.replace(items, now_ms(), undated_ms=undated_ms)
        except ValueError as error:
            raise SettingsError([str(error)]) from None
        self.inventory.replace(items, now_ms())


def read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the API objects of files and of directories' *.yaml, *.yml and *.json.

    SettingsError has one line for each file or object that is wrong.
    """
    problems: list[str] = []
    items: list[dict[str, Any]] = []
    for path in _files(paths):
        try:
            found = list(_objects(path))
            _check(found)
        except (OSError, ValueError, yaml.YAMLError) as error:
            problems.append(f"{path}: {' '.join(str(error).split())}")
        except RecursionError:
            problems.append(f"{path}: nested too deeply")
        else:
            items += found
    if problems:
        raise SettingsError(problems)
    return items


def signature(paths: Sequence[Path]) -> Signature:
    """What changes when any of the files does."""
    states = []
    for path in _files(paths):
        try:
            state = path.stat()
        except OSError:
            states.append((str(path), 0, 0, 0))
        else:
            states.append((str(path), state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(states)


def _check_emptied(before: Signature, now: Signature) -> None:
    """Raise SettingsError where files have nothing any more; what is gone is another thing."""
    had = {name for name, _, size, _ in before if size}
    emptied = [name for name, _, size, inode in now if name in had and inode and not size]
    if emptied:
        hint = "it is empty, and was not; `{kind: List, items: []}` says that nothing is there"
        raise SettingsError([f"{name}: {hint}" for name in emptied])


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            yield from _listed(path) if path.is_dir() else [path]
        except OSError:  # as of a directory that is replaced just now: its reader says so
            yield path


def _listed(directory: Path) -> list[Path]:
    # Dotted names are the halves of an atomic change: kubelet's and editors'.
    entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    return [entry for entry in entries if entry.suffix in SUFFIXES]


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """Go through the objects of one file, those inside Lists one by one."""
    data = _content(path)
    is_json = path.suffix == ".json"
    if not is_json:
        check_aliases(data)
    for document in [json.loads(data)] if is_json else yaml.load_all(data, _LOADER):
        if document is None:
            continue
        kind = _kind(document)
        if not kind.endswith("List"):
            yield document
            continue
        for item in document.get("items") or ():
            # The items of a PodList do not say their kind; those of a List do.
            named = {"kind": kind.removesuffix("List"), **item} if isinstance(item, dict) else item
            _kind(named)
            yield named


def _content(path: Path) -> bytes:
    """Read a file; what is none, as a pipe that nobody writes to, would be waited for for ever."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("no regular file, nor a directory that can be listed")
    if state.st_size > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes: split it")
    return path.read_bytes()


def _kind(document: Any) -> str:
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(kind, str) or not kind:
        raise ValueError("not API objects: write what `kubectl get -o yaml` prints")
    return kind


def _check(items: list[dict[str, Any]]) -> None:
    """Raise ValueError at the first object that is not what its kind says."""
    trial = Inventory(max_addresses=1)
    for item in items:
        trial.upsert(item, 0)
