"""Connections that say nothing: they cost their owner a descriptor, and others their place."""

import contextlib
import selectors
import socket
import ssl
from threading import Event

from benchmarks.attacks import ATTACKER, Findings, Target, attack
from flowvis.cli.client import ControlClient
from flowvis.errors import FlowvisError

LOOK_S = 0.05
MAX_LOG_BYTES = 100_000


def hold(port: int, count: int, over: Event) -> Findings:
    """Keep so many connections open; one that the other side closes is opened again."""
    held: set[socket.socket] = set()
    opened = 0
    with selectors.DefaultSelector() as selector:
        while not over.wait(LOOK_S):
            while len(held) < count and not over.is_set():
                try:
                    made = socket.create_connection(("127.0.0.1", port), 1, (ATTACKER, 0))
                except OSError:
                    break
                opened += 1
                held.add(made)
                selector.register(made, selectors.EVENT_READ)
            for key, _ in selector.select(0):
                closed = key.fileobj
                assert isinstance(closed, socket.socket)
                with contextlib.suppress(OSError):
                    if closed.recv(4096):
                        continue
                selector.unregister(closed)
                held.discard(closed)
                closed.close()
        for each in held:
            each.close()
    return {"opened": opened}


@attack("status-idle-40")
def status_40(target: Target, over: Event) -> Findings:
    """40 connections to the status port that ask nothing."""
    return hold(target.status_port, 40, over)


@attack("status-idle-400")
def status_400(target: Target, over: Event) -> Findings:
    """400 connections to the status port that ask nothing."""
    return hold(target.status_port, 400, over)


@attack("ipfix-idle-900")
def ipfix_900(target: Target, over: Event) -> Findings:
    """900 connections from one address to the IPFIX port that begin no handshake."""
    return hold(target.port, 900, over)


@attack("half-handshakes")
def half_handshakes(target: Target, over: Event) -> Findings:
    """Peers from a thousand addresses that begin TLS, wait for the answer, and say no more."""
    hello = _client_hello()
    begun = 0
    held: list[socket.socket] = []
    while not over.wait(0.02):
        for _ in range(20):
            source = f"127.{1 + begun // 250 % 200}.1.{1 + begun % 250}"
            with contextlib.suppress(OSError):
                made = socket.create_connection(("127.0.0.1", target.port), 1, (source, 0))
                made.sendall(hello)
                held.append(made)
            begun += 1
        for each in held[:-1000]:
            each.close()
        del held[:-1000]
    return {"begun": begun}


@attack("garbage-from-everywhere")
def garbage_from_everywhere(target: Target, over: Event) -> Findings:
    """Peers from ever new addresses that send what is no TLS: the log must not grow with them."""
    before, sent = target.log.stat().st_size, 0
    while not over.wait(0.01):
        for _ in range(10):
            source = f"127.{1 + sent // 62_500 % 200}.{sent // 250 % 250}.{1 + sent % 250}"
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", target.port), 1, (source, 0)) as made,
            ):
                made.sendall(b"GET / HTTP/1.0\r\n\r\n")
            sent += 1
    grown = target.log.stat().st_size - before
    return {"sent": sent, "log_bytes": grown, "held": grown < MAX_LOG_BYTES}


def _client_hello() -> bytes:
    """The first flight of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@attack("followers-that-do-not-read")
def followers(target: Target, over: Event) -> Findings:
    """The API's streams, all that there may be and more, which nobody reads."""
    made = []
    for _ in range(40):
        follower = socket.socket(socket.AF_UNIX)
        follower.connect(str(target.control))
        follower.sendall(b"GET /flows?follow=1&limit=8192 HTTP/1.1\r\nHost: x\r\n\r\n")
        made.append(follower)
    answered = asked = 0
    while not over.wait(0.2):
        asked += 1
        with contextlib.suppress(FlowvisError):
            answered += bool(ControlClient(target.control).get("ledger"))
    for each in made:
        each.close()
    return {"asked": asked, "answered": answered, "held": asked == answered}
