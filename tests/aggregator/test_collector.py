import gc
from typing import Any

import pytest

from flowvis.aggregator import collector
from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.collector import (
    FULL_RECORDS,
    LEAST_RECORDS,
    Collector,
)
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlator import Correlator
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.aggregator.exporter_sessions import PAUSE_S, ExporterStream
from flowvis.aggregator.exporters import Exporters, Source
from flowvis.batch import SETTLED, Batch
from flowvis.errors import LimitExceeded, MalformedMessage
from flowvis.fields import EXPORTED
from flowvis.inventory.index import Inventory
from flowvis.ipfix.acknowledgement import frame
from flowvis.ipfix.buffer import DOMAIN
from flowvis.ipfix.exporter import ExporterSession
from flowvis.native.contract.ipfix import MAX_DOMAINS
from flowvis.runtime.ledger import Ledger
from flowvis.transport.server import Peer
from flowvis.transport.session import Answer
from ipfix import wire
from waiting import until

from .harness import connection, exported
from .records import numbered

NOW_MS = 1_800_000_000_000


class Line:
    """Collector, table and a place to look, without sockets; time stands still unless reported."""

    def __init__(self, **table: Any) -> None:
        self.now_ms = NOW_MS
        self.ledger = Ledger()
        collecting = self.ledger.stage("collector")
        correlating = self.ledger.stage("correlator", sources=[collecting])
        self.table = FlowTable(**table)
        self.history = LatestRecords(1_000_000)
        self.correlator = Correlator(
            self.table,
            Completer(Inventory(), lambda: "east", pod_labels=False),
            [self.history],
            correlating,
            tick_s=0.01,
            clock=lambda: self.now_ms,
        )
        self.collector = Collector(self.correlator, collecting)
        self.exporter = ExporterSession(1, EXPORTED)

    def open(self, answer: Answer | None = None) -> ExporterStream:
        session = self.collector.open(Peer("192.0.2.1", 1234, "node-1", answer))
        session.data_received(memoryview(b"".join(self.exporter.templates(1))))
        return session

    def feed(self, session: ExporterStream, batch: Batch) -> None:
        session.data_received(memoryview(b"".join(self.exporter.encode(batch, 1))))
        assert not self.ledger.imbalance()

    async def write(self) -> list[str]:
        """Write what is due; return the source Pods of all records so far."""
        self.collector.flush()
        await self.correlator._write_all(self.table.due)
        assert not self.ledger.imbalance()
        return [
            name for batch in self.history.latest(10**6) for name in batch.texts("sourcePodName")
        ]


def intra(first: int, count: int, **more: Any) -> Batch:
    return exported(*(connection(n) | {"flowType": 1} | more for n in range(first, first + count)))


async def test_few_records_are_handed_on_after_a_moment() -> None:
    line = Line()
    session = line.open()
    line.feed(session, intra(0, 3))
    assert line.ledger.stages["collector"].held() == 3
    await until(lambda: line.ledger.stages["collector"].sent)
    assert line.ledger.stages["collector"].sent == 3
    assert line.ledger.stages["correlator"].held() == 3
    assert await line.write() == ["client-0", "client-1", "client-2"]


async def test_many_records_are_handed_on_at_once() -> None:
    line = Line()
    session = line.open()
    batch = intra(0, 500)
    for _ in range(FULL_RECORDS // 500 + 1):
        line.feed(session, batch)
    assert line.ledger.stages["collector"].sent >= FULL_RECORDS


async def test_of_records_that_cost_much_fewer_are_handed_on_at_once() -> None:
    """Such as connections that use one 5-tuple again and again."""
    line = Line()
    session = line.open()
    line.collector.record_s = 0.001
    line.feed(session, intra(0, 2 * LEAST_RECORDS))
    assert line.ledger.stages["collector"].sent >= LEAST_RECORDS


async def test_what_a_session_counted_stays_after_its_end() -> None:
    line = Line()
    first, second = line.open(), line.open()
    line.feed(first, intra(0, 2))
    first.data_received(memoryview(bytes.fromhex("000a0014000000000000000000000001 00050004")))
    assert first.as_dict() == {
        "peer": "node-1@192.0.2.1:1234",
        "messages": 4,
        "records": 2,
        "lost": first.stats.lost_records,
        "sentAgain": 0,
        "acknowledged": None,
        "waiting": 0,
        "errors": 1,
    }
    first.closed()
    line.feed(second, intra(2, 1))
    totals = line.collector.totals()
    assert (totals.records, totals.malformed["set-id"], totals.gaps) == (3, 1, 2)
    assert list(line.collector.sessions.values()) == [second]


@pytest.mark.parametrize(("length", "named"), [(253, True), (254, False), (16_000, False)])
async def test_a_text_that_no_node_is_called_names_no_session(length: int, named: bool) -> None:
    """It is remembered of each address that a session ever came from."""
    line, name = Line(), "n" * length
    session = line.open()
    line.feed(session, intra(0, 1, sourceNodeName=name, destinationNodeName=name))
    session.closed()
    assert [reporter.named for reporter in line.collector.reporters()] == [name if named else ""]


async def test_records_before_a_broken_message_count() -> None:
    line = Line()
    session = line.open()
    data = b"".join(line.exporter.encode(intra(0, 2), 1))
    with pytest.raises(MalformedMessage):
        session.data_received(memoryview(data + b"\x00\x09\x00\x20" + bytes(28)))
    assert line.ledger.stages["collector"].received == 2
    assert await line.write() == ["client-0", "client-1"]


async def test_the_end_inside_a_message_is_a_fault() -> None:
    session = Line().open()
    session.data_received(memoryview(bytes.fromhex("000a0100")))
    with pytest.raises(MalformedMessage, match="into a message"):
        session.eof()


async def test_texts_stay_right_when_the_table_moves_to_another_string_table() -> None:
    """Sessions go on over a compaction: neither their caches nor live flows may mix codes up."""
    line = Line(compact_bytes=20_000, inactive_timeout_ms=1000, active_timeout_ms=100)
    session = line.open()
    expected = []
    for turn in range(60):
        first = turn * 40
        node = f"node-{turn % 3}" + "x" * 50
        line.feed(session, intra(first, 40, sourceNodeName=node, tcpState="ESTABLISHED"))
        expected += [f"client-{n}" for n in range(first, first + 40)]
        line.now_ms += 500
        assert await line.write() == expected
    assert line.table.stats.compactions > 2
    states = {text for b in line.history.latest(10**6) for text in b.texts("tcpState")}
    assert states == {"ESTABLISHED"}
    nodes = [text for b in line.history.latest(10**6) for text in b.texts("sourceNodeName")]
    assert nodes == [f"node-{turn % 3}" + "x" * 50 for turn in range(60) for _ in range(40)]


class Flood:
    """An exporter of its own address, whose records have texts that nobody else's have."""

    def __init__(self, line: Line, address: str) -> None:
        self.line = line
        self.sent = 0
        self.stream = line.collector.open(Peer(address, 999, "node-9"))
        self.stream.data_received(memoryview(b"".join(line.exporter.templates(1))))

    def pour(self, records: int, size: int = 1500) -> None:
        first = 100_000 + self.sent
        rows = [
            connection(number)
            | {"flowType": 1}
            | {name: f"{number}-{name}-".ljust(size, "x") for name in ("egressName", "egressIP")}
            for number in range(first, first + records)
        ]
        self.sent += records
        self.line.feed(self.stream, exported(*rows))


async def test_a_session_that_fills_the_string_table_loses_texts_and_the_others_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line(text_bytes=4 << 20, active_timeout_ms=100, inactive_timeout_ms=60_000)
    good, flood = line.open(), Flood(line, "192.0.2.66")
    expected = []
    for turn in range(20):
        flood.pour(100)
        line.feed(good, intra(turn * 10, 10))
        expected += [f"client-{number}" for number in range(turn * 10, turn * 10 + 10)]
        line.now_ms += 500
        assert [name for name in await line.write() if name in expected] == expected
        assert line.table.strings.memory_bytes <= 2 << 20
    assert good.stats.refused_texts == 0
    assert flood.stream.stats.refused_texts > 2000
    line.table.add(exported(), line.now_ms)
    assert line.table.stats.refused_texts == flood.stream.stats.refused_texts
    assert len(line.table) == 20 * 110  # every record counts, whatever its texts
    assert "texts were refused" in caplog.text
    assert "192.0.2.66" in caplog.text


async def test_who_filled_the_string_table_has_room_again_when_its_flows_are_gone() -> None:
    line = Line(text_bytes=4 << 20, active_timeout_ms=100, inactive_timeout_ms=1000)
    flood = Flood(line, "192.0.2.66")
    flood.pour(1000)
    assert flood.stream.stats.refused_texts > 1000
    for _ in range(15):
        line.now_ms += 1000
        await line.write()
    flood.pour(1)  # what is refused now is the reason to look what is dead
    await line.write()
    refused = flood.stream.stats.refused_texts
    flood.pour(100)
    assert flood.stream.stats.refused_texts == refused


async def test_another_session_of_the_same_address_has_no_more_room() -> None:
    line = Line(text_bytes=4 << 20)
    first = Flood(line, "192.0.2.66")
    first.pour(1000)
    charged = line.table.strings.charged(1)
    first.stream.closed()
    second = Flood(line, "192.0.2.66")
    second.sent = 5000
    second.pour(1000)
    assert line.table.strings.charged(1) == pytest.approx(charged, abs=100_000)
    assert second.stream.stats.refused_texts > 1900


def unfinished(size: int) -> memoryview:
    """The beginning of a message that is longer."""
    return memoryview(bytes.fromhex("000affff") + bytes(size - 4))


async def test_messages_that_never_become_whole_cost_who_sends_most_of_them() -> None:
    line = Line()
    line.collector.waiting.most = 500_000
    greedy = [line.collector.open(Peer("192.0.2.66", port, "x")) for port in range(20)]
    good = [line.collector.open(Peer(f"192.0.2.{last}", 1, "x")) for last in range(1, 6)]
    ended = []
    for session in greedy:
        try:
            session.data_received(unfinished(40_000))
        except LimitExceeded as error:
            ended.append(error)
            session.closed()
    assert len(ended) == 20 - 500_000 // 40_000
    assert ended[0].reason == "waiting-memory"
    assert "192.0.2.66 has sent 520000 bytes that are not decoded yet" in str(ended[0])
    assert line.collector.waiting.bytes == 480_000
    for session in good:
        session.data_received(unfinished(60_000))  # more than there is room for, and less than he
    assert line.collector.waiting.bytes == 780_000
    with pytest.raises(LimitExceeded, match="at most 83333 now"):
        greedy[0].data_received(memoryview(bytes(1)))
    for session in (*good, *greedy):
        if session.number in line.collector.sessions:
            session.closed()
    assert line.collector.waiting.bytes == 0
    assert not line.collector.waiting


def many_templates(count: int) -> memoryview:
    specifiers = ((0, 7, 2), *((4242, number, 1) for number in range(1, 200)))
    sets = [wire.templates(wire.template(256 + n, *specifiers)) for n in range(count)]
    return memoryview(b"".join(map(wire.message, sets)))


async def test_templates_without_end_cost_who_has_most_of_them() -> None:
    line = Line()
    line.collector.templates.most = 1_000_000
    before = line.collector.memory_bytes()
    greedy = [line.collector.open(Peer("192.0.2.66", port, "x")) for port in range(20)]
    good = [line.open(), line.open()]
    ended = []
    for session in greedy:
        try:
            session.data_received(many_templates(20))
            while session.pending:
                session.go_on()
        except LimitExceeded as error:
            ended.append(error)
            session.closed()
    assert 0 < len(ended) < 20
    assert ended[0].reason == "template-memory"
    assert "templates of 192.0.2.66, or domains, take " in str(ended[0])
    held = sum(session.template_bytes for session in line.collector.sessions.values())
    assert 800_000 < held <= 1_000_000
    assert line.collector.memory_bytes() > before + held
    good.append(line.open())  # there is always room for an exporter's
    for session in good:
        line.feed(session, intra(0, 1))
        session.closed()
    for session in list(line.collector.sessions.values()):
        session.closed()
    assert line.collector.templates.bytes == 0
    assert not line.collector.templates


async def test_a_read_of_many_small_records_is_handed_on_in_parts() -> None:
    line = Line()
    session = line.open()
    wire = bytearray()
    template = bytes.fromhex("0002000c 0400 0001 0004 0001")  # protocolIdentifier, as one byte
    wire += bytes.fromhex("000a 001c 00000001 00000000 00000007") + template
    for sequence in range(4):
        count = 65_000
        head = f"000a {count + 20:04x} 00000001 {sequence * count:08x} 00000007"
        wire += bytes.fromhex(head) + bytes.fromhex(f"0400 {count + 4:04x}") + b"\x06" * count
    session.data_received(memoryview(wire))
    while session.pending:
        session.go_on()
    assert session.stats.records == 260_000
    assert not line.ledger.imbalance()
    assert max(map(len, line.collector.buffer.target.columns)) <= FULL_RECORDS


async def test_records_are_written_in_time_and_all_of_them_at_the_end() -> None:
    line = Line()
    session = line.open()
    await line.correlator.start()
    line.feed(session, intra(0, 3))
    line.feed(session, exported(connection(9)))
    line.collector.flush()
    await until(lambda: len(line.history))
    assert len(line.history) == 3
    await line.correlator.stop()
    assert len(line.history) == 4
    assert line.ledger.stages["correlator"].held() == 0
    assert not line.ledger.imbalance()
    assert line.history.latest(1)[0].texts("clusterId") == ["east"]


@pytest.mark.parametrize(
    ("address", "subject", "apart"),
    [("192.0.2.2", "node-1", True), ("192.0.2.1", "node-2", True), ("192.0.2.1", "node-1", False)],
)
async def test_hosts_of_one_observation_domain(address: str, subject: str, apart: bool) -> None:
    """Neither knows of the other: what tells them apart is where their sessions come from."""
    line = Line()
    sessions = [line.open()]
    sessions.append(line.collector.open(Peer(address, 999, subject)))
    sessions[1].data_received(memoryview(b"".join(line.exporter.templates(1))))
    counted = [10_000, 10_137]
    for session, octets in zip(sessions, counted, strict=True):
        end = line.now_ms - (10_137 - octets)
        more = {"octetTotalCount": octets, "octetDeltaCount": octets, "flowEndMilliseconds": end}
        line.feed(session, exported(connection(1) | {"flowType": 0} | more))
    line.collector.flush()
    row = line.table.flush(line.now_ms)
    assert row["octetDeltaCount"].tolist() == [10_137]
    assert row["originalFlowsPresent"].tolist() == [2 if apart else 1]
    expected = [10_000] if apart else [10_137]
    assert row["octetTotalCountFromSourceNode"].tolist() == expected
    assert line.collector.exporters.stats.known == 1 + apart


async def test_a_destination_that_fails_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing:
        def put(self, batch: Batch) -> None:
            raise RuntimeError(f"a defect at {len(batch)} records")

    line = Line()
    line.correlator._destinations = [Failing(), line.history, Failing()]
    line.feed(line.open(), intra(0, 3))
    assert len(await line.write()) == 3
    assert caplog.text.count("3 records are set apart") == 1  # both of a kind, within a minute
    assert "handing over to Failing: RuntimeError: a defect at 3 records" in caplog.text


async def test_a_session_that_only_makes_work_is_slowed_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Said once, by its address, and over when records come."""
    line = Line()
    session = line.open()
    stranger = bytes.fromhex("000a0014000000000000000000000001 01f40004") * 100
    for _ in range(300):
        session.data_received(memoryview(stranger))
        while session.pending:
            session.go_on()
    assert session.pause_s > 0
    assert line.collector.totals().fruitless == 1
    (said,) = [each for each in caplog.records if "slowed down" in each.getMessage()]
    assert said.peer == "192.0.2.1"  # type: ignore[attr-defined]
    line.feed(session, numbered(0, 1))
    assert session.pause_s == 0.0
    session.closed()


async def test_records_cost_their_session_what_handing_them_on_will() -> None:
    line = Line()
    many, one = line.open(), line.open()
    messages = b"".join(line.exporter.encode(numbered(0, 500), 1))
    assert many.data_received(memoryview(messages)) == pytest.approx(500 * collector.RECORD_S)
    line.collector.record_s = 0.00005
    assert one.data_received(memoryview(messages)) == pytest.approx(0.025)
    before = line.collector.handed_s
    line.collector.flush()
    assert line.collector.handed_s > before
    many.closed()
    one.closed()


async def test_an_exporter_that_listens_is_told_what_is_durable() -> None:
    line = Line()
    said: list[bytes] = []
    session, other = line.open(said.append), line.open()
    assert (session.acknowledged, other.acknowledged) == (True, False)
    line.feed(session, intra(0, 5))
    assert session.taken() == 5
    session.acknowledge(3)
    session.acknowledge(2)
    session.acknowledge(3)
    session.acknowledge(5)
    other.acknowledge(1)
    assert said == [frame(1, 3), frame(1, 5)]
    with pytest.raises(ValueError, match="6 records acknowledged, 5 came"):
        session.acknowledge(6)


async def test_what_is_in_no_store_yet_is_not_acknowledged() -> None:
    """Not when it is taken in, not when it is written: when it is committed."""
    line = Line(active_timeout_ms=1000, inactive_timeout_ms=1000)
    marks = [SETTLED]
    line.correlator._undelivered = lambda: marks[0]
    said: list[bytes] = []
    session = line.open(said.append)
    line.feed(session, intra(0, 5))
    line.collector.flush()
    settle(line)
    assert said == []
    line.now_ms += 3000
    marks[0] = 1  # a destination has what is written now
    await line.write()
    settle(line)
    assert said == []
    marks[0] = SETTLED
    settle(line)
    assert said == [frame(1, 5)]


def settle(line: Line) -> None:
    line.correlator.settle()


async def test_who_sends_again_is_known_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the buffer has records that may have come before; with sessions of both kinds."""
    line = Line()
    repeating: list[tuple[bool, bool]] = []
    add = line.correlator.add

    def noted(batch: Batch) -> int:
        sources = [line.collector.exporters.source(n) for n in set(batch[DOMAIN].tolist())]
        repeating.append((any(source.may_repeat for source in sources), len(batch) > 0))
        return add(batch)

    with monkeypatch.context() as patched:
        patched.setattr(line.correlator, "add", noted)
        session = line.open(lambda _: None)
        session.data_received(memoryview(b"".join(line.exporter.sent_again(5, 1))))
        for count in (2, 2):
            line.feed(session, intra(0, count))
            line.collector.flush()
        line.feed(session, intra(0, 1))
        line.feed(session, intra(0, 7))  # in one buffer with the last that may come again
        line.collector.flush()
        line.feed(session, intra(0, 1))
        line.collector.flush()
    assert repeating == [(True, True), (True, True), (True, True), (False, True)]
    assert session.stats.sent_again == 5


async def test_a_session_ends_with_records_in_the_buffer_that_may_repeat() -> None:
    line = Line()
    session = line.open(lambda _: None)
    session.data_received(memoryview(b"".join(line.exporter.sent_again(5, 1))))
    line.feed(session, intra(0, 3))
    (number,) = set(line.collector.buffer.batch()[DOMAIN].tolist())
    session.closed()
    assert line.collector.exporters.source(number).may_repeat
    line.collector.flush()
    assert not line.collector.exporters.source(number).may_repeat


async def test_a_session_that_acknowledges_has_one_domain() -> None:
    line = Line()
    session = line.open(lambda _: None)
    other = ExporterSession(2, EXPORTED)
    session.data_received(memoryview(b"".join(other.templates(1) + other.encode(intra(0, 2), 1))))
    assert session.taken() == 0
    assert session.stats.malformed["second-domain"] == 2
    assert line.collector.exporters.stats.known == 1  # who is refused costs nobody a number
    line.feed(session, intra(0, 2))
    assert session.taken() == 2


async def test_domains_without_end_cost_a_session_no_memory() -> None:
    line = Line()
    line.collector.exporters = Exporters(capacity=8)
    session = line.collector.open(Peer("198.51.100.77", 1234))
    ports = wire.templates(wire.template(256, (wire.IANA, 7, 2)))
    gone = wire.templates(wire.withdrawal(256))
    for domain in range(4 * MAX_DOMAINS):
        session.data_received(memoryview(wire.message(ports, gone, domain=domain)))
        while session.pending:
            session.go_on()
    assert session.stats.templates_withdrawn == 4 * MAX_DOMAINS
    sources = (one for one in gc.get_objects() if isinstance(one, Source))
    held = [one for one in sources if one.address == "198.51.100.77"]
    assert len(held) <= MAX_DOMAINS + 8


async def test_an_exporter_whose_number_was_forgotten_is_known_again() -> None:
    line = Line()
    line.collector.exporters = exporters = Exporters(capacity=1)
    session = line.open(lambda _: None)
    number = exporters.number(session.peer, 1)
    assert exporters.keeps(number)
    exporters.number(Peer("192.0.2.2", 1, "other"), 1)
    assert not exporters.keeps(number)
    changed = wire.template(256, (wire.IANA, 7, 2))  # any that is not there yet
    session.data_received(memoryview(wire.message(wire.templates(changed), domain=1)))
    assert exporters.keeps(number)


async def test_the_more_sessions_wait_for_the_store_the_longer_each_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else thousands of them take all time there is, looking in vain."""
    line = Line()
    session = line.open()
    line.feed(session, intra(0, 3))
    assert session.pause_s == 0
    monkeypatch.setattr(Correlator, "full", True)
    assert line.collector.holds
    assert session.pause_s == PAUSE_S
    for port in range(1, 3000):
        line.collector.open(Peer("192.0.2.2", port))
    assert 1000 <= 3000 / session.pause_s <= 3000, "so many look in a second"
    monkeypatch.setattr(Correlator, "full", False)
    assert session.pause_s == 0
