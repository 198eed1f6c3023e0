"""flowctl replay: the IPFIX messages of a packet capture, sent to a collector."""

import argparse
import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flowvis.captures.files import read_packets
from flowvis.captures.messages import GAPS, NETFLOW, TLS, Captured, Messages
from flowvis.captures.packets import Endpoints
from flowvis.cli.command import Commands, Connect
from flowvis.errors import SystemRefused
from flowvis.runtime.causes import cause_of
from flowvis.transport.address import CollectorAddress, parse_collector_address
from flowvis.transport.datagrams import DatagramConnection
from flowvis.transport.tls import TlsFiles

DESCRIPTION = """\
Send the IPFIX messages of a packet capture (pcap or pcapng) to a collector, each session of the
capture in one of its own, over UDP, TCP or TLS, whatever they were captured over. Messages that
were captured in TLS cannot be read. Records keep the times that they have: flows of last year are
stored as flows of last year.
"""

EXAMPLES = """\
examples:
  flowctl replay flows.pcap --to 10.0.0.5:4739:udp            as fast as it goes
  flowctl replay flows.pcapng --to localhost:4739:tcp --timed  as they were captured
  flowctl replay flows.pcap --to localhost:4739:tcp --timed --speed 60   an hour in a minute
  flowctl replay flows.pcap --to flow-aggregator:4739 --ca ca.crt --certificate n.crt --key n.key
  flowctl replay flows.pcap --dry-run                         what is in it
exit codes: 0 done, 1 an error, or nothing to send, 2 wrong usage
"""

CONNECT_S = 10.0
CLOSE_S = 10.0  # for a collector to read what it was sent
MOST_SESSIONS = 4096

WHY = {
    TLS: "streams in TLS, which nobody without their keys can read: capture before it (aggregator "
    "with aggregatorTransportProtocol: TCP or UDP)",
    GAPS: "streams of which bytes are missing, so some of their messages",
    NETFLOW: "datagrams of NetFlow 5 or 9",
}


def add_arguments(commands: Commands, _: Connect) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "replay",
        help="send the IPFIX messages of a packet capture to a collector",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="pcap or pcapng; - is stdin")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--to", type=_address, metavar="HOST[:PORT[:PROTO]]", help="tls (default), tcp or udp"
    )
    what.add_argument("--dry-run", action="store_true", help="only say what there is")
    parser.add_argument(
        "--port", type=_port, help="only what went to this port; by default all that is IPFIX"
    )
    parser.add_argument("--timed", action="store_true", help="keep the times between messages")
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="N", help="with --timed: so many times as fast"
    )
    parser.add_argument("--ca", type=Path, help="the CA of the collector's certificate (PEM)")
    parser.add_argument("--certificate", type=Path, help="ours (PEM)")
    parser.add_argument("--key", type=Path, help="its private key (PEM)")
    parser.add_argument("--server-name", default="", help="the name in the collector's certificate")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replay a file; return the exit code."""
    messages = Messages(options.port)
    sender = Replay(options)
    began = time.monotonic()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # errors are the command's to tell
    asyncio.run(sender.send(_read(options.file, messages)))
    took_s = time.monotonic() - began
    sent = sender.sent
    verb = "found" if options.dry_run else "sent"
    print(
        f"{sent.total()} messages ({sender.octets} bytes) of {len(sent)} sessions {verb} "
        f"in {took_s:.1f} s"
    )
    for endpoints, count in sent.items() if options.dry_run else ():
        protocol = "udp" if endpoints.protocol == socket.IPPROTO_UDP else "tcp"
        print(f"  {endpoints} {protocol}: {count}")
    for why, count in messages.left_out.items():
        if count:
            print(f"left out: {count} {WHY[why]}", file=sys.stderr)
    if messages.truncated:
        text = "packets were not captured whole: capture with a snap length of 65535"
        print(f"left out: {messages.truncated} {text}", file=sys.stderr)
    return 0 if sent else 1


def _read(path: Path, messages: Messages) -> Iterator[Captured]:
    try:
        if str(path) == "-":
            if sys.stdin is None:
                raise SystemRefused("stdin: it is closed")
            yield from messages.of(read_packets(sys.stdin.buffer, "stdin"))
            return
        with path.open("rb") as file:
            yield from messages.of(read_packets(file, str(path)))
    except OSError as error:
        raise SystemRefused(f"{path}: cannot be read: {error.strerror}") from error


class Session(Protocol):
    """A transport session with the collector."""

    async def send(self, message: bytes) -> None:
        """Send a message; OSError when that is not possible."""

    async def close(self) -> None:
        """End it, when all is sent."""


@dataclass
class Replay:
    """Sends messages, the sessions of a capture each in one of its own."""

    options: argparse.Namespace
    sent: Counter[Endpoints] = field(default_factory=Counter)
    octets: int = 0
    _sessions: dict[Endpoints, Session] = field(default_factory=dict)

    async def send(self, captured: Iterator[Captured]) -> None:
        """Send all; SystemRefused says why not."""
        first_ns: int | None = None
        began = time.monotonic()
        address = self.options.to
        try:
            for message in captured:
                if not self.options.dry_run:
                    if self.options.timed:
                        first_ns = message.time_ns if first_ns is None else first_ns
                        after_s = (message.time_ns - first_ns) / 1e9 / self.options.speed
                        await asyncio.sleep(max(began + after_s - time.monotonic(), 0))
                    await (await self._session(message.endpoints)).send(message.data)
                self.sent[message.endpoints] += 1
                self.octets += len(message.data)
        except (OSError, TimeoutError) as error:
            done = f"{self.sent.total()} messages were sent before"
            raise SystemRefused(f"{address}: {cause_of(error, CONNECT_S)}; {done}") from error
        finally:
            await asyncio.gather(*map(_closed, self._sessions.values()))

    async def _session(self, endpoints: Endpoints) -> Session:
        session = self._sessions.get(endpoints)
        if session is None:
            if len(self._sessions) >= MOST_SESSIONS:
                raise SystemRefused(
                    f"more than {MOST_SESSIONS} sessions in the capture: choose some by --port"
                )
            async with asyncio.timeout(CONNECT_S):
                session = await self._open(self.options.to)
            self._sessions[endpoints] = session
        return session

    async def _open(self, address: CollectorAddress) -> Session:
        if address.protocol == "udp":
            return await Datagrams.to(address)
        context = None
        if address.protocol == "tls":
            options = self.options
            context = TlsFiles(options.ca, options.certificate, options.key).client_context()
        reader, writer = await asyncio.open_connection(
            address.dns_name,
            address.port,
            ssl=context,
            server_hostname=(self.options.server_name or address.dns_name) if context else None,
        )
        return Stream(reader, writer)


async def _closed(session: Session) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        await session.close()


class Stream:
    """A session over TCP or TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, message: bytes) -> None:
        """Send a message; wait while the collector is slow."""
        if self._reader.at_eof():
            raise ConnectionResetError("the collector ended the session")
        self._writer.write(message)
        await self._writer.drain()

    async def close(self) -> None:
        """End it, and wait until the collector has read all."""
        async with asyncio.timeout(CLOSE_S):
            if self._writer.can_write_eof():
                self._writer.write_eof()
                await self._reader.read()
            self._writer.close()
            await self._writer.wait_closed()


class Datagrams:
    """A session over UDP."""

    def __init__(self, connection: DatagramConnection) -> None:
        self._connection = connection

    @classmethod
    async def to(cls, address: CollectorAddress) -> "Datagrams":
        """Open one with a port of its own."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.dns_name, address.port, type=socket.SOCK_DGRAM)
        family, _, _, _, place = found[0]
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(place)
            return cls(DatagramConnection(sock, lambda _: None))
        except BaseException:
            sock.close()
            raise

    async def send(self, message: bytes) -> None:
        """Send a message, not faster than a collector with the usual buffers reads."""
        if not await self._connection.send(message):
            raise ConnectionError(self._connection.detail)

    async def close(self) -> None:
        """End it: nobody can say whether all arrived."""
        self._connection.close()


def _address(text: str) -> CollectorAddress:
    try:
        return parse_collector_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r}: a port is a number from 1 to 65535")
    return int(text)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.001 <= speed <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 0.001 to 1000000")
    return speed
