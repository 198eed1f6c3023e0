"""flowctl replay: the IPFIX messages of a packet capture, sent to a collector."""

import argparse
import asyncio
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flowvis.captures.files import read_packets
from flowvis.captures.messages import COPIES, GAPS, NETFLOW, TLS, Captured, Messages
from flowvis.captures.packets import Endpoints
from flowvis.cli.command import Commands, Connect
from flowvis.errors import SystemRefused
from flowvis.runtime.causes import cause_of
from flowvis.runtime.durations import format_duration
from flowvis.runtime.listeners import raise_descriptor_limit
from flowvis.transport.address import CollectorAddress, parse_collector_address
from flowvis.transport.client import Client, Session
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

CLOSE_S = 10.0  # for a collector to read what it was sent
SAY_S = 10.0  # between two words on how far it is
MOST_SESSIONS = 4096

WHY = {
    TLS: "streams in TLS, which nobody without their keys can read: capture before it (aggregator "
    "with aggregatorTransportProtocol: TCP or UDP)",
    GAPS: "streams of which bytes are missing, so some of their messages",
    NETFLOW: "datagrams of NetFlow 5 or 9",
    COPIES: "copies of datagrams, which a capture on all interfaces has of what goes through",
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
    with _silent("asyncio", "flowvis.transport", "flowvis.runtime"):
        raise_descriptor_limit(MOST_SESSIONS)
        asyncio.run(sender.send(_read(options.file, messages)))
    took_s = time.monotonic() - began
    sent = sender.sent
    print(
        f"{sent.total()} messages ({sender.octets} bytes) of {len(sent)} sessions {sender.verb} "
        f"in {took_s:.1f} s"
    )
    for endpoints, count in sent.items() if options.dry_run else ():
        protocol = "udp" if endpoints.protocol == socket.IPPROTO_UDP else "tcp"
        print(f"  {endpoints} {protocol}: {count}")
    for why, count in messages.left_out.items():
        if count:
            print(f"left out: {count} {WHY[why]}", file=sys.stderr)
    for link, count in messages.unread.items():
        text = f"packets of a link of type {link}, which is not read: of Ethernet, Linux and IP are"
        print(f"left out: {count} {text}", file=sys.stderr)
    if messages.truncated:
        text = "packets were not captured whole: capture with a snap length of 65535"
        print(f"left out: {messages.truncated} {text}", file=sys.stderr)
    return 0 if sent else 1


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Have these say nothing in the log meanwhile: errors are the command's to tell."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


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


@dataclass
class Replay:
    """Sends messages, the sessions of a capture each in one of its own."""

    options: argparse.Namespace
    sent: Counter[Endpoints] = field(default_factory=Counter)
    octets: int = 0
    _sessions: dict[Endpoints, Session] = field(default_factory=dict)
    _said_s: float = 0.0

    @property
    def verb(self) -> str:
        """What is done with messages."""
        return "found" if self.options.dry_run else "sent"

    async def send(self, captured: Iterator[Captured]) -> None:
        """Send all; SystemRefused says why not."""
        first_ns: int | None = None
        began = self._said_s = time.monotonic()
        try:
            for message in captured:
                if not self.options.dry_run:
                    if self.options.timed:
                        first_ns = message.time_ns if first_ns is None else first_ns
                        after_s = (message.time_ns - first_ns) / 1e9 / self.options.speed
                        await self._wait(began + after_s - time.monotonic())
                    await self._send(message)
                self.sent[message.endpoints] += 1
                self.octets += len(message.data)
                self._say()
            await self._finish()
        finally:
            for session in self._sessions.values():
                session.close()

    async def _wait(self, pause_s: float) -> None:
        """Wait until a message is due; damaged times of a capture may be years apart."""
        if pause_s > SAY_S:
            self._say(f"; the next in {format_duration(round(pause_s))}")
        await asyncio.sleep(max(pause_s, 0))

    def _say(self, more: str = "") -> None:
        """Say how far it is, where that is not just said, or there is more to say."""
        now_s = time.monotonic()
        if more or now_s - self._said_s > SAY_S:
            self._said_s = now_s
            text = f"{self.sent.total()} messages {self.verb} so far{more}"
            print(text, file=sys.stderr, flush=True)

    async def _send(self, message: Captured) -> None:
        session = self._sessions.get(message.endpoints)
        try:
            if session is None:
                session = await self._open()
                self._sessions[message.endpoints] = session
            if not await session.send(message.data):
                raise ConnectionError(session.detail)
        except OSError as error:
            done = f"{self.sent.total()} messages were sent before"
            raise SystemRefused(f"{self.options.to}: {cause_of(error)}; {done}") from error

    async def _open(self) -> Session:
        if len(self._sessions) >= MOST_SESSIONS:
            raise SystemRefused(
                f"more than {MOST_SESSIONS} sessions in the capture: choose some by --port"
            )
        options, files = self.options, None
        if options.to.protocol == "tls":
            files = TlsFiles(options.ca, options.certificate, options.key)
        return await Client(
            options.to, files, server_name=options.server_name, fragments=True
        ).attempt()

    async def _finish(self) -> None:
        """End all sessions, side by side; SystemRefused where not all has been read, it seems.

        Over UDP nobody can know.
        """
        streams = [each for each in self._sessions.values() if not each.datagrams]
        ended = await asyncio.gather(*(each.finish(CLOSE_S) for each in streams))
        failed = [each for each, well in zip(streams, ended, strict=True) if not well]
        if failed:
            why = failed[0].detail or "it has not ended them in good order"
            raise SystemRefused(
                f"{self.options.to}: all was sent, but {len(failed)} of {len(streams)} sessions "
                f"were not read to their end, as far as the collector tells: {why.lower()}"
            )


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
