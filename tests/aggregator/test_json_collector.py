"""JSON to an external collector, as a reader of lines takes it: over TCP and TLS."""

import asyncio
import json
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flowvis.aggregator.destinations import flow_collector
from flowvis.aggregator.destinations import json_lines as json_lines_module
from flowvis.aggregator.destinations.flow_collector import RecordFormat
from flowvis.aggregator.destinations.ipfix import IpfixDestination
from flowvis.aggregator.destinations.json_lines import AT_ONCE_BYTES, _Lines, json_lines
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.destinations.outlets import Outlets
from flowvis.aggregator.destinations.sending import CollectorDestination
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.backlog import UNBOUNDED
from flowvis.delivery.queue import Queue
from flowvis.fields import AGGREGATED, Kind
from flowvis.runtime.ledger import Ledger, Stage
from flowvis.transport import client as client_module
from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from waiting import until

from .records import numbered, records
from .test_collector_options import chosen

SOME = {
    "sourceIP": "10.0.0.1", "destinationIP": "10.0.0.2", "destinationServiceIP": "10.96.0.1",
    "flowEndSeconds": 1_706_702_400, "octetTotalCount": 2**64 - 1, "protocolIdentifier": 6,
    "sourcePodName": 'a "b"\\\n\u2028größe\x00', "sourcePodLabels": '{"app":"web"}',
    "tcpState": "ESTABLISHED",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's first messages are waited after for a moment only."""
    monkeypatch.setattr(client_module, "PROOF_S", 0.05)


class Reader:
    """What a collector such as Logstash does with its codec json_lines."""

    def __init__(self, cut_after: int | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.cut_after = cut_after
        """After how many lines it ends the session, once."""
        self.sessions = self.ended = 0
        self.peer: Any = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        self.peer = writer.get_extra_info("ssl_object")
        while (line := await reader.readline()).endswith(b"\n"):
            self.events.append(json.loads(line))
            if len(self.events) == self.cut_after:
                break
        writer.close()
        self.ended += 1

    def numbers(self) -> list[int]:
        return [event["ipfix"]["octetTotalCount"] for event in self.events]


@asynccontextmanager
async def listening(reader: Reader, tls: ssl.SSLContext | None = None, port: int = 0) -> Any:
    server = await asyncio.start_server(reader.serve, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def made(section: Any, stage: Stage) -> CollectorDestination:
    place = Place(stage, 1 << 24, Surroundings(1.0, 1 << 30, lambda: 7))
    return flow_collector.make(section, place, None)


def test_the_form_of_a_line() -> None:
    batch = records({"sourceIP": "fd00::1"}, SOME)
    one, other = (json.loads(line) for line in json_lines(batch, AGGREGATED, 1_706_702_400))
    assert list(one) == ["ipfix", "@timestamp"]
    assert one["@timestamp"] == "2024-01-31T12:00:00Z"
    assert list(one["ipfix"]) == [field.element(4) for field in AGGREGATED]
    assert list(other["ipfix"]) == [field.element(6) for field in AGGREGATED]
    found = one["ipfix"]
    assert found["sourceIPv4Address"] == "10.0.0.1"
    assert found["destinationServiceIPv4"] == "10.96.0.1"
    assert found["proxySnatIPv4"] == "0.0.0.0"
    assert found["flowEndSeconds"] == 1_706_702_400
    assert found["octetTotalCount"] == 2**64 - 1
    assert found["sourcePodName"] == SOME["sourcePodName"]
    assert found["sourcePodLabels"] == '{"app":"web"}'
    assert (found["destinationPodName"], found["octetDeltaCount"]) == ("", 0)
    assert (other["ipfix"]["sourceIPv6Address"], other["ipfix"]["proxySnatIPv6"]) == (
        "fd00::1",
        "::",
    )


def test_ends_of_both_families_are_elements_of_ipv6() -> None:
    batch = records({"sourceIP": "10.0.0.1", "destinationIP": "2001:db8::5"}, fields=AGGREGATED)
    (line,) = json_lines(batch, AGGREGATED, 0)
    found = json.loads(line)["ipfix"]
    ends = found["sourceIPv6Address"], found["destinationIPv6Address"]
    assert ends == ("10.0.0.1", "2001:db8::5")


def test_a_line_has_one_line_feed_and_what_is_missing_is_empty() -> None:
    batch = records(SOME, SOME).select(["sourceIP", "sourcePodName"])
    lines = list(json_lines(batch, AGGREGATED, 0))
    assert [line.count(b"\n") for line in lines] == [1, 1]
    found = json.loads(lines[1])["ipfix"]
    assert (found["tcpState"], found["octetTotalCount"]) == ("", 0)
    assert found["destinationIPv4Address"] == "0.0.0.0"


async def test_each_record_is_a_line_over_tcp() -> None:
    reader, stage = Reader(), Stage("ipfix")
    async with listening(reader) as port:
        sink = made(chosen(port, "tcp", recordFormat="JSON"), stage)
        await sink.start()
        for first in range(0, 1200, 400):
            sink.put(numbered(first, 400))
        await until(lambda: len(reader.events) == 1200)
        await sink.stop()
    assert reader.numbers() == list(range(1200))
    assert (stage.sent, stage.dropped, stage.imbalance) == (1200, {}, 0)
    moment = datetime.fromisoformat(reader.events[0]["@timestamp"])
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60


async def test_over_tls_with_a_client_certificate_and_the_documented_options(
    tmp_path: Path,
) -> None:
    ca = issue_ca()
    ca.write(tmp_path, "ca")
    issue_server(ca, ["logs.example"]).write(tmp_path, "server")
    issue_client(ca, "aggregator").write(tmp_path, "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "ca.crt")
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    tls = {
        "enable": True, "caSecretName": "ca", "clientSecretName": "client",
        "directory": str(tmp_path), "serverName": "logs.example", "minVersion": "VersionTLS13",
    }  # fmt: skip
    reader, stage = Reader(), Stage("ipfix")
    async with listening(reader, context) as port:
        sink = made(chosen(port, "tcp", recordFormat="JSON", tls=tls), stage)
        await sink.start()
        sink.put(records(SOME))
        await until(lambda: len(reader.events) == 1)
        assert reader.peer.version() == "TLSv1.3"
        assert "aggregator" in str(reader.peer.getpeercert()["subject"])
        await sink.stop()
    assert reader.events[0]["ipfix"]["sourcePodName"] == SOME["sourcePodName"]


async def test_records_of_a_session_that_never_left_go_again() -> None:
    reader, stage = Reader(cut_after=50), Stage("ipfix")
    async with listening(reader) as port:
        sink = made(chosen(port, "tcp", recordFormat="JSON"), stage)
        await sink.start()
        sink.put(numbered(0, 50))
        await until(lambda: reader.sessions == 2)
        sink.put(numbered(50, 50))
        await until(lambda: len(reader.events) >= 100)
        await sink.stop()
    assert sorted(set(reader.numbers())) == list(range(100))
    assert stage.imbalance == 0
    assert stage.sent == 100


async def test_what_waits_goes_on_in_the_other_format_when_that_is_changed() -> None:
    reader, ledger = Reader(), Ledger()
    source = ledger.stage("source")
    surroundings = Surroundings(0.1, 1 << 30, lambda: 7)
    outlets = Outlets([flow_collector.KIND], ledger, source, surroundings, 1 << 24)
    outlets.begin(AggregatorSettings(flow_collector=chosen(9, "tcp")))
    await outlets.start()
    assert isinstance(outlets.current("ipfix"), IpfixDestination)
    (outlet,) = outlets
    source.received = source.sent = 30
    outlet.put(numbered(0, 30))
    async with listening(reader) as port:
        section = chosen(port, "tcp", recordFormat="JSON")
        assert section.record_format is RecordFormat.JSON
        await outlets.apply(AggregatorSettings(flow_collector=section))
        await until(lambda: len(reader.events) == 30)
        await outlets.stop()
    assert reader.numbers() == list(range(30))
    assert ledger.imbalance() == {}


def test_lines_of_long_texts_are_made_a_few_at_a_time() -> None:
    """Texts are in memory once; as lines, of which each character takes six, they would fill it."""
    text = "\x01" * 16_000
    long = {field.name: text for field in AGGREGATED if field.kind is Kind.TEXT}
    batch, stage = (
        records(*(long | {"octetTotalCount": number} for number in range(12))),
        Stage("x"),
    )
    queue, found = Queue(stage, 1000), []
    queue.put(batch)
    lines = _Lines(AGGREGATED, lambda: 1, UNBOUNDED)
    while lines.left or queue.waiting:
        messages = lines.next_messages(queue)
        found += [json.loads(message)["ipfix"]["octetTotalCount"] for message in messages]
        assert sum(map(len, messages[:-1])) <= AT_ONCE_BYTES
        queue.sent(queue.taken - lines.left)
        assert stage.sent == len(found)
    assert found == list(range(12))
    assert len(messages[0]) > 1_500_000


def test_of_lines_a_few_at_a_time_those_that_fit_no_datagram_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_lines_module, "AT_ONCE_BYTES", 12_000)
    stage, found = Stage("x"), []
    queue = Queue(stage, 1000)
    long = {3, 4, 5, 6, 17, 29}
    queue.put(
        records(
            *(
                {"octetTotalCount": number, "sourcePodName": "x" * (9000 if number in long else 9)}
                for number in range(30)
            )
        )
    )
    lines = _Lines(AGGREGATED, lambda: 1, 8000)
    times = 0
    while lines.left or queue.waiting:
        times += 1
        messages = lines.next_messages(queue)
        found += [json.loads(message)["ipfix"]["octetTotalCount"] for message in messages]
        if times == 3:  # the session is lost, and the last of these never left
            queue.sent(queue.taken - lines.left - 1)
            queue.begin()
            found.pop()
            lines = _Lines(AGGREGATED, lambda: 1, 8000)
        else:
            queue.sent(queue.taken - lines.left)
    assert times > 5
    assert found == [number for number in range(30) if number not in long]
    assert (stage.sent, stage.dropped, stage.imbalance) == (24, {"oversize": 6}, 0)


async def test_all_records_leave_however_few_lines_are_made_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_lines_module, "AT_ONCE_BYTES", 5000)
    reader, stage = Reader(cut_after=50), Stage("ipfix")
    async with listening(reader) as port:
        sink = made(chosen(port, "tcp", recordFormat="JSON"), stage)
        sink.put(numbered(0, 700))
        await sink.start()
        await until(lambda: 699 in reader.numbers())
        await sink.stop()
    assert reader.sessions == 2
    assert reader.numbers()[50:] == sorted(set(reader.numbers()[50:]))
    assert (stage.sent, stage.dropped, stage.imbalance) == (700, {}, 0)


async def test_over_udp_each_datagram_is_a_line() -> None:
    receiver = socket.socket(type=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    stage = Stage("ipfix")
    sink = made(chosen(receiver.getsockname()[1], "udp", recordFormat="JSON"), stage)
    await sink.start()
    long = {"sourceIP": "10.0.0.1", "octetTotalCount": 2, "sourcePodLabels": "x" * 9000}
    too_long = {field.name: "\u00df" * 1500 for field in AGGREGATED if field.kind is Kind.TEXT}
    sink.put(records(SOME | {"octetTotalCount": 1}, too_long, long))
    sink.put(records(SOME | {"octetTotalCount": 3}))
    await until(lambda: stage.sent == 3)
    lines = [receiver.recv(1 << 16) for _ in range(3)]
    receiver.close()
    await sink.stop()
    assert all(line.endswith(b"}\n") for line in lines)
    events = [json.loads(line)["ipfix"] for line in lines]
    assert [event["octetTotalCount"] for event in events] == [1, 2, 3]
    assert events[1]["sourcePodLabels"] == "x" * 9000
    assert (stage.dropped, stage.imbalance) == ({"oversize": 1}, 0)
