"""The poll of 100,000 connections that the kernel really tracks, beside the least it could cost.

The table is made through ctnetlink in a network namespace of its own. The least is the same dump
received and thrown away; `conntrack -L`, the tool in C, is there for comparison.
"""

import ctypes
import os
import resource
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroute2 import netns
from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_CTNETLINK
from pyroute2.netlink.nfnetlink.nfctsocket import (
    IPCTNL_MSG_CT_NEW,
    AsyncNFCTSocket,
    NFCTAttrTuple,
    nfct_msg,
)

from flowvis.conntrack.names import ConntrackStatus
from flowvis.conntrack.sources.sockets import DumpSocket
from flowvis.conntrack.sources.source import Conntrack

CONNECTIONS = 100_000
ROUNDS = 9
CLONE_NEWNET = 0x40000000

# What stands for the client's address and port in the message that all others are made from.
CLIENT: dict[int, str] = {
    socket.AF_INET: "203.0.113.7",
    socket.AF_INET6: "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff",
}
SERVER: dict[int, str] = {socket.AF_INET: "10.96.0.10", socket.AF_INET6: "2001:db8::53"}
PORT = 0xA55A

MIX = [
    (socket.AF_INET, socket.IPPROTO_TCP, 0.6),
    (socket.AF_INET, socket.IPPROTO_UDP, 0.3),
    (socket.AF_INET6, socket.IPPROTO_TCP, 0.1),
]


class Discard:
    """Takes the bytes and looks for nothing but the end."""

    def feed(self, data: memoryview, sequence: int | None = None) -> int | None:  # noqa: ARG002  the interface
        done = struct.unpack_from("=H", data, 4)[0] == 3  # NLMSG_DONE comes in a receive of its own
        return 0 if done else None


def run() -> dict[str, Any]:
    with _namespace(), closing(Conntrack(events=False)) as source, closing(DumpSocket()) as bare:
        source.open()
        source.prepare()
        _make_connections(CONNECTIONS)
        records = len(source.poll())
        assert records == CONNECTIONS
        rounds = [
            (
                _cost(lambda: bare.dump(Discard())),
                _cost(source.poll),
                _cost(_list_with_the_tool, of_children=True),
            )
            for _ in range(ROUNDS)
        ]
    floor, poll, tool = ([one[way] for one in rounds] for way in range(3))
    floor_cpu, cpu = (statistics.median(cpu for cpu, _ in way) for way in (floor, poll))
    tool_cpu = statistics.median(cpu for cpu, _ in tool)
    return {
        "records": records,
        "cpu_seconds": round(cpu, 4),
        "wall_seconds": round(statistics.median(wall for _, wall in poll), 4),
        "floor_cpu_seconds": round(floor_cpu, 4),
        "ratio": round(cpu / floor_cpu, 3),
        "conntrack_tool_ratio": round(tool_cpu / floor_cpu, 3),
    }


@contextmanager
def _namespace() -> Iterator[None]:
    """A new network namespace for this thread."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None).unshare(CLONE_NEWNET):
            raise PermissionError("a network namespace needs root: run it as root")
        yield
    finally:
        netns.setns(home)
        os.close(home)


def _cost(work: Callable[[], object], *, of_children: bool = False) -> tuple[float, float]:
    """CPU and wall seconds, user and kernel."""
    wall, cpu = time.perf_counter(), _cpu(of_children)
    work()
    return _cpu(of_children) - cpu, time.perf_counter() - wall


def _cpu(of_children: bool) -> float:
    if not of_children:
        return time.process_time()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _list_with_the_tool() -> None:
    # Without a family it lists IPv4 and IPv6, as the poll does.
    subprocess.run(
        ["conntrack", "-L"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )


def _make_connections(total: int) -> None:
    """Give the kernel established connections from `total` clients."""
    made = 0
    with AsyncNFCTSocket(sndbuf=1 << 20).setup_socket() as kernel:
        for family, protocol, share in MIX:
            messages = _messages(family, protocol, np.arange(made, made + round(total * share)))
            made += len(messages)
            for batch in np.array_split(messages, len(messages) // 200):
                kernel.send(batch.tobytes())


def _messages(family: int, protocol: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """One message a row: the template with the client's address and port replaced."""
    template = _template(family, protocol)
    rows = np.tile(np.frombuffer(template, np.uint8), (len(numbers), 1))
    last = socket.inet_pton(family, CLIENT[family])[-4:]
    host = (0x0A000000 + numbers // 8).astype(">u4").view(np.uint8).reshape(-1, 4)
    port = (32768 + numbers % 8 * 1000).astype(">u2").view(np.uint8).reshape(-1, 2)
    for mark, values in ((last, host), (PORT.to_bytes(2, "big"), port)):
        for at in _places(template, mark):
            rows[:, at : at + len(mark)] = values
    return rows


def _places(template: bytes, mark: bytes) -> list[int]:
    found = [at for at in range(len(template)) if template.startswith(mark, at)]
    assert len(found) == 2, "in the original and in the reply direction"
    return found


def _template(family: int, protocol: int) -> bytes:
    original = NFCTAttrTuple(family, CLIENT[family], SERVER[family], protocol, PORT, 443)
    message = nfct_msg.create_from(
        tuple_orig=original,
        tuple_reply=original.reverse(),
        status=ConntrackStatus.SEEN_REPLY | ConntrackStatus.ASSURED | ConntrackStatus.CONFIRMED,
        timeout=7200,
        mark=0x10,
    )
    if protocol == socket.IPPROTO_TCP:
        established = {"attrs": [("CTA_PROTOINFO_TCP_STATE", 3)]}
        protoinfo = {"attrs": [("CTA_PROTOINFO_TCP", established)]}
        message["attrs"].append(("CTA_PROTOINFO", protoinfo))
    message["nfgen_family"] = family
    message["header"] = {
        "type": NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW,
        "flags": NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL,
        "sequence_number": 0,
        "pid": 0,
    }
    message.encode()
    return bytes(message.data) + bytes(-len(message.data) % 4)
