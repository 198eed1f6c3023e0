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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import IPS_ASSURED, NFCTAttrTuple

from flowvis.errors import SystemRefused
from flowvis.lab import rules
from flowvis.lab.faults.fault import AWAY, Fault, again_and_again, pass_while_away, until
from flowvis.lab.faults.floods import ENTRIES, LIMIT, shrinking
from flowvis.lab.namespaces import inside, nft, set_sysctls
from flowvis.lab.plan import NODES
from flowvis.lab.processes import DaemonProcess

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

STORM = range(1, 40_001)
"""A connection each, over loopback: more than twice the events that a socket has room for."""
PING = struct.Struct("!BBHHH")  # RFC 792: type, code, checksum, identifier, sequence number
ECHO = 8
LOST_EVENTS = "flowvis_exporter_conntrack_lost_events_total"
NOTICED_S = 20.0

STEPS = 5

DURING = (0.2, 0.7)
FULL_S = 0.6  # a client tries again after a second
PAUSE_S = (0.8, 1.6)
UDP_TIMEOUT = Path("/proc/sys/net/netfilter/nf_conntrack_udp_timeout")
REST_S = 2
"""Of whole seconds, cut off: for more than one second nothing came."""


async def overflow(lab: "Lab") -> None:
    """Let more begin and end than the kernel keeps events of, while no exporter reads them."""
    for exporter in lab.exporters:
        exporter.send(signal.SIGSTOP)
    try:
        for node in NODES:
            await asyncio.to_thread(_storm, node.name)
    finally:
        for exporter in lab.exporters:
            exporter.send(signal.SIGCONT)
    for exporter in lab.exporters:
        noticed = partial(_noticed, exporter)
        await until(noticed, NOTICED_S, exporter, "has not noticed that events were lost")


async def _noticed(exporter: DaemonProcess) -> bool:
    return await exporter.metric(LOST_EVENTS) > 0


def _storm(node: str) -> None:
    """Have a node ping itself under each of STORM's identifiers."""
    set_sysctls(node, {"net.netfilter.nf_conntrack_icmp_timeout": 1})
    _ping(node, STORM)


def _ping(node: str, identifiers: range) -> None:
    """Have a node ping itself; each identifier makes a connection, which no witness counts."""
    with inside(node):
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with sender:
        for identifier in identifiers:
            # Checksums are complements: that of all 16-bit words adds up to all ones.
            checksum = 0xFFFF - ((ECHO << 8) + identifier) % 0xFFFF
            sender.sendto(PING.pack(ECHO, 0, checksum, identifier, 0), ("127.0.0.1", 0))


async def crowd(lab: "Lab") -> None:
    """Let connections come, step by step, until there are as many as that, and that is known.

    They stay for 30 s.
    """
    for step in range(STEPS):
        identifiers = range(LIMIT * step // STEPS, LIMIT * (step + 1) // STEPS)
        for node in NODES:
            await asyncio.to_thread(_ping, node.name, identifiers)
        await asyncio.sleep(AWAY * lab.duration_s / STEPS)
    told = partial(_told, lab.aggregator)
    await until(told, NOTICED_S, lab.aggregator, "has not heard that tables are full")
    await pass_while_away(lab)


async def _told(aggregator: DaemonProcess) -> bool:
    return await aggregator.metric(ENTRIES) >= LIMIT * len(NODES)


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
    other way round. Those of TCP are clients that nobody answers: their packet comes again, and is
    counted in each entry.
    """
    with inside(node), NFCTSocket() as conntrack:
        longest_s = int(UDP_TIMEOUT.read_text())
        resting = [
            NFCTAttrTuple.from_netlink(socket.AF_INET, entry.get_attr("CTA_TUPLE_ORIG"))
            for entry in conntrack.dump()
            if not entry.get_attr("CTA_STATUS") & IPS_ASSURED
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
                             by_sums=True),
    "conntrack-fills": Fault("connections come until nodes' tables have, as they say, no room",
                             crowd, 0.2, prepare=shrinking(NODES)),
    "conntrack-full": Fault("nodes' tables of connections have no room, again and again", fill,
                            DURING[0], by_sums=True),
}
# fmt: on
