"""What a caller may see of the records that they ask for: here, and for every path.

A record is seen whole by who may see the namespace of one of its ends.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from flowvis.aggregator.api.problems import Problem
from flowvis.filters import Comparison, Filter, Operator, Value


@dataclass(frozen=True)
class Visibility:
    """The namespaces whose flows somebody may see; None: all, and what is of no namespace."""

    namespaces: frozenset[str] | None = None
    cluster: str = ""
    """The id of the cluster that the namespaces are of; "": of any."""

    @classmethod
    def of(cls, namespaces: Iterable[str], cluster: str = "") -> "Visibility":
        """Return that of some namespaces of a cluster; of none, where there are none."""
        return cls(frozenset(name for name in namespaces if name), cluster)

    @property
    def all(self) -> bool:
        """Whether everything may be seen."""
        return self.namespaces is None

    def sees(self, *namespaces: str) -> bool:
        """Whether something may be seen that is of one of these namespaces."""
        return self.namespaces is None or not self.namespaces.isdisjoint(namespaces)

    def filter(self) -> Filter | None:
        """Return which records may be seen, None for all; Problem where there are none."""
        if self.namespaces is None:
            return None
        if not self.namespaces:
            raise Problem(
                "forbidden",
                "you may list the Pods of no namespace, so there are no flows that you may see",
            )
        return self._filter

    def restrict(self, asked: Filter) -> Filter:
        """Return which of the records that are asked for may be seen."""
        mine = self.filter()
        return asked if mine is None else mine & asked

    def of_store(self, restricted: Filter) -> Filter:
        """Return which of the records that may be seen are meant of a store.

        That may have those of other clusters, whose namespaces are others by the same names. What
        passes by here is all of this one.
        """
        return restricted if self.namespaces is None else of_cluster(restricted, self.cluster)

    @cached_property
    def _filter(self) -> Filter:
        names = tuple(Value(name) for name in sorted(self.namespaces or ()))
        return Comparison("namespace", Operator.IN, names)


def of_cluster(asked: Filter, cluster: str) -> Filter:
    """Return which of some records are of the cluster of an id; all where there is none."""
    return Comparison("cluster", Operator.IS, (Value(cluster),)) & asked if cluster else asked


EVERYTHING = Visibility()
NOTHING = Visibility(frozenset())
