"""Real packets of many kinds over loopback, and rules that make their entries differ."""

import socket
import struct
from contextlib import ExitStack, closing

from namespaces import run
from waiting import PATIENCE_S

SERVICE = ("10.96.0.1", 80)
BACKEND = ("10.0.1.5", 8080)
SNAT = "10.0.0.7"
MARK = 0x12345678
LABEL = 77
SENT, RECEIVED = 30_000, 70_000  # payload of the TCP connection through the service

RULES = f"""
table inet flavours {{
    chain zones {{
        type filter hook output priority raw;
        udp dport 7000 ct zone set 7
        udp dport 7001 ct original zone set 9
    }}
    chain colours {{
        type filter hook output priority filter;
        udp dport 7000 ct mark set {MARK:#x}
        udp dport 5353 ct label set {LABEL}
    }}
}}
table ip translation {{
    chain output {{
        type nat hook output priority -100;
        ip daddr {SERVICE[0]} tcp dport {SERVICE[1]} dnat to {BACKEND[0]}:{BACKEND[1]}
    }}
    chain postrouting {{
        type nat hook postrouting priority 100;
        udp dport 5353 snat to {SNAT}
    }}
}}
"""

_GRE = bytes.fromhex("00000800") + bytes(20)
_ECHO = struct.Struct("!BBHHH")  # type, code, checksum, id, sequence
_SCTP_INIT = struct.pack("!HHII", 5000, 5001, 0, 0) + struct.pack(
    "!BBHIIHHI", 1, 0, 20, 0xABCDEF01, 65536, 1, 1, 1
)


def make_mixed_table() -> None:
    """Entries of every kind; loopback takes all of 10.0.0.0/8."""
    run("ip", "address", "add", "10.0.0.1/8", "dev", "lo")
    run("nft", RULES)
    tcp(SERVICE, BACKEND)
    for destination in (("10.0.0.2", 53), ("10.0.0.2", 5353), ("10.0.0.2", 7000)):
        udp(destination)
    udp(("10.0.0.2", 7001))
    udp(("::1", 53))
    raw(socket.AF_INET, 1, "10.0.0.3", _echo(8, 0xBEEF))
    raw(socket.AF_INET6, 58, "::1", _echo(128, 0xCAFE))
    raw(socket.AF_INET, 132, "10.0.0.4", _SCTP_INIT)
    raw(socket.AF_INET, 47, "10.0.0.5", _GRE)
    raw(socket.AF_INET, 99, "10.0.0.6", b"anything")


def tcp(to: tuple[str, int], listening: tuple[str, int]) -> None:
    """A connection that is over: SENT bytes there, RECEIVED bytes back."""
    with socket.create_server(listening) as server, ExitStack() as ends:
        client = ends.enter_context(socket.create_connection(to))
        served = ends.enter_context(closing(server.accept()[0]))
        client.sendall(bytes(SENT))
        _receive(served, SENT)
        served.sendall(bytes(RECEIVED))
        _receive(client, RECEIVED)
        client.shutdown(socket.SHUT_WR)
        served.shutdown(socket.SHUT_WR)
        _receive(client, 0)
        _receive(served, 0)


def udp(to: tuple[str, int], payload: bytes = b"question") -> None:
    """One datagram; nobody answers."""
    with socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(payload, to)


def raw(family: int, protocol: int, to: str, payload: bytes) -> None:
    """One packet of any protocol."""
    with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        sender.sendto(payload, (to, 0))


def _receive(end: socket.socket, size: int) -> None:
    """Take `size` bytes, or wait for the other side's end of stream."""
    end.settimeout(PATIENCE_S)
    if size == 0:
        assert end.recv(1) == b""
    while size:
        size -= len(end.recv(size))


def _echo(kind: int, number: int) -> bytes:
    """An echo request; the kernel computes the checksum of ICMPv6, this one that of ICMP."""
    checksum = 0xFFFF - ((kind << 8) + number)
    return _ECHO.pack(kind, 0, checksum if checksum > 0 else checksum + 0xFFFF, number, 0)
