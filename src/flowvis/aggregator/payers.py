"""Who pays for text that exporters bring: a number for each address, as string tables take it.

An address, as a peer can open any number of sessions, and take another one when its own is full.
"""

from collections import Counter

from flowvis.strings import MAX_PAYERS, Strings


class Payers:
    """Numbers of addresses, from 1; those without sessions and text are given again."""

    def __init__(self, capacity: int = MAX_PAYERS - 1) -> None:
        self._capacity = capacity
        self._numbers: dict[str, int] = {}
        self._sessions: Counter[str] = Counter()
        self._searched: Strings | None = None
        """The table in which nothing was found to be free, or what was is taken by now."""

    def open(self, address: str, strings: Strings) -> int:
        """Return the number of an address that has one more session."""
        self._sessions[address] += 1
        number = self._numbers.get(address)
        if number is None:
            number = self._numbers[address] = self._free(address, strings)
        return number

    def close(self, address: str) -> None:
        """Note that a session is over; what its address has brought stays its own."""
        self._sessions[address] -= 1
        if not self._sessions[address]:
            del self._sessions[address]

    def _free(self, address: str, strings: Strings) -> int:
        if len(self._numbers) < self._capacity:
            return len(self._numbers) + 1
        if self._searched is not strings:
            self._searched = strings
            for known, number in self._numbers.items():
                if known not in self._sessions and not strings.charged(number):
                    del self._numbers[known]
                    self._searched = None
                    return number
        return 1 + hash(address) % self._capacity  # seeded: nobody chooses with whom to share
