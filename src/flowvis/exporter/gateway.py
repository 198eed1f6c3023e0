"""Antrea's gateway: where a node has it, Antrea's zones are read.

An exporter shares its node's network and needs no CNI, so that at a boot it may be there before the
agent of Antrea is.
"""

import asyncio
import socket

from flowvis.errors import SystemRefused
from flowvis.runtime.component import end, spawn

LOOK_S = 5.0


def has_interface(name: str) -> bool:
    """Whether this network namespace has an interface."""
    return name in {interface for _, interface in socket.if_nameindex()}


class GatewayWatch:
    """Component: ends the daemon when the gateway comes, as all of it is made for other zones.

    Whoever started it starts the next one, which goes on with what is in the state directory.
    """

    name = "gateway"

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._task = spawn(self.name, self._wait())

    async def stop(self) -> None:
        """Look no more."""
        await end(self._task)

    async def _wait(self) -> None:
        while True:
            if has_interface(self._interface):
                raise SystemRefused(
                    f"{self._interface} is there now, so Antrea's zones are to be read: start anew "
                    "(Kubernetes does), or name the zones in conntrack.zones"
                )
            await asyncio.sleep(LOOK_S)
