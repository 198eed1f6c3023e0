"""Attacks on doors: connections, handshakes, and sessions that cost more than they bring.

`start(NAME, port, certificates)` begins one in a process of its own and returns what ends it;
`certificates` is a directory with ca.crt, client.crt and client.key. Each attack is a function that
goes on until it is killed, from addresses of 127.0.0.0/8 other than 127.0.0.1.
"""

import contextlib
import itertools
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack

ATTACKER = "127.0.0.2"
SESSIONS = 4
STREAM_BYTES = 1 << 20  # of a stream that is sent again and again

Attack = Callable[[int, Path], None]


def start(name: str, port: int, certificates: Path) -> Callable[[], None]:
    """Begin an attack; call what is returned to end it."""
    command = [sys.executable, "-m", "benchmarks.attacks.doors", name, str(port), str(certificates)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop() -> None:
        process.kill()
        process.wait()

    return stop


# Connections


def idle_from_one_address(port: int, _: Path) -> None:
    """900 connections from one address that say nothing, and come again when they are closed."""
    _hold(port, [ATTACKER] * 900)


def idle_from_many_addresses(port: int, _: Path) -> None:
    """2000 connections from 2000 addresses that say nothing, and come again."""
    _hold(port, [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(2000)])


def handshakes_that_stop(port: int, _: Path) -> None:
    """900 connections that send the beginning of a handshake and stop."""
    _hold(port, [ATTACKER] * 900, first=b"\x16\x03\x01\x02\x00\x01")


def connects(port: int, _: Path) -> None:
    """Connect and close, as fast as one can."""
    while True:
        with contextlib.suppress(OSError):
            _connect(port, ATTACKER).close()


def handshakes(port: int, certificates: Path) -> None:
    """Whole handshakes without a word after them, from four threads of one address."""

    def storm(context: ssl.SSLContext) -> None:
        while True:
            with contextlib.suppress(OSError):
                _secured(context, _connect(port, ATTACKER)).close()

    _in_threads(storm, certificates)


def certificates_of_nobody(port: int, _: Path) -> None:
    """Handshakes without a certificate, which the server refuses at their end."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    while True:
        with contextlib.suppress(OSError), _secured(context, _connect(port, ATTACKER)) as session:
            session.recv(1)


# Sessions


def templates_redefined(port: int, certificates: Path) -> None:
    """Four sessions that give a template 250 other fields each time."""
    _flood(port, certificates, _messages(_wide_templates()))


def small_templates_redefined(port: int, certificates: Path) -> None:
    """Four sessions that give a template another field each time: 12 bytes each."""
    chance = random.Random(1)
    sets = (
        _set(2, *(pack(">HHHH", 256, 1, chance.randrange(1, 30_000), 4) for _ in range(4000)))
        for _ in itertools.count()
    )
    _flood(port, certificates, _messages(sets))


def templates_withdrawn(port: int, certificates: Path) -> None:
    """Four sessions that learn and withdraw one template without end."""
    once = pack(">HHHH", 256, 1, 7, 2) + pack(">HH", 256, 0)
    _flood(port, certificates, _messages(itertools.repeat(_set(2, once * 4000))))


def options_templates(port: int, certificates: Path) -> None:
    """Four sessions that redefine options templates of 60 fields."""
    chance = random.Random(2)

    def sets() -> Iterator[bytes]:
        while True:
            fields = b"".join(pack(">HH", chance.randrange(1, 30_000), 4) for _ in range(60))
            yield _set(3, pack(">HHH", 256, 60, 1) + fields)

    _flood(port, certificates, _messages(sets()))


def templates_too_long(port: int, certificates: Path) -> None:
    """Four sessions with templates of 16,000 fields."""
    fields = b"".join(pack(">HH", number, 4) for number in range(1, 16_001))
    _flood(
        port, certificates, _messages(itertools.repeat(_set(2, pack(">HH", 256, 16_000), fields)))
    )


def empty_messages(port: int, certificates: Path) -> None:
    """Four sessions of messages with nothing in them, of which each has a wrong number."""
    _flood(port, certificates, _messages(itertools.repeat(b""), jump=7))


def many_sets(port: int, certificates: Path) -> None:
    """Four sessions of messages of 16,000 empty sets whose templates never came."""
    sets = b"".join(_set(number) for number in range(300, 16_300))
    _flood(port, certificates, _messages(itertools.repeat(sets)))


def malformed_sets(port: int, certificates: Path) -> None:
    """Four sessions of small messages with a set that ends outside of its message."""
    _flood(port, certificates, _messages(itertools.repeat(pack(">HH", 2, 60_000))))


def records_of_one_byte(port: int, certificates: Path) -> None:
    """Four sessions of records of one byte each, the least that makes a row."""
    first = _message(_set(2, pack(">HHHH", 256, 1, 4, 1)))
    _flood(port, certificates, _messages(itertools.repeat(_set(256, b"\x06" * 60_000))), first)


def bytes_one_by_one(port: int, certificates: Path) -> None:
    """Four sessions whose every byte is a TLS record of its own."""
    message = _message(_set(2, pack(">HHHH", 256, 1, 4, 1)))

    def drip(context: ssl.SSLContext) -> None:
        session = _secured(context, _connect(port, ATTACKER))
        while True:
            for byte in message:
                session.send(bytes([byte]))

    _in_threads(drip, certificates)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        idle_from_one_address,
        idle_from_many_addresses,
        handshakes_that_stop,
        connects,
        handshakes,
        certificates_of_nobody,
        templates_redefined,
        small_templates_redefined,
        templates_withdrawn,
        options_templates,
        templates_too_long,
        empty_messages,
        many_sets,
        malformed_sets,
        records_of_one_byte,
        bytes_one_by_one,
    )
}


def _set(set_id: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return pack(">HH", set_id, 4 + len(body)) + body


def _message(body: bytes, sequence: int = 0) -> bytes:
    return pack(">HHIII", 10, 16 + len(body), int(time.time()), sequence, 66) + body


def _messages(bodies: Iterator[bytes], jump: int = 0) -> bytes:
    """Messages with these sets, as many as make a stream."""
    stream = bytearray()
    numbers = itertools.count(step=jump) if jump else itertools.repeat(0)
    while len(stream) < STREAM_BYTES:
        stream += _message(next(bodies), next(numbers) & 0xFFFFFFFF)
    return bytes(stream)


def _wide_templates() -> Iterator[bytes]:
    chance = random.Random(3)
    while True:
        fields = b"".join(pack(">HH", chance.randrange(1, 500), 4) for _ in range(250))
        yield _set(2, pack(">HH", 256, 250) + fields)


def _flood(port: int, certificates: Path, stream: bytes, first: bytes = b"") -> None:
    """Send a stream again and again in some sessions; those that end begin again."""

    def send(context: ssl.SSLContext) -> None:
        while True:
            with contextlib.suppress(OSError):
                session = _secured(context, _connect(port, ATTACKER))
                session.sendall(first)
                while True:
                    session.sendall(stream)

    _in_threads(send, certificates)


def _in_threads(work: Callable[[ssl.SSLContext], None], certificates: Path) -> None:
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    context.load_cert_chain(certificates / "client.crt", certificates / "client.key")
    threads = [threading.Thread(target=work, args=(context,)) for _ in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10, (source, 0))


def _secured(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(sock, server_hostname="localhost")
    except OSError:
        sock.close()
        raise


def _hold(port: int, sources: list[str], first: bytes = b"") -> None:
    """Keep a connection from each of these addresses; one that is closed is opened again."""
    held: dict[str, list[socket.socket]] = {source: [] for source in sources}
    wanted = {source: sources.count(source) for source in held}
    while True:
        for source, sockets in held.items():
            for sock in list(sockets):
                with contextlib.suppress(BlockingIOError):
                    try:
                        ended = sock.recv(1) == b""
                    except ConnectionError:
                        ended = True
                    if ended:
                        sock.close()
                        sockets.remove(sock)
            while len(sockets) < wanted[source]:
                try:
                    sock = _connect(port, source)
                    sock.send(first)
                except OSError:
                    break
                sock.setblocking(False)
                sockets.append(sock)
        time.sleep(0.02)


if __name__ == "__main__":
    os.nice(10)  # hostile is what arrives, not that it takes the daemon's cores on one machine
    ATTACKS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
