"""Who pays for text that exporters bring: a number for each address, as string tables take it.

An address, as a peer can open any number of sessions, and take another one when its own is full.
"""

from collections import Counter, OrderedDict

from flowvis.strings import MAX_PAYERS, Strings

LOOKS = 64  # numbers that are looked at for one more address when none is new


class Payers:
    """Numbers of addresses, from 1; those without sessions and text are given again."""

    def __init__(self, capacity: int = MAX_PAYERS - 1) -> None:
        self._capacity = capacity
        self._numbers: OrderedDict[str, int] = OrderedDict()
        """By address, those first that were not looked at for longest."""
        self._sessions: Counter[str] = Counter()

    def open(self, address: str, strings: Strings) -> int:
        """Return the number of an address that has one more session."""
        self._sessions[address] += 1
        known = self._numbers.get(address)
        return known if known is not None else self._free(address, strings)

    def close(self, address: str) -> None:
        """Note that a session is over; what its address has brought stays its own."""
        self._sessions[address] -= 1
        if not self._sessions[address]:
            del self._sessions[address]

    def _free(self, address: str, strings: Strings) -> int:
        """Return a number for an address; where none is found to be free, another one's."""
        if len(self._numbers) < self._capacity:
            return self._numbers.setdefault(address, len(self._numbers) + 1)
        for _ in range(min(LOOKS, len(self._numbers))):
            known, number = self._numbers.popitem(last=False)
            if known not in self._sessions and not strings.charged(number):
                self._numbers[address] = number
                return number
            self._numbers[known] = number
        return 1 + hash(address) % self._capacity  # seeded: nobody chooses with whom to share
