"""What every destination is to the daemon that feeds it."""

import asyncio
from typing import Any, Protocol, runtime_checkable

from flowvis.batch import Batch


class Destination(Protocol):
    """What takes batches in their order, and can hand over to another of its kind.

    It is bounded, counts what it drops, and never makes anybody wait.
    """

    name: str
    """As people know it: with the address, or the path."""
    required: bool
    """Whether records are durable only when this one has them."""
    waits_s: float
    """For how long records wait for others, to be delivered with them."""
    stats: Any
    """Its counters: a dataclass, as `flowvis.counts` declares it."""

    @property
    def problem(self) -> str:
        """Why nothing can be sent at the moment; "" when all is well."""

    @property
    def mark(self) -> int:
        """The oldest mark of what it has not delivered; SETTLED when that is nothing."""

    @property
    def details(self) -> dict[str, int]:
        """What else people should know of what it has, by the key that the status has for it."""

    def put(self, batch: Batch) -> None:
        """Take a batch or count it as dropped; never wait."""

    def held(self) -> int:
        """Records that it has."""

    def held_bytes(self) -> int:
        """About what these take in memory."""

    def bound(self, max_bytes: int) -> None:
        """Keep within so many bytes from now on."""

    async def start(self) -> None:
        """Begin to send."""

    async def stop(self) -> None:
        """Send what it has within its grace period; the rest is dropped, counted."""

    async def retire(self, hurry: asyncio.Event) -> None:
        """As `stop`, or until `hurry`; the rest is kept."""

    def remainder(self) -> Any:
        """Take out what was kept, in a form that others of its kind know."""

    def succeed(self, remainder: Any) -> None:
        """Take over what a retired one has kept; before `start`."""

    def abandon(self) -> None:
        """Give up what was kept, counted."""


@runtime_checkable
class Collecting(Protocol):
    """A destination that waits for more, to deliver it at once."""

    def hurry(self) -> None:
        """Wait no longer."""
