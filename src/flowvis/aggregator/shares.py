"""Shares of what all sessions may hold of one thing: who has most gives up first.

By address, as a peer can open any number of sessions.
"""

from collections import Counter


class Shares:
    """What is held of one thing, in bytes, by address."""

    def __init__(self, most: int) -> None:
        """`most` is what all may hold together."""
        self.most = most
        self.bytes = 0
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many addresses hold any of it."""
        return len(self._held)

    def add(self, address: str, more: int) -> None:
        """Note how much more, or less, an address holds."""
        self.bytes += more
        self._held[address] += more
        if not self._held[address]:
            del self._held[address]

    def excess(self, address: str, least: int = 0) -> tuple[int, int] | None:
        """Return what an address holds, and its share, where that is too much; else None.

        Nobody's is as long as all together have no more than `most`, nor what is within `least`.
        """
        if self.bytes <= self.most:
            return None
        held = self._held[address]
        share = max(self.most // max(len(self._held), 1), least)
        return (held, share) if held > share else None
