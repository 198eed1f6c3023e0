import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from clickhouse.samples import flows
from clickhouse.test_writer import Moody
from flowvis.aggregator.destinations.ipfix import IpfixDestination
from flowvis.batch import Batch
from flowvis.clickhouse.writer import Writer
from flowvis.delivery.outlet import Outlet
from flowvis.errors import StoreError
from flowvis.fields import AGGREGATED
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.native import StringTable
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Ledger
from flowvis.transport.address import CollectorAddress
from flowvis.transport.client import Client
from waiting import PATIENCE_S, until

from .records import numbered
from .test_ipfix_destination import Collector

GONE = StoreError("gone", retryable=True)


class Source:
    """A stage that sends what the test says, and the ledger that must balance at any moment."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.stage = self.ledger.stage("source")

    def put(self, outlet: Outlet[Writer] | Outlet[IpfixDestination], batch: Batch) -> None:
        self.stage.received += len(batch)
        try:
            outlet.put(batch)
        finally:
            self.stage.sent += len(batch)
            self.check()

    def check(self) -> None:
        assert self.ledger.imbalance() == {}, self.ledger.as_dict()


class Stores(Source):
    """A way out to stores."""

    def __init__(self) -> None:
        super().__init__()
        self.outlet: Outlet[Writer] = Outlet("clickhouse", self.ledger, self.stage)
        self.grace_s = 0.3

    def writer(self, store: Moody, before: Writer | None = None, **options: Any) -> Writer:
        return Writer(
            store, self.outlet.stage, commit_interval_s=0.02, grace_s=self.grace_s,
            stats=before.stats if before else None, **options,
        )  # fmt: skip

    def send(self, count: int = 10) -> None:
        self.put(self.outlet, flows(count))

    async def to(self, store: Moody | None, **options: int) -> None:
        def make(before: Writer | None) -> Writer | None:
            return self.writer(store, before, **options) if store is not None else None

        await self.outlet.replace(make)
        self.check()

    async def settled(self) -> None:
        await until(lambda: self.outlet.former is None)
        self.check()

    async def sent(self, total: int) -> None:
        """Wait until the writers have accounted for so many, which is after they are stored."""
        await until(lambda: self.outlet.stage.sent == total)


def stored(*stores: Moody) -> int:
    return sum(len(batch) for store in stores for batch in store.stored.values())


async def test_one_store_after_the_other() -> None:
    line, one, two = Stores(), Moody(), Moody()
    line.outlet.begin(line.writer(one))
    await line.outlet.start()
    line.send()
    await line.to(two)
    line.send()
    await line.settled()
    assert one.closed
    await line.sent(20)
    line.check()
    assert (stored(one), stored(two)) == (10, 10)
    assert line.outlet.current is not None
    assert line.outlet.current.stats.commits == 2  # one count over all of them
    await line.outlet.stop()
    assert two.closed


async def test_off_and_on() -> None:
    line, store = Stores(), Moody()
    await line.outlet.start()
    line.send()
    assert "clickhouse" not in line.ledger.stages
    await line.to(store)
    await line.settled()
    line.send()
    await until(lambda: stored(store) == 10)
    await line.to(None)
    line.send()
    await line.settled()
    line.send()
    await line.to(None)
    await line.to(again := Moody())
    line.send()
    await line.sent(20)
    assert stored(again) == 10
    line.check()
    stage = line.outlet.stage
    assert (stage.received, stage.sent, stage.dropped) == (20, 20, {})
    await line.outlet.stop()


async def test_what_one_store_does_not_take_goes_to_the_next_under_its_id() -> None:
    line, one, two = Stores(), Moody(), Moody()
    one.error = GONE
    line.outlet.begin(line.writer(one))
    await line.outlet.start()
    line.send()
    await until(lambda: one.calls)
    line.send(5)  # waits behind what was tried
    await line.to(two)
    line.send(3)
    assert line.outlet.held() == 18
    await line.settled()
    await line.sent(18)
    assert stored(two) == 18
    line.check()
    (_, tried, _), *_ = one.calls
    assert two.calls[0] == (10, tried, True)
    assert (line.outlet.stage.sent, line.outlet.stage.dropped) == (18, {})
    assert line.outlet.current is not None
    assert line.outlet.current.problem == ""
    await line.outlet.stop()


async def test_what_has_no_room_in_the_next_is_counted() -> None:
    line, one, two = Stores(), Moody(), Moody()
    one.migrate_error = GONE
    line.outlet.begin(line.writer(one))
    await line.outlet.start()
    line.send(50)
    await line.to(two, max_pending=20)
    await line.settled()
    await until(lambda: stored(two) == 20)
    assert line.outlet.stage.dropped == {OutgoingDropped.QUEUE_FULL: 30}
    await line.outlet.stop()


async def test_what_is_left_at_the_end_is_counted() -> None:
    line, store = Stores(), Moody()
    store.error = GONE
    line.outlet.begin(line.writer(store))
    await line.outlet.start()
    line.send()
    await line.to(None)
    await line.settled()
    assert line.outlet.stage.dropped == {OutgoingDropped.SHUTDOWN: 10}


async def test_changes_that_follow_each_other_closely() -> None:
    line, one, two, three = Stores(), Moody(), Moody(), Moody()
    one.error = two.error = GONE
    line.outlet.begin(line.writer(one))
    await line.outlet.start()
    line.send()
    await line.to(two)
    line.send()
    await line.to(three)
    line.send()
    await line.settled()
    await until(lambda: stored(three) == 30)
    line.check()
    await line.outlet.stop()


async def test_a_stop_does_not_wait_for_the_one_before() -> None:
    line, one, two = Stores(), Moody(), Moody()
    line.grace_s = 3600
    one.error = GONE
    line.outlet.begin(line.writer(one))
    await line.outlet.start()
    line.send()
    await until(lambda: one.calls)
    await line.to(two)
    line.send()
    await asyncio.wait_for(line.outlet.stop(), PATIENCE_S)
    assert stored(two) == 20
    line.check()


@pytest.mark.parametrize("counted", [True, False], ids=["received", "not received"])
async def test_one_that_fails_costs_its_own_records_only(
    counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, store = Stores(), Moody()
    line.outlet.begin(line.writer(store))
    await line.outlet.start()
    writer = line.outlet.current
    assert writer is not None

    def put(batch: Batch) -> None:
        writer.stage.received += len(batch) * counted
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(writer, "put", put)
        with pytest.raises(RuntimeError, match="a defect"):  # for who gives to all of them
            line.send()
    line.send()
    await line.sent(10)
    line.check()
    assert line.outlet.stage.dropped == {"failed": 10}
    await line.outlet.stop()


async def test_one_that_cannot_be_made_changes_nothing() -> None:
    line, store = Stores(), Moody()
    line.outlet.begin(line.writer(store))
    await line.outlet.start()

    def refuse(before: Writer | None) -> Writer | None:
        raise GONE

    with pytest.raises(StoreError):
        await line.outlet.replace(refuse)
    line.send()
    await until(lambda: stored(store) == 10)
    await line.outlet.stop()


class Collectors(Source):
    """A way out to collectors."""

    def __init__(self) -> None:
        super().__init__()
        self.outlet: Outlet[IpfixDestination] = Outlet("ipfix", self.ledger, self.stage)

    def to(self, port: int, domain: int = 7) -> Callable[[object], IpfixDestination]:
        def make(_: object) -> IpfixDestination:
            client = Client(CollectorAddress("127.0.0.1", port, "tcp"), backoff=Backoff(0.02, 0.1))
            return IpfixDestination(
                client, self.outlet.stage, domain=lambda: domain, capacity=200_000,
                max_message=1400, grace_s=0.3,
            )  # fmt: skip

        return make


def read_all(session: socket.socket) -> tuple[list[int], int]:
    """The whole records of a session that nobody read until now, and the gaps in their numbers."""
    buffer = RecordBuffer(AGGREGATED, StringTable())
    decoder = CollectorSession("aggregator", buffer)
    session.settimeout(PATIENCE_S)
    with session:
        while data := session.recv(1 << 16):
            decoder.receive(data)
    return buffer.batch()["octetTotalCount"].tolist(), decoder.stats.lost_records


@pytest.mark.parametrize("domain", [7, 8])
async def test_what_a_stuck_collector_has_not_taken_goes_to_the_next(domain: int) -> None:
    """Each record reaches one of the two whole, and only that one."""
    count = 60_000
    line, collector = Collectors(), Collector()
    await collector.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.outlet.begin(line.to(listener.getsockname()[1])(None))
        await line.outlet.start()
        line.put(line.outlet, numbered(0, 1000))  # which the kernel has room for
        stuck, _ = await asyncio.to_thread(listener.accept)
        await until(lambda: line.outlet.stage.sent == 1000)
        for first in range(1000, count, 1000):
            line.put(line.outlet, numbered(first, 1000))
        await asyncio.sleep(0.2)  # time for all, were it not stuck
        assert line.outlet.stage.sent < count
        await line.outlet.replace(line.to(collector.port, domain=domain))
        line.put(line.outlet, numbered(count, 10))
        await until(lambda: line.outlet.stage.sent == count + 10)
        line.check()
        taken, gaps = await asyncio.to_thread(read_all, stuck)
    await line.outlet.stop()
    await collector.stop()
    assert gaps == 0
    assert 0 < len(taken) < count
    assert taken + collector.numbers() == list(range(count + 10))
    assert [session.stats.lost_records for session in collector.sessions] == [0]


async def test_what_a_stuck_collector_has_at_the_end_is_sent_and_only_the_rest_given_up() -> None:
    """Of the records under way as it stops: the next aggregator would send them once more."""
    count = 60_000
    line = Collectors()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.outlet.begin(line.to(listener.getsockname()[1])(None))
        await line.outlet.start()
        stage = line.outlet.stage
        line.put(line.outlet, numbered(0, 1000))  # which the kernel has room for
        stuck, _ = await asyncio.to_thread(listener.accept)
        await until(lambda: stage.sent == 1000)
        for first in range(1000, count, 1000):
            line.put(line.outlet, numbered(first, 1000))
        await asyncio.sleep(0.2)  # time for all, were it not stuck
        await line.outlet.stop()
        line.check()
        taken, gaps = await asyncio.to_thread(read_all, stuck)
    assert gaps == 0
    assert taken == list(range(stage.sent))
    assert stage.dropped == {"shutdown": count - stage.sent}


async def test_from_a_collector_that_is_not_there() -> None:
    line, collector = Collectors(), Collector()
    await collector.start()
    line.outlet.begin(line.to(9)(None))
    await line.outlet.start()
    line.put(line.outlet, numbered(0, 100))
    await line.outlet.replace(line.to(collector.port))
    await until(lambda: len(collector.buffer) == 100)
    line.check()
    await line.outlet.replace(lambda _: None)
    await until(lambda: line.outlet.former is None)
    line.check()
    await collector.stop()
    assert line.outlet.stage.dropped == {}


async def test_what_is_left_when_it_is_switched_off_is_counted() -> None:
    line = Collectors()
    line.outlet.begin(line.to(9)(None))
    await line.outlet.start()
    line.put(line.outlet, numbered(0, 100))
    await line.outlet.replace(lambda _: None)
    await until(lambda: line.outlet.former is None)
    line.check()
    assert line.outlet.stage.dropped == {OutgoingDropped.SHUTDOWN: 100}
    await line.outlet.stop()
