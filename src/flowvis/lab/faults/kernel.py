"""Faults of the nodes' kernels: events that find no room, and a table of connections that is full.

The table's own limit (net.netfilter.nf_conntrack_max) is one for the whole machine: only the first
network namespace may set it. So the lab does what a full table does, each part of it: the first
packets of new connections are dropped before they are tracked, and connections that nobody has
answered for long are deleted for others, by the function that the kernel uses for it (nf_ct_delete:
their counters go out with an event).
"""

import asyncio
import contextlib
import signal
import socket
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import (
    IPS_ASSURED,
    IPS_SEEN_REPLY,
    NFCTAttrTuple,
)

from flowvis.errors import SystemRefused
from flowvis.lab import rules
from flowvis.lab.expectation import SIDES
from flowvis.lab.faults.fault import SOON, Fault, again_and_again, until
from flowvis.lab.measured import Row
from flowvis.lab.namespaces import inside, nft, set_sysctls
from flowvis.lab.plan import FRONTEND, NODES, WEB_B
from flowvis.lab.processes import DaemonProcess

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

STORM = range(32_768, 60_768)
"""Ports of a client, a connection each: their events are three times what a socket has room for."""
CALLER, CALLED = FRONTEND, WEB_B
"""Of two nodes; there is no scenario of datagrams between these."""
DISCARD = 9  # RFC 863; nobody listens
HEADER = struct.Struct("!HHHH")  # RFC 768: ports, length, checksum
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
UNSEEN = "flowvis_exporter_table_unseen_total"
OVER_S = 20.0
"""Until the kernel has forgotten them, and then until exporters have named what they missed."""
OVER = 0.1
"""By which part of them exporters may name more than there were: the kernel counts events, of all
that it tracks, and not connections."""

DURING = (0.2, 0.7)
FULL_S = 0.6  # a client tries again after a second
PAUSE_S = (0.8, 1.6)
UDP_TIMEOUT = Path("/proc/sys/net/netfilter/nf_conntrack_udp_timeout")
REST_S = 2
"""Of whole seconds, cut off: for more than one second nothing came."""


async def overflow(lab: "Lab") -> None:
    """Let more begin and end than the kernel keeps events of, while no exporter reads them."""
    for node in NODES:
        set_sysctls(node.name, {"net.netfilter.nf_conntrack_udp_timeout": 1})
    for exporter in lab.exporters:
        exporter.send(signal.SIGSTOP)
    try:
        await asyncio.to_thread(_storm)
        for node, exporter in zip(NODES, lab.exporters, strict=True):
            forgotten = partial(_forgotten, node.name)
            await until(forgotten, OVER_S, exporter, "has a kernel that forgets nothing")
    finally:
        for exporter in lab.exporters:
            exporter.send(signal.SIGCONT)
    for node, exporter in zip(NODES, lab.exporters, strict=True):
        named = partial(_named, exporter)
        await until(named, OVER_S, exporter, "has not named the connections that it missed")
        lab.unseen[node.name] = int(await exporter.metric(UNSEEN))


def _storm() -> None:
    """Send a datagram from each of the ports; no witness counts them."""
    with inside(CALLER.host):
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    with sender:
        for port in STORM:
            datagram = HEADER.pack(port, DISCARD, HEADER.size, 0)  # over IPv4 no checksum will do
            sender.sendto(datagram, (CALLED.addresses[0], 0))


async def _forgotten(node: str) -> bool:
    return await asyncio.to_thread(_tracked, node) < len(STORM) // 10


def _tracked(node: str) -> int:
    with inside(node):
        return int(COUNT.read_text())


async def _named(exporter: DaemonProcess) -> bool:
    return await exporter.metric(UNSEEN) > 0


def all_are_known(lab: "Lab", rows: Sequence[Row]) -> list[str]:
    """Compare the connections that are stored and those that are named with those there were."""
    stored: dict[str, set[int]] = {node.name: set() for node in NODES}
    for row in rows:
        if row["sourceIP"] == CALLER.addresses[0] and row["destinationTransportPort"] == DISCARD:
            for node, side in zip(NODES, SIDES, strict=True):
                if row[f"flowEndSeconds{side}"]:
                    stored[node.name].add(int(row["sourceTransportPort"]))
    problems = []
    for name, ports in stored.items():
        unseen = lab.unseen[name]
        if not 0 <= len(ports) + unseen - len(STORM) <= OVER * len(STORM):
            text = "of {:,} connections {:,} are stored, and {:,} named as unseen at the most"
            problems.append(f"{name}: " + text.format(len(STORM), len(ports), unseen))
    return problems


async def fill(lab: "Lab") -> None:
    """Refuse what is new and evict what is not assured, for a while, again and again."""
    evicted = 0
    for node in NODES:
        nft(node.name, ["-f", "-"], rules.full_table_rules())
    async for _ in again_and_again(lab, DURING, PAUSE_S):
        for node in NODES:
            nft(node.name, ["-f", "-"], rules.REFUSE)
        for node in NODES:
            evicted += await asyncio.to_thread(_evict, node.name)
        await asyncio.sleep(FULL_S)
        for node in NODES:
            nft(node.name, ["-f", "-"], rules.REFUSE_NOTHING)
    if not evicted or not rules.read_refused():
        refused = len(rules.read_refused())
        raise SystemRefused(f"tables were full: {refused} clients refused, {evicted} evicted")


def _evict(node: str) -> int:
    """Delete a node's UDP connections (IPv4) that are not assured, and rest; return how many.

    Of others the next packet may be the server's, and then the connection that it begins is the
    other way round, or it does not find back through a Service: also where the first answer is
    late, on a busy machine. Those of TCP are clients that nobody answers: their packet comes again,
    and is counted in each entry.
    """
    with inside(node), NFCTSocket() as conntrack:
        longest_s = int(UDP_TIMEOUT.read_text())
        resting = [
            NFCTAttrTuple.from_netlink(socket.AF_INET, entry.get_attr("CTA_TUPLE_ORIG"))
            for entry in conntrack.dump()
            if entry.get_attr("CTA_STATUS") & (IPS_ASSURED | IPS_SEEN_REPLY) == IPS_SEEN_REPLY
            and longest_s - entry.get_attr("CTA_TIMEOUT") >= REST_S
        ]
        evicted = [found for found in resting if found.proto == socket.IPPROTO_UDP]
        for found in evicted:
            with contextlib.suppress(NetlinkError):  # it has gone by itself
                conntrack.entry("del", tuple_orig=found)
    return len(evicted)


# A table reads best as one.
# fmt: off
FAULTS = {
    "events-overflow": Fault("the kernel has no room for the events of connections", overflow, 0.3,
                             by_sums=True, judge=all_are_known, aggregator=SOON),
    "conntrack-full": Fault("nodes' tables of connections have no room, again and again", fill,
                            DURING[0], by_sums=True),
}
# fmt: on
