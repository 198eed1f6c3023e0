"""Bounded room for guests of many addresses, of which none can take it all.

When it is full, the address that has most loses its oldest guest: one who comes from elsewhere is
let in whatever an address does, and many addresses share as one would. Pure, O(1) in all it does.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

Guest = TypeVar("Guest")


class Places(Generic[Guest]):
    """Guests by address, each address's in the order in which they came."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._address_of: dict[Guest, str] = {}
        self._guests: dict[str, dict[Guest, None]] = {}
        self._with: dict[int, dict[str, None]] = {}  # addresses by how many guests they have
        self._most = 0

    def __len__(self) -> int:
        return len(self._address_of)

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._address_of

    def __iter__(self) -> Iterator[Guest]:
        return iter(self._address_of)

    @property
    def full(self) -> bool:
        """Whether somebody has to give way before the next comes."""
        return len(self._address_of) >= self.capacity

    def of(self, address: str) -> int:
        """How many guests an address has."""
        return len(self._guests.get(address, ()))

    def first_of(self, address: str) -> Guest:
        """Return the oldest guest of an address that has one."""
        return next(iter(self._guests[address]))

    def to_give_way(self, address: str) -> Guest:
        """Return whom the next guest of `address` would replace; there must be one.

        It is the oldest of the address with most guests, which is the newcomer's own where that
        has as many.
        """
        heaviest = self._with[self._most]
        own = address in heaviest
        return self.first_of(address if own else next(iter(heaviest)))

    def add(self, address: str, guest: Guest) -> None:
        """Let a guest in, who is the youngest of the address."""
        guests = self._guests.setdefault(address, {})
        self._move(address, len(guests), len(guests) + 1)
        guests[guest] = None
        self._address_of[guest] = address

    def discard(self, guest: Guest) -> None:
        """Let a guest go, if there is such a one."""
        address = self._address_of.pop(guest, None)
        if address is None:
            return
        guests = self._guests[address]
        self._move(address, len(guests), len(guests) - 1)
        del guests[guest]
        if not guests:
            del self._guests[address]

    def _move(self, address: str, before: int, after: int) -> None:
        if before:
            del self._with[before][address]
            if not self._with[before]:
                del self._with[before]
        if after:
            self._with.setdefault(after, {})[address] = None
        self._most = max(self._most, after)
        if self._most not in self._with:
            self._most = after  # the one that had most has one less
