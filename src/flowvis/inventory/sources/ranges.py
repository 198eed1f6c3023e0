"""Pods whose addresses no range explains: those of CNIs with pools of their own."""

import asyncio
import logging

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import address_text
from flowvis.inventory.index import Inventory
from flowvis.runtime.component import end, spawn

log = logging.getLogger(__name__)

LOOK_S = 60.0  # a look costs a millisecond for 10,000 Pods; a CNI does not change


class Ranges:
    """Component: reports in the log how many Pods' addresses lie in no Pod network that is known.

    `consequence` says what that means for this daemon.
    """

    name = "ranges"

    def __init__(self, inventory: Inventory, consequence: str, *, look_s: float = LOOK_S) -> None:
        self._inventory = inventory
        self._consequence = consequence
        self._look_s = look_s
        self._reported = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Look no more."""
        await end(self._task)

    def outside(self) -> int:
        """How many of the Pods' addresses lie in no Pod network."""
        return len(self._outside())

    def problem(self) -> str:
        """What people should know; "" where the ranges have all Pods."""
        outside = self._outside()
        if not len(outside):
            return ""
        total = len(self._inventory.pod_addresses())
        return (
            f"{len(outside)} of {total} Pod addresses, one being {address_text(bytes(outside[0]))},"
            f" are outside of every node's spec.podCIDRs: {self._consequence}"
        )

    def look(self) -> None:
        """Log the problem when it begins, and when it is twice as large as when it was logged."""
        outside = self.outside()
        if outside > 2 * self._reported:
            log.warning("%s", self.problem())
            self._reported = outside
        elif not outside:
            self._reported = 0

    def _outside(self) -> NDArray[np.uint8]:
        # Before the nodes are listed there is nothing to be outside of.
        outside = self._inventory.pod_addresses(outside_ranges=True)
        return outside if self._inventory.nodes.objects else outside[:0]

    async def _run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(self._look_s)
