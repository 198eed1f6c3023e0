"""Attacks on the HTTP API by readers: connections, tokens, requests, and answers nobody takes.

`start(NAME, port, certificates)` begins one in a process of its own and returns what ends it.
Each goes on until it is killed, from addresses of 127.0.0.0/8 other than 127.0.0.1.
"""

import contextlib
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks import ATTACKER, doors

OTHER_TOKEN = "another-reader-0123456789"  # noqa: S105  of the benchmark alone
"""Of a reader who may come in, and asks too much."""

THREADS = 8

Attack = Callable[[int, Path], None]
OF_ANOTHER_PORT = True  # the API's: `benchmarks.readers` runs them


def start(name: str, port: int, certificates: Path) -> Callable[[], None]:
    """Begin an attack; call what is returned to end it."""
    command = [sys.executable, "-m", "benchmarks.attacks.readers", name]
    process = subprocess.Popen([*command, str(port), str(certificates)], stdin=subprocess.DEVNULL)

    def stop() -> None:
        process.kill()
        process.wait()

    return stop


def idle_connections(port: int, certificates: Path) -> None:
    """900 connections from one address that say nothing, and come again."""
    doors.idle_from_one_address(port, certificates)


def idle_from_many_addresses(port: int, certificates: Path) -> None:
    """2000 connections from 2000 addresses that say nothing, and come again."""
    doors.idle_from_many_addresses(port, certificates)


def handshakes(port: int, certificates: Path) -> None:
    """Whole handshakes without a word after them."""
    _in_threads(lambda: _secured(port, certificates).close())


def wrong_tokens(port: int, certificates: Path) -> None:
    """A guess in each request, on connections that stay."""

    def guess() -> None:
        with _secured(port, certificates) as sock:
            while True:
                _ask(sock, f"guess-{random.random()}", "GET /api/v1/me")

    _in_threads(guess)


def too_many_requests(port: int, certificates: Path) -> None:
    """One caller's requests as fast as they can."""

    def hurry() -> None:
        with _secured(port, certificates) as sock:
            while True:
                _ask(sock, OTHER_TOKEN, "GET /flows?limit=1000")

    _in_threads(hurry)


def too_large_bodies(port: int, certificates: Path) -> None:
    """Bodies of 100 MB, sent as far as they are taken."""

    def send() -> None:
        with _secured(port, certificates) as sock:
            sock.sendall(_head(OTHER_TOKEN, "POST /api/v1/sql", "Content-Length: 100000000\r\n"))
            while True:
                sock.sendall(b"x" * 65536)

    _in_threads(send)


def cut_off_requests(port: int, certificates: Path) -> None:
    """Heads and bodies that break off, and connections that stay with them."""

    def send() -> None:
        held = []
        for _ in range(50):
            sock = _secured(port, certificates)
            held.append(sock)
            head = _head(OTHER_TOKEN, "POST /api/v1/session", "Content-Length: 500\r\n")
            sock.sendall(head[: random.randrange(20, len(head))])
        time.sleep(1)
        for sock in held:
            sock.close()

    _in_threads(send)


def answers_not_taken(port: int, certificates: Path) -> None:
    """Streams and long answers of which nothing is read."""

    def hold() -> None:
        held = []
        for path in ("/api/v1/stream?latest=8192", "/flows?limit=8192", "/flowrecords"):
            sock = _secured(port, certificates, room=4096)
            held.append(sock)
            sock.sendall(_head(OTHER_TOKEN, f"GET {path}"))
        time.sleep(20)
        for sock in held:
            sock.close()

    _in_threads(hold)


def no_http(port: int, certificates: Path) -> None:
    """What is no request."""

    def send() -> None:
        with _secured(port, certificates) as sock:
            sock.sendall(random.randbytes(200) + b"\r\n\r\n")
            while sock.recv(4096):
                pass

    _in_threads(send)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        idle_connections, idle_from_many_addresses, handshakes, wrong_tokens, too_many_requests,
        too_large_bodies, cut_off_requests, answers_not_taken, no_http,
    )
}  # fmt: skip


def _in_threads(work: Callable[[], None]) -> None:
    def run() -> None:
        while True:
            with contextlib.suppress(OSError):
                work()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _secured(port: int, certificates: Path, room: int = 0) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    sock = socket.socket()
    if room:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    try:
        sock.settimeout(30)
        sock.bind((ATTACKER, 0))
        sock.connect(("127.0.0.1", port))
        return context.wrap_socket(sock, server_hostname="localhost")
    except OSError:
        sock.close()
        raise


def _ask(sock: ssl.SSLSocket, token: str, what: str) -> None:
    """Ask, and take some of the answer."""
    sock.sendall(_head(token, what))
    if not sock.recv(65536):
        raise ConnectionResetError("ended")


def _head(token: str, what: str, more: str = "") -> bytes:
    return (
        f"{what} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
    ).encode()


if __name__ == "__main__":
    os.nice(10)  # hostile is what arrives, not that it takes the daemon's cores on one machine
    ATTACKS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
