"""Floods of connections: of a Pod that sends SYNs, and of nodes that ping themselves.

The table's limit is one for the whole machine, so a file takes the place of the node's
nf_conntrack_max: for the exporter, which reads it there, the table is small. What a full table does
is another fault (`conntrack-full`).
"""

import asyncio
import json
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

from flowvis.conntrack.sources.sysctls import ROOT
from flowvis.errors import SystemRefused
from flowvis.lab.configuration import ROOM
from flowvis.lab.faults.fault import AWAY, Fault, pass_while_away, until
from flowvis.lab.namespaces import inside
from flowvis.lab.plan import FRONTEND, NODES, OUTSIDE_ADDRESSES, SILENT_PORT, LabNode
from flowvis.lab.processes import FLOWCTL

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

LIMIT = 2000
"""Connections that the node can track, as its exporter reads it."""
SHARE = 0.97
"""Of it, after the flood: above what any alert waits for."""
PORTS = range(1024, 20_000)
"""Of the Pod; no scenario has these."""
STEPS = 5
AT_ONCE, PAUSE_S = 100, 0.05
NAMED_S = 40.0
"""Until it is known who floods: exporters report when a session begins, and each half minute."""
STORED_S = 30.0

CLIENT, NODE = FRONTEND, FRONTEND.node
SILENCE = OUTSIDE_ADDRESSES[0]
ENTRIES = "flowvis_aggregator_node_conntrack_entries"
WRITTEN = "flowvis_aggregator_flow_metrics_records_total"
QUESTION = (
    "SELECT uniqExact(sourceTransportPort) FROM flows WHERE"  # noqa: S608  constants
    f" destinationTransportPort = {SILENT_PORT} AND sourceTransportPort < {PORTS.stop}"
    f" AND sourcePodName = '{CLIENT.name}'"
)
_SEGMENT = struct.Struct("!HHIIBBHHH")  # RFC 9293 section 3.1, without options
_PING = struct.Struct("!BBHHH")  # RFC 792: type, code, checksum, identifier, sequence number
_ECHO = 8
_SYN, _OFFSET = 0x02, 5 << 4


def shrinking(nodes: Sequence[LabNode]) -> Callable[["Lab"], None]:
    """Return what has the limits of these nodes look small."""

    def shrink(_: "Lab") -> None:
        small = ROOM / "nf_conntrack_max"
        small.write_text(f"{LIMIT}\n")
        for node in nodes:
            with inside(node.name):
                command = ["mount", "--bind", str(small), str(ROOT / "nf_conntrack_max")]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemRefused(f"a small limit of connections: {done.stderr.strip()}")

    return shrink


async def crowd(lab: "Lab") -> None:
    """Let nodes ping themselves, step by step, until tables are full and that is known.

    No witness counts these connections; they stay for 30 s.
    """
    for step in range(STEPS):
        identifiers = range(LIMIT * step // STEPS, LIMIT * (step + 1) // STEPS)
        for node in NODES:
            await asyncio.to_thread(_ping, node.name, identifiers)
        await asyncio.sleep(AWAY * lab.duration_s / STEPS)

    async def told() -> bool:
        return await lab.aggregator.metric(ENTRIES) >= LIMIT * len(NODES)

    await until(told, NAMED_S, lab.aggregator, "has not heard that tables are full")
    await pass_while_away(lab)


def _ping(node: str, identifiers: range) -> None:
    """Have a node ping itself; each identifier makes a connection."""
    with inside(node):
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with sender:
        for identifier in identifiers:
            # Checksums are complements: that of all 16-bit words adds up to all ones.
            checksum = 0xFFFF - ((_ECHO << 8) + identifier) % 0xFFFF
            sender.sendto(_PING.pack(_ECHO, 0, checksum, identifier, 0), ("127.0.0.1", 0))


async def flood(lab: "Lab") -> None:
    """Open connections that nobody answers until the table is nearly full; see who is named."""
    with inside(CLIENT.host):
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    sent = 0
    with sender:
        ports = iter(PORTS)
        while (tracked := _tracked()) < SHARE * LIMIT:
            for port in _next(ports, ceil(SHARE * LIMIT) - tracked):
                sender.sendto(syn(port), (SILENCE, 0))
                sent += 1
            await asyncio.sleep(PAUSE_S)
    exporter = next(one for one in lab.exporters if one.name.endswith(NODE.name))
    await until(partial(_named, lab, sent), NAMED_S, exporter, "is not known to be flooded")
    await until(partial(_stored, lab, sent), STORED_S, exporter, f"lacks some of {sent} SYNs")
    lab.note(f"{NODE.name} tracked {tracked} of {LIMIT} connections: {await _filling()}")


def _next(ports: Iterator[int], most: int) -> list[int]:
    chosen = list(islice(ports, min(most, AT_ONCE)))
    if not chosen:
        raise SystemRefused(f"{len(PORTS)} SYNs do not fill a table of {LIMIT} connections")
    return chosen


def syn(port: int) -> bytes:
    """Return the segment that begins a connection from a port of the Pod."""
    segment = _SEGMENT.pack(port, SILENT_PORT, port, 0, _OFFSET, _SYN, 64_240, 0, 0)
    ends = socket.inet_aton(CLIENT.addresses[0]) + socket.inet_aton(SILENCE)
    pseudo = ends + struct.pack("!HH", socket.IPPROTO_TCP, len(segment)) + segment
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return segment[:16] + struct.pack("!H", ~total & 0xFFFF) + segment[18:]


def _tracked() -> int:
    with inside(NODE.name):
        return int((ROOT / "nf_conntrack_count").read_text())


async def _node() -> dict[str, Any]:
    done = await asyncio.to_thread(
        subprocess.run, [*FLOWCTL, "nodes", NODE.name, "-o", "json"],
        capture_output=True, check=False,
    )  # fmt: skip
    found: dict[str, Any] = {} if done.returncode else json.loads(done.stdout)["nodes"][0]
    return found


async def _filling() -> str:
    problems = (await _node()).get("problems", [])
    return next((each for each in problems if "connection table" in each), "nobody says")


async def _named(lab: "Lab", sent: int) -> bool:
    """Whether the node's table is said to be full, and of whose connections."""
    if await lab.aggregator.metric(ENTRIES) < 0.95 * LIMIT:  # asking so costs next to nothing
        return False
    node = await _node()
    if not node or node["conntrack"] is None or not node["occupants"]:
        return False
    first, conntrack = node["occupants"][0], node["conntrack"]
    who = first["namespace"], first["kind"], first["workload"], first["end"]
    return (
        who == (CLIENT.namespace, *CLIENT.workload, "source")
        and first["entries"] >= first["unanswered"] >= sent
        and conntrack["max"] == LIMIT
        and conntrack["entries"] >= first["entries"]
    )


async def _stored(lab: "Lab", sent: int) -> bool:
    """Whether the store has each of the flood's connections."""
    if await lab.aggregator.metric(WRITTEN) < sent:
        return False
    answer = await lab.ask(QUESTION)
    return answer is not None and int(str(answer[0][0])) == sent


# A table reads best as one.
# fmt: off
FAULTS = {
    "conntrack-fills": Fault("connections come until nodes' tables have, as they say, no room",
                             crowd, 0.2, prepare=shrinking(NODES)),
    "syn-flood": Fault("a Pod fills its node's table of connections with SYNs", flood, 0.1,
                       by_sums=True, prepare=shrinking([NODE])),
}
# fmt: on
