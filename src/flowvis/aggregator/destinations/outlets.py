"""All ways out of the aggregator, made and replaced as the settings say."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from flowvis.aggregator.destinations.kind import Kind, Place, Surroundings
from flowvis.batch import SETTLED
from flowvis.delivery.destination import Collecting, Destination
from flowvis.delivery.outlet import Outlet
from flowvis.runtime.ledger import Ledger, Stage

log = logging.getLogger(__name__)


class Outlets:
    """Component: an outlet for each destination that was ever enabled, in the kinds' order.

    They share `max_bytes`, by the weights of those that are enabled.
    """

    name = "destinations"

    def __init__(
        self,
        kinds: Sequence[Kind[Any]],
        ledger: Ledger,
        source: Stage,
        surroundings: Surroundings,
        max_bytes: int,
    ) -> None:
        self._kinds = tuple(kinds)
        self._ledger = ledger
        self._source = source
        self._surroundings = surroundings
        self._max_bytes = max_bytes
        self._outlets: dict[str, tuple[Kind[Any], Outlet[Destination]]] = {}
        self._made_of: dict[str, Any] = {}
        """Of what the present destinations are made, by page."""

    def __iter__(self) -> Iterator[Outlet[Destination]]:
        """Go through the outlets, in the order of their kinds."""
        for kind in self._kinds:
            yield from self.of(kind).values()

    @property
    def kinds(self) -> tuple[Kind[Any], ...]:
        """All rows of the table."""
        return self._kinds

    @property
    def mark(self) -> int:
        """The oldest mark of what has to be delivered and is not; SETTLED when all is.

        Where no destination is required, the first that there is counts.
        """
        holding = [outlet for outlet in self if outlet.destinations]
        required = [outlet for outlet in holding if outlet.required] or holding[:1]
        return min((outlet.mark for outlet in required), default=SETTLED)

    def of(self, kind: Kind[Any]) -> dict[str, Outlet[Destination]]:
        """Return the outlets of a kind, by page."""
        return {name: one for name, (of, one) in self._outlets.items() if of is kind}

    def current(self, page: str) -> Destination | None:
        """Return the destination of a page, if there is one at the moment."""
        return self._outlets[page][1].current if page in self._outlets else None

    def has(self, name: str) -> bool:
        """Whether there is a destination of the kind of this name at the moment."""
        kinds = [kind for kind in self._kinds if kind.name == name]
        return any(one.current is not None for kind in kinds for one in self.of(kind).values())

    def held_bytes(self) -> int:
        """About what all destinations take in memory."""
        return sum(outlet.held_bytes() for outlet in self)

    def begin(self, settings: Any) -> None:
        """Make the first destinations; they begin with `start`."""
        self._made_of = self._wanted(settings)
        for page, (kind, section, _) in self._made_of.items():
            outlet = self._outlet(page, kind)
            outlet.begin(self._make(page, kind, section, None))

    async def apply(self, settings: Any) -> None:
        """Make destinations anew whose settings are others now.

        Where one cannot be made, that is raised, and none is replaced.
        """
        wanted = self._wanted(settings)
        before, self._made_of = self._made_of, wanted
        changed = [page for page in {**before, **wanted} if before.get(page) != wanted.get(page)]
        made: dict[str, Destination] = {}
        try:
            for page in changed:
                if page in wanted:
                    kind, section, _ = wanted[page]
                    made[page] = self._make(page, kind, section, self.current(page))
        except BaseException:
            self._made_of = before
            raise
        finally:  # pages are of what is there, until it is replaced, which may wait for others
            for outlet in self:
                outlet.begin(outlet.current)
        self._share()
        for page in changed:
            await self._replace(page, made.get(page))

    def hurry(self) -> None:
        """Have those deliver now that wait for more to deliver at once."""
        for outlet in self:
            for one in outlet.destinations:
                if isinstance(one, Collecting):
                    one.hurry()

    async def start(self) -> None:
        """Let the destinations begin."""
        for outlet in self:
            await outlet.start()

    async def stop(self) -> None:
        """Stop all of them at once: each may take its grace period, and together no longer."""
        ended = await asyncio.gather(*(one.stop() for one in self), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    def as_dicts(self) -> list[dict[str, Any]]:
        """The destinations as `flowctl status` shows them."""
        found: list[dict[str, Any]] = []
        for outlet in self:
            former, current = outlet.former, outlet.current
            if former is not None:
                left = f"replaced, {former.held()} records left"
                found.append({"name": former.name, "problem": left})
            if current is not None:
                found.append(
                    {
                        "name": current.name,
                        "problem": "begins then" if former is not None else current.problem,
                        "page": outlet.name,
                        "required": outlet.required,
                        "records": outlet.held(),
                        "behindSeconds": round(outlet.behind_s, 1),
                    }
                    | current.details
                )
        return found

    def _wanted(self, settings: Any) -> dict[str, tuple[Kind[Any], Any, Any]]:
        """What the settings enable, by page: the kind, its section and what else it is made of."""
        return {
            page: (kind, section, kind.beside(section, settings))
            for kind in self._kinds
            for page, section in kind.chosen(settings).items()
        }

    def _outlet(self, page: str, kind: Kind[Any]) -> Outlet[Destination]:
        if page not in self._outlets:
            self._outlets[page] = kind, Outlet(page, self._ledger, self._source)
        return self._outlets[page][1]

    async def _replace(self, page: str, other: Destination | None) -> None:
        await self._outlets[page][1].replace(lambda _: other)

    def _make(
        self, page: str, kind: Kind[Any], section: Any, before: Destination | None
    ) -> Destination:
        place = Place(self._outlet(page, kind).stage, self._room(page), self._surroundings)
        return kind.make(section, place, before)

    def _room(self, page: str) -> int:
        """Return what of the memory a destination may take."""
        weights = {name: kind.weight for name, (kind, _, _) in self._made_of.items()}
        return int(self._max_bytes * weights[page] / sum(weights.values()))

    def _share(self) -> None:
        """Have the present destinations keep to what is theirs now."""
        for page in self._made_of:
            current = self.current(page)
            if current is not None:
                current.bound(self._room(page))
