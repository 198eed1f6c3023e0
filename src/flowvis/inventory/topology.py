"""Where nodes are: the zones and regions that their labels say, by their names in records."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.inventory.objects import Node
from flowvis.strings import Strings

NOWHERE = ("", "")


class Topology:
    """Zone and region by a node's name, as nodes were when it was made.

    Names come as codes of a string table. Each distinct place has a number, and a table has the
    number of each code up to the largest that is a node's; so a record costs some look-ups in small
    arrays, and no Python.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        placed = {node.name: (node.zone, node.region) for node in nodes}
        self._places = {name: place for name, place in placed.items() if place != NOWHERE}
        self._strings: Strings | None = None

    def codes(
        self, names: Column, strings: Strings
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Return the codes of zones and of regions; 0 (empty) of what is no node, or has none."""
        if strings is not self._strings:
            self._learn(strings)
        numbers = self._numbers.take(names, mode="clip")
        return self._zones[numbers], self._regions[numbers]

    def _learn(self, strings: Strings) -> None:
        """Put all names into a string table."""
        distinct = {NOWHERE: 0}
        of_nodes = [distinct.setdefault(place, len(distinct)) for place in self._places.values()]
        zones, regions = zip(*distinct, strict=True)
        names = strings.encode(self._places)
        # The last one answers for all codes beyond; a name that there was no room for has code 0.
        smallest = np.min_scalar_type(len(distinct))
        self._numbers = np.zeros(int(names.max(initial=0)) + 2, dtype=smallest)
        self._numbers[names] = of_nodes
        self._numbers[0] = 0
        self._zones, self._regions = strings.encode(zones), strings.encode(regions)
        self._strings = strings
