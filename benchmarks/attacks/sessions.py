"""Sessions with a valid certificate that make work."""

import itertools
import ssl
import threading
from collections.abc import Callable
from threading import Event

from benchmarks.attacks import ATTACKER, Findings, Target, attack
from benchmarks.peer import Records, connect, context
from flowvis.ipfix.template import TEMPLATE_SET, FieldSpecifier, Template, write_set, write_template
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, VERSION

FIELDS = 240
FLOOD = 500  # connections of each session, reported again and again
HOSTILE = b"\x0a\x60"  # 10.96


def _together(count: int, work: Callable[[int], None]) -> None:
    """Do the work in so many threads; return when all are through."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def message(*sets: bytes, domain: int = 5) -> bytes:
    """One message of IPFIX with sequence number 0."""
    body = b"".join(sets)
    return HEADER.pack(VERSION, HEADER.size + len(body), 0, 0, domain) + body


def redefinitions(count: int = 32) -> bytes:
    """So many messages in which few templates have other fields each time."""
    layouts = itertools.count()
    messages = []
    for _ in range(count):
        templates = []
        for template_id in range(FIRST_DATA_SET, FIRST_DATA_SET + 60):
            number = next(layouts)
            fields = tuple(
                FieldSpecifier(0, 1 + (number + at * (1 + number % 7)) % 400, 4)
                for at in range(FIELDS)
            )
            templates.append(write_template(Template(template_id, fields)))
        messages.append(message(write_set(TEMPLATE_SET, b"".join(templates))))
    return b"".join(messages)


@attack("templates-redefined")
def templates_redefined(target: Target, over: Event) -> Findings:
    """4 sessions that define their templates anew, with other fields, as fast as they may."""
    data, tls, sent = redefinitions(), context(target.directory), itertools.count()

    def redefine(_: int) -> None:
        while not over.is_set():
            try:
                with connect(target.port, tls, ATTACKER, patience_s=2) as session:
                    while not over.is_set():
                        _send(session, data, over)
                        next(sent)
            except OSError:
                over.wait(0.1)

    _together(4, redefine)
    return {"templates": next(sent) * 32 * 60}


def _send(session: ssl.SSLSocket, data: bytes, over: Event) -> None:
    """Send a lot, but no longer than the attack goes on."""
    for at in range(0, len(data), 1 << 14):
        if over.is_set():
            return
        session.sendall(data[at : at + (1 << 14)])


@attack("one-record-messages")
def one_record_messages(target: Target, over: Event) -> Findings:
    """A flood of messages of one record, each a TLS record of its own, from two sessions."""
    tls, sent = context(target.directory), itertools.count()

    def flood(number: int) -> None:
        domain = 6 + number
        made = Records(domain)
        templates = made.templates()
        one_by_one = made.one_by_one(HOSTILE, range(FLOOD), sourceTransportPort=domain)
        while not over.is_set():
            try:
                with connect(target.port, tls, ATTACKER, patience_s=2) as session:
                    session.sendall(templates)
                    for sequence, each in enumerate(itertools.cycle(one_by_one)):
                        if over.is_set():
                            break
                        session.sendall(b"".join((each[:8], sequence.to_bytes(4), each[12:])))
                        next(sent)
            except OSError:
                over.wait(0.1)

    _together(2, flood)
    return {"messages": next(sent)}
