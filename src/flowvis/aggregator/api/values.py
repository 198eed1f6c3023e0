"""Which values a name of the filter language has: in records, and in the cluster.

What is shown is of records that a caller may see, and of objects in namespaces that they may see.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.choosing import read
from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.api.stored_values import StoredValues
from flowvis.aggregator.api.visibility import Visibility
from flowvis.batch import Batch
from flowvis.filters.completion import (
    LABEL_KEYS,
    MAX_OPTIONS,
    Completion,
    Known,
    Values,
    complete,
)
from flowvis.filters.mask import mask
from flowvis.filters.networks import in_force
from flowvis.filters.seen import labels, seen, seen_label_keys
from flowvis.filters.vocabulary import SIDES, lookup
from flowvis.inventory.index import Inventory

COUNTED = 20_000
"""Of how many of the latest records values are counted."""


class KnownValues:
    """Values by name, for each caller."""

    def __init__(
        self, latest: LatestRecords, inventory: Inventory, stored: StoredValues | None = None
    ) -> None:
        self._latest = latest
        self._inventory = inventory
        self._stored = stored

    async def complete(self, text: str, position: int, caller: Caller) -> Completion:
        """Complete a text with values that somebody may see; Problem where nothing may be."""
        names: list[str] = []

        def note(name: str, _: str) -> Sequence[Known]:
            names.append(name)
            return ()

        await read(lambda text, spend: complete(text, position, note, spend), text)
        stored: Counter[str] = Counter()
        if self._stored is not None:
            for name in names:
                stored = await self._stored.of(name, caller)
        values = self._of(caller.visibility, stored)
        return await asyncio.to_thread(complete, text, position, values)

    def _of(self, visibility: Visibility, stored: Counter[str]) -> Values:
        """Return what gives the values of the one name that is asked for.

        The store's count of a value is of more records than the latest, which may be newer.
        """
        allowed = visibility.filter()
        batches = self._latest.latest(COUNTED)

        def values(name: str, written: str) -> Sequence[Known]:
            shown = [b if allowed is None else b.take(mask(allowed, b)) for b in batches]
            found = _counted(name, shown) | stored
            for text in self._of_the_cluster(name, visibility):
                found.setdefault(text, 0)
            folded = written.lower()
            fitting = [item for item in found.items() if item[0] and folded in item[0].lower()]
            fitting.sort(key=lambda item: (-item[1], item[0]))
            return [Known(text, count or None) for text, count in fitting[:MAX_OPTIONS]]

        return values

    def _of_the_cluster(self, name: str, visibility: Visibility) -> Iterable[str]:
        side, _, rest = name.partition(".")
        what = rest if side in SIDES else name
        known = _OF_KIND.get(what)
        if known is not None:
            return known(self._inventory, visibility)
        key = what.removeprefix(f"{LABEL_KEYS}.")
        return () if key == what else _label_values(self._inventory, visibility, key)


def _counted(name: str, batches: Sequence[Batch]) -> Counter[str]:
    found: Counter[str] = Counter()
    side, _, rest = name.partition(".")
    if LABEL_KEYS in {name, rest if side in SIDES else ""}:
        ends = [SIDES[side]] if side in SIDES else SIDES.values()
        columns = [f"{end}PodLabels" for end in ends]
        for batch in batches:
            found.update(seen_label_keys(batch, *columns))
        return found
    about = lookup(name)
    for batch in batches:
        found.update(seen(about, batch))
    return found


def _namespaces(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    return (name for name in list(inventory.namespaces) if visibility.sees(name))


def _pods(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    for pod in inventory.pods.living():
        if visibility.sees(pod.namespace):
            yield f"{pod.namespace}/{pod.name}"


def _workloads(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    for pod in inventory.pods.living():
        if visibility.sees(pod.namespace):
            yield f"{pod.namespace}/{pod.workload.name or pod.name}"


def _services(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    for port in inventory.services.objects:
        if visibility.sees(port.service.partition("/")[0]):
            yield port.service


def _nodes(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    if visibility.all:
        yield from (node.name for node in inventory.nodes.objects)


def _zones(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    if visibility.all:
        yield from (node.zone for node in inventory.nodes.objects)


def _regions(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    if visibility.all:
        yield from (node.region for node in inventory.nodes.objects)


def _networks(_: Inventory, __: Visibility) -> Iterator[str]:
    yield from in_force().names


def _label_texts(inventory: Inventory, visibility: Visibility) -> set[str]:
    pods = inventory.pods.living()
    return {pod.exported_labels for pod in pods if visibility.sees(pod.namespace)}


def _label_keys(inventory: Inventory, visibility: Visibility) -> Iterator[str]:
    for text in _label_texts(inventory, visibility):
        yield from labels(text)


def _label_values(inventory: Inventory, visibility: Visibility, key: str) -> Iterator[str]:
    for text in _label_texts(inventory, visibility):
        value = labels(text).get(key)
        if isinstance(value, str):
            yield value


_OF_KIND: dict[str, Callable[[Inventory, Visibility], Iterator[str]]] = {
    "namespace": _namespaces,
    "pod": _pods,
    "workload": _workloads,
    "service": _services,
    "node": _nodes,
    "zone": _zones,
    "region": _regions,
    "network": _networks,
    LABEL_KEYS: _label_keys,
}
"""What of the cluster's objects has the values of a name."""
