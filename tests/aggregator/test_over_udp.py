"""Exporters that send over UDP, to a real aggregator."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from flowvis.fields import EXPORTED
from flowvis.ipfix.exporter import ExporterSession
from flowvis.transport.address import CollectorAddress
from flowvis.transport.client import Client
from ipfix import wire
from waiting import block_until

from .harness import Aggregator, connection, exported, running, send

SETTINGS = {"aggregatorTransportProtocol": "UDP", "correlationTimeout": "1s"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aggregator]:
    """One for all tests, the last of which stops it."""
    with running(tmp_path_factory.mktemp("aggregator"), SETTINGS) as aggregator:
        yield aggregator


@dataclass
class Since:
    """The aggregator, with its metrics since the test began."""

    aggregator: Aggregator
    before: dict[str, float]

    def metric(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric is as given."""
        inner = ",".join(f'{key}="{label}"' for key, label in labels.items())
        full = f"flowvis_aggregator_{name}" + (f"{{{inner}}}" if labels else "")

        def now() -> float:
            return self.aggregator.metrics().get(full, 0.0) - self.before.get(full, 0.0)

        def state() -> str:
            return f"{full}: {now()}, not {value}\n{self.aggregator.log()}"

        block_until(lambda: now() == value, state)

    def received(self, count: int) -> None:
        """Wait until so many records have come, and no more."""
        self.metric("ipfix_records_total", count)


@pytest.fixture
def since(started: Aggregator) -> Since:
    return Since(started, started.metrics())


@contextlib.contextmanager
def sender(aggregator: Aggregator) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", aggregator.port))
        yield sock


def messages(count: int, first: int = 0) -> list[bytes]:
    """Templates, and connections in messages of one record."""
    session = ExporterSession(7, EXPORTED, max_message=600)
    found = session.templates(1_790_000_000)
    for number in range(first, first + count):
        found += session.encode(exported(connection(number)), 1_790_000_000)
    return found


def test_what_is_lost_on_the_way_is_counted_and_what_is_late_is_not(since: Since) -> None:
    sent = messages(100)
    sent[20], sent[21] = sent[21], sent[20]
    del sent[50:57], sent[90]
    with sender(since.aggregator) as sock:
        for message in sent:
            sock.send(message)
        since.metric("ipfix_lost_records_total", 8)
        since.metric("ipfix_late_records_total", 1)
    since.aggregator.logged("8 records are missing, by the sequence numbers")
    since.received(92)
    sessions = since.aggregator.control.get("status")["sessions"]
    assert [each["lost"] for each in sessions if each["records"] == 92] == [8]


def test_what_is_no_message_ends_nothing(since: Since) -> None:
    good = messages(30, 1000)
    with sender(since.aggregator) as sock, sender(since.aggregator) as other:
        for at, message in enumerate(good):
            sock.send(message)
            for noise in (b"", b"\0\x0a", b"\0\x09" + bytes(60), message[:-1], bytes(1400)):
                (sock if at % 2 else other).send(noise)
        since.metric("server_datagrams_total", 6 * len(good))
        since.metric("ipfix_malformed_total", 3 * len(good), reason="message-length")
        since.metric("ipfix_malformed_total", 2 * len(good), reason="version")
    since.received(30)
    since.aggregator.logged("the peer speaks NetFlow 9, and this port takes IPFIX")


def test_a_template_is_of_its_session_and_domain(since: Since) -> None:
    """The same number means another template in each (RFC 7011 section 8.4)."""
    ports, octets = wire.template(256, (0, 7, 2)), wire.template(256, (0, 1, 4), (0, 152, 8))
    with sender(since.aggregator) as one, sender(since.aggregator) as other:
        one.send(wire.message(wire.templates(ports), domain=1))
        one.send(wire.message(wire.templates(octets), domain=2))
        one.send(wire.message(wire.set_of(256, b"\0\x50" * 6), domain=1))
        one.send(wire.message(wire.set_of(256, bytes(12) * 6), domain=2))
        other.send(wire.message(wire.set_of(256, b"\0\x50" * 6), domain=1))
        since.metric("ipfix_malformed_total", 1, reason="no-template")
    since.received(12)


def test_what_our_exporter_sends_arrives_and_a_stop_loses_none(since: Since) -> None:
    aggregator = since.aggregator
    address = CollectorAddress("127.0.0.1", aggregator.port, "udp")
    before = aggregator.books()["collector"]["received"]
    batches = [exported(*(connection(500 * at + n) for n in range(500))) for at in range(4)]
    assert not asyncio.run(send(Client(address), batches))  # nobody confirms
    since.received(2000)
    since.metric("ipfix_lost_records_total", 0)
    since.metric("server_sessions_total", 1)
    aggregator.settled(before + 2000)
    assert aggregator.stop() == 0
    assert "level=error" not in aggregator.log()
