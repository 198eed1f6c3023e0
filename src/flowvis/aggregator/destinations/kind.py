"""A kind of destination: how one is made of its settings, and what the daemon has for it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from prometheus_client.core import Metric

from flowvis.clickhouse.history import BookHistory
from flowvis.delivery.destination import Destination
from flowvis.runtime.ledger import Stage

S = TypeVar("S")

Problems = Iterator[tuple[str, str]]

CERTIFICATES = Path("/etc/flow-aggregator/certs")


@dataclass(frozen=True)
class Surroundings:
    """What all destinations of the daemon are made in."""

    grace_s: float
    """How long one may take to stop."""
    memory_limit: int
    """Bytes that the process may take."""
    observation_domain: Callable[[], int]
    """The cluster's, as IPFIX numbers it; asked when a destination starts."""
    books: BookHistory | None = None
    """What is to be stored beside the records."""


@dataclass(frozen=True)
class Place:
    """Where one destination is made: its page of the ledger, and its part of the memory."""

    stage: Stage
    max_bytes: int
    surroundings: Surroundings


@runtime_checkable
class Exposing(Protocol):
    """A destination that is metrics itself, beside those of its stats."""

    def families(self) -> Iterable[Metric]:
        """Yield them."""


def _nothing_else(_chosen: Any, _settings: Any) -> Any:
    return None


@dataclass(frozen=True)
class Kind(Generic[S]):
    """A row of the table of destinations.

    `attribute` names its section of the settings, of class S: one section with `enable`, or a list
    of sections that each have a `name` as well.
    """

    attribute: str
    name: str
    """Of its page in the ledger; with the section's own name where there may be several."""
    make: Callable[[S, Place, Destination | None], Destination]
    """From the section, and the destination whose place it takes."""
    several: bool = False
    """Whether the settings have a list of them."""
    weight: float = 1.0
    """Its part of the memory of destinations, among those that are enabled."""
    metrics: str = ""
    """What the metrics of its stats begin with; by default its name."""
    healthy: tuple[str, str] | None = None
    """Name and help of a gauge that is 1 while there is no problem."""
    beside: Callable[[S, Any], Any] = _nothing_else
    """What else of all settings it is made of, to be made anew when that changes."""

    def chosen(self, settings: Any) -> dict[str, S]:
        """The enabled sections, by their page in the ledger."""
        value = getattr(settings, self.attribute)
        sections = value if isinstance(value, tuple) else (value,)
        return {self.page(section): section for section in sections if section.enable}

    def page(self, section: S) -> str:
        """Return the page of a destination."""
        own = getattr(section, "name", "")
        return f"{self.name}-{own}" if own else self.name
