"""Runs inside a private world: a segment comes a second time, when more than a window of others was
acknowledged since, as where two CPUs bring it and one of them is late. Prints, as JSON, what the
witness and each node's conntrack counted of the connection."""

import asyncio
import json
import socket
import struct
import sys
import time

from conntrack_list import conntrack
from flowvis.lab import isolation, network, traffic
from flowvis.lab.namespaces import inside, set_sysctls
from flowvis.lab.plan import CART, NODES, ORDERS, SERVER_PORT
from flowvis.lab.rules import Tuple, read_witness

ETH_P_ALL = 3  # linux/if_ether.h
PORT = 40_000
PIECE, PIECES = b"." * 4000, 60
PAUSE_S = 0.003  # the server's window stays at its 64 KiB


def have_a_late_copy() -> None:
    """Call, and send the first segment again in the end."""
    with inside(CART.host):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        again = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        client = socket.socket()
    with wire, again, client:
        wire.bind(("eth0", ETH_P_ALL))
        client.bind((CART.addresses[0], PORT))
        client.connect((ORDERS.addresses[0], SERVER_PORT))
        header = traffic.HEADER.pack(traffic.HEADER.size + len(PIECE) * PIECES, 1)
        client.sendall(header)
        while not (packet := wire.recv(65536)).endswith(header):
            pass
        for _ in range(PIECES):
            client.sendall(PIECE)
            time.sleep(PAUSE_S)
        client.recv(1)
        again.sendto(with_checksum(packet), (ORDERS.addresses[0], 0))


def with_checksum(packet: bytes) -> bytes:
    """Return a packet of TCP over IPv4 with the checksum that a network card would have made."""
    at = (packet[0] & 15) * 4
    segment = bytearray(packet[at:])
    segment[16:18] = b"\0\0"
    pseudo = packet[12:20] + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment))
    padded = pseudo + bytes(segment) + b"\0" * (len(segment) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    segment[16:18] = struct.pack("!H", ~total & 0xFFFF)
    return packet[:at] + bytes(segment)


async def call() -> None:
    async with traffic.servers():
        await asyncio.to_thread(have_a_late_copy)
        await asyncio.sleep(0.5)  # its answer, and the last FIN


def main() -> None:
    isolation.settle()
    network.build()
    for node in NODES:
        set_sysctls(node.name, {"net.netfilter.nf_conntrack_acct": 1})
    asyncio.run(call())
    key = Tuple("tcp", CART.addresses[0], PORT, ORDERS.addresses[0], SERVER_PORT)
    seen = {node.name: conntrack(node.name)[tuple(map(str, key))] for node in NODES}
    line = {"witness": read_witness(CART.host)[key], "conntrack": seen}
    sys.stdout.write(json.dumps(line) + "\n")


main()
