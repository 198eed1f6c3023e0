"""Attacks over UDP, where who sends proves nothing: an address may be anybody's.

Whoever takes the very address and port of a good exporter is taken for it: nothing over UDP can
tell, and no attack here does that.
"""

import itertools
import random
import socket
import time
from collections.abc import Iterator
from threading import Event

from benchmarks.attacks import ATTACKER, Findings, Target, attack
from benchmarks.attacks.sessions import HOSTILE, message, redefinitions
from benchmarks.peer import Records, datagrams
from flowvis.ipfix.template import TEMPLATE_SET, FieldSpecifier, Template, write_set, write_template
from flowvis.native.contract.ipfix import FIRST_DATA_SET

RATE = 20_000
"""Datagrams in a second that an address may send."""
PART = 200  # datagrams between two looks at the clock
DOMAINS = 1 << 32
PORTS = 64


@attack("udp-spoofed", datagrams=True)
def spoofed(target: Target, over: Event) -> Findings:
    """Templates and a record, each from another address and port of the whole of 127/8."""
    chance = random.Random(1)
    made = Records(domain=9)
    pieces = datagrams(made.templates()) + made.one_by_one(HOSTILE, range(1))
    sent = 0
    while not over.is_set():
        source = socket.inet_ntoa(bytes([127, *(chance.randrange(1, 255) for _ in range(3))]))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind((source, 0))
            for piece in pieces:
                one.sendto(piece, ("127.0.0.1", target.port))
        sent += 1
    return {"senders": sent}


@attack("udp-templates", datagrams=True)
def templates(target: Target, over: Event) -> Findings:
    """Templates with other fields each time, from many ports of one address."""
    return _flood(target, over, itertools.cycle(datagrams(redefinitions(8))))


@attack("udp-domains", datagrams=True)
def domains(target: Target, over: Event) -> Findings:
    """A template and data of it for each of all observation domains."""
    template = Template(FIRST_DATA_SET, (FieldSpecifier(0, 8, 4), FieldSpecifier(0, 1, 8)))
    sets = write_set(TEMPLATE_SET, write_template(template)) + write_set(FIRST_DATA_SET, bytes(12))
    pieces = (message(sets, domain=number % DOMAINS) for number in itertools.count(1 << 31))
    return _flood(target, over, pieces)


@attack("udp-records", datagrams=True)
def records(target: Target, over: Event) -> Findings:
    """Records of new connections, at the rate that an address may send."""
    return _flood(target, over, _records(), rate=RATE)


@attack("udp-records-unlimited", datagrams=True)
def records_unlimited(target: Target, over: Event) -> Findings:
    """The same as fast as it goes."""
    return _flood(target, over, _records())


def _records() -> Iterator[bytes]:
    """Yield messages of one record for ever, the templates now and then."""
    made = Records(domain=7)
    again = datagrams(made.templates())
    one_by_one = made.one_by_one(HOSTILE, range(500))
    for sequence in itertools.count():
        if sequence % 5000 == 0:
            yield from again
        each = one_by_one[sequence % 500]
        yield b"".join((each[:8], (sequence & 0xFFFFFFFF).to_bytes(4), each[12:]))


def _flood(
    target: Target, over: Event, pieces: Iterator[bytes], rate: float = float("inf")
) -> Findings:
    """Send these from some ports of one address in turn."""
    senders = []
    for _ in range(1 if rate < float("inf") else PORTS):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((ATTACKER, 0))
        one.connect(("127.0.0.1", target.port))
        senders.append(one)
    turn = itertools.cycle(senders)
    sent, refused, began = 0, 0, time.monotonic()
    while not over.is_set():
        for piece in itertools.islice(pieces, PART):
            try:
                next(turn).send(piece)
            except OSError:  # nobody listens, or its buffer is full
                refused += 1
            sent += 1
        over.wait(max(0.0, began + sent / rate - time.monotonic()))
    for one in senders:
        one.close()
    return {"datagrams": sent, "refused": refused}
