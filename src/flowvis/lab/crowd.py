"""Exporters of nodes that are not there: the product's own senders over made-up connections.

python -m flowvis.lab.crowd COUNT        # ends when all that they say has been acknowledged
"""

import asyncio
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, address_bytes
from flowvis.delivery.queue import Queue
from flowvis.exporter.export import Exporter
from flowvis.fields import EXPORTED, EndReason, FlowType
from flowvis.lab.configuration import AGGREGATOR, COLLECTOR_PORT, NAMES, ROOM
from flowvis.lab.plan import CONTROL_ADDRESSES
from flowvis.native import StringTable
from flowvis.runtime.clock import now_ms
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger
from flowvis.transport.address import CollectorAddress
from flowvis.transport.tls import TlsFiles

PORT = 7777
"""What all their connections go to, and no scenario's."""
CONNECTIONS = 20  # of each exporter: of all of them fewer than `flowctl sql` answers rows
INTERVALS = 3
INTERVAL_MS = 500
OCTETS, PACKETS = 1000, 10  # of a connection in an interval
FIRST_DOMAIN = 1000
ROOM_RECORDS = 100_000
LOOK_S = 0.1

FILES = ROOM / "crowd"


@dataclass(frozen=True)
class Sums:
    """What there should be, or is, of all their connections."""

    connections: int = 0
    packets: int = 0
    octets: int = 0


def truth(count: int) -> Sums:
    """Return what so many exporters report in all."""
    records = count * CONNECTIONS * INTERVALS
    return Sums(count * CONNECTIONS, records * PACKETS, records * OCTETS)


QUESTION = (
    "SELECT uniqExact(sourceIP, sourceTransportPort), sum(packetDeltaCount), sum(octetDeltaCount)"  # noqa: S608  constants
    f" FROM flows WHERE destinationTransportPort = {PORT}"
)


class Connections:
    """The table of one exporter: all are due in each interval, the last of which is their end."""

    survives = False

    def __init__(self, number: int) -> None:
        self._strings = StringTable()
        self._number = number
        self._began_ms = now_ms()
        self._intervals = 0

    def due(self, now_ms: int, *, live: int) -> Batch:
        """Return the records of an interval when it is over."""
        over = now_ms >= self._began_ms + (self._intervals + 1) * INTERVAL_MS
        if not over or not live or self._intervals == INTERVALS:
            return self._records(np.arange(0), now_ms)
        self._intervals += 1
        return self._records(np.arange(CONNECTIONS), now_ms)

    def flush(self, *, live: int) -> Batch:  # noqa: ARG002  the tables' interface
        """Return nothing: it is ended when all has been sent."""
        return self._records(np.arange(0), 0)

    def next_deadline(self) -> int | None:
        """When the next interval is over."""
        if self._intervals == INTERVALS:
            return None
        return self._began_ms + (self._intervals + 1) * INTERVAL_MS

    @property
    def over(self) -> bool:
        """Whether the last record has been taken."""
        return self._intervals == INTERVALS

    def _records(self, ids: NDArray[np.int64], at_ms: int) -> Batch:
        ends = self._intervals == INTERVALS
        node = self._strings.intern(f"crowd-{self._number}".encode())
        values = {
            "flowStartSeconds": self._began_ms // 1000,
            "flowStartMilliseconds": self._began_ms,
            "flowEndSeconds": at_ms // 1000,
            "flowEndMilliseconds": at_ms,
            "flowEndReason": EndReason.END if ends else EndReason.ACTIVE,
            "sourceTransportPort": 1024 + ids,
            "destinationTransportPort": PORT,
            "protocolIdentifier": 17,
            "flowType": FlowType.INTRA_NODE,
            "sourceNodeName": node,
            "destinationNodeName": node,
            "octetTotalCount": self._intervals * OCTETS,
            "octetDeltaCount": OCTETS,
            "packetTotalCount": self._intervals * PACKETS,
            "packetDeltaCount": PACKETS,
        }
        columns = {
            field.name: np.zeros((len(ids), *field.kind.shape), field.kind.dtype)
            for field in EXPORTED
        }
        for name, value in values.items():
            columns[name][:] = value
        for name, last in (("sourceIP", 1), ("destinationIP", 2)):
            address = f"10.200.{self._number}.{last}"
            columns[name][:] = np.frombuffer(address_bytes(address), np.uint8)
        return Batch(columns, self._strings)


class Crowd:
    """So many exporters with certificates of the cluster's, up to 256."""

    def __init__(self, count: int) -> None:
        tls = TlsFiles(FILES / "ca.crt", FILES / "tls.crt", FILES / "tls.key")
        address = CollectorAddress(CONTROL_ADDRESSES[0], COLLECTOR_PORT)
        self._ledger = Ledger()
        self._tables = [Connections(number) for number in range(count)]
        self._senders = [
            Exporter(
                [table],
                self._queue(number),
                address,
                tls,
                domain=FIRST_DOMAIN + number,
                server_name=f"{AGGREGATOR}.{NAMES.namespace}.svc",
            )
            for number, table in enumerate(self._tables)
        ]

    def _queue(self, number: int) -> Queue:
        stage = self._ledger.stage(f"records of {number}")
        return Queue(stage, ROOM_RECORDS, full=ExportDropped.PENDING_FULL)

    @property
    def done(self) -> bool:
        """Whether all of it has been acknowledged."""
        return all(table.over for table in self._tables) and not any(
            len(sender.queue) for sender in self._senders
        )

    async def start(self) -> None:
        """Begin to export, all at once."""
        for sender in self._senders:
            await sender.start()

    async def stop(self) -> None:
        """End their sessions."""
        for sender in self._senders:
            await sender.stop()


async def main(count: int) -> None:
    """Let them all connect at once; return when all is acknowledged."""
    crowd = Crowd(count)
    await crowd.start()
    while not crowd.done:  # noqa: ASYNC110  what is looked at are many queues
        await asyncio.sleep(LOOK_S)
    await crowd.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
