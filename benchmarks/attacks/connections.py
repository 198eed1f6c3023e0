"""Connections that say nothing: they cost their owner a descriptor, and others their place."""

import contextlib
import selectors
import socket
from threading import Event

from benchmarks.attacks import ATTACKER, Findings, Target, attack

LOOK_S = 0.05


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
