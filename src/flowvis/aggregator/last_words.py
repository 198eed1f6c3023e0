"""The last acknowledgements before an orderly stop ends the sessions."""

import asyncio
import logging

from flowvis.aggregator.correlator import Correlator
from flowvis.aggregator.destinations.outlets import Outlets

log = logging.getLogger(__name__)

LOOK_S = 0.05


class LastWords:
    """A component that starts last: its stop comes before the sessions'.

    What waits for an answer of the store gets it, what is complete is written and stored, within
    `grace_s`, and sessions are told. What is not, exporters that keep it send to the next
    aggregator.
    """

    name = "last acknowledgements"

    def __init__(self, correlator: Correlator, destinations: Outlets, grace_s: float) -> None:
        self._correlator = correlator
        self._destinations = destinations
        self._grace_s = grace_s

    async def start(self) -> None:
        """Nothing to do before the end."""

    async def stop(self) -> None:
        """Have what is complete stored and acknowledged."""
        correlator = self._correlator
        parked = correlator.table.parked
        if not parked.records and not len(correlator.acknowledgements):
            return
        until = correlator.cycle
        try:
            async with asyncio.timeout(self._grace_s):
                while parked.mark <= until:  # noqa: ASYNC110  as the store has no event
                    await asyncio.sleep(LOOK_S)
                await correlator.write_complete()
                while correlator.under_way.mark <= until:
                    self._destinations.hurry()
                    await asyncio.sleep(LOOK_S)
                    correlator.settle()
        except TimeoutError:
            log.warning("not all that is complete was stored within %.1f s", self._grace_s)
        correlator.settle()
