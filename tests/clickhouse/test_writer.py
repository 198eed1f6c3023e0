"""The writer: bounded, balanced, and patient with a store that comes and goes."""

import asyncio
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowvis.backlog import size_of
from flowvis.batch import Batch
from flowvis.clickhouse.query import Query, Result
from flowvis.clickhouse.schema.books import Page
from flowvis.clickhouse.schema.checkpoints import Answer, Wanted
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.clickhouse.writer import Writer
from flowvis.delivery import patience
from flowvis.errors import StoreError
from flowvis.native import StringTable
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Ledger, Stage
from flowvis.runtime.losses import Losses
from waiting import PATIENCE_S, until

from .conftest import MakeStore
from .samples import flows
from .server import Server

FAST = 0.02


class Moody:
    """A store that works, fails or waits as it is reported, and remembers what it was given."""

    name = "moody"
    kept = Retention(0, 0, 0)
    rollups = None
    partitions = None

    def __init__(self) -> None:
        self.settled: dict[str, int] = {}
        self.ttls: Mapping[str, int] = {}
        self.begins: dict[str, int] = {}
        self.lost: Sequence[Lost] = ()
        self.error: StoreError | None = None
        self.migrate_error: StoreError | None = None
        self.open = threading.Event()
        self.open.set()
        self.calls: list[tuple[int, BatchId, bool]] = []
        self.stored: dict[BatchId, Batch] = {}
        self.closed = False

    def migrate(self) -> list[str]:
        if self.migrate_error:
            raise self.migrate_error
        return ["has no umbrella"]

    def insert(self, batch: Batch, batch_id: BatchId, *, again: bool = False) -> None:
        self.calls.append((len(batch), batch_id, again))
        self.open.wait(PATIENCE_S)
        if self.error:
            raise self.error
        assert batch_id not in self.stored
        self.stored[batch_id] = batch

    def keep(self, page: Page, *, again: bool = False) -> None:
        raise NotImplementedError

    def checkpoints(self, wanted: Wanted) -> Answer:
        raise NotImplementedError

    def ask(self, sql: str, *, max_rows: int = 1, max_length: int = 1) -> Query:
        raise NotImplementedError

    def query(self, sql: str, *, max_rows: int = 1) -> Result:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def writer_for(store: Store, **options: object) -> Writer:
    options = {"commit_interval_s": FAST, "grace_s": 5.0, **options}
    return Writer(store, Stage("clickhouse"), **options)  # type: ignore[arg-type]


@pytest.mark.clickhouse
async def test_all_that_is_put_is_stored(make_store: MakeStore, settings: StoreSettings) -> None:
    store = make_store()
    writer = writer_for(store)
    await writer.start()
    strings = StringTable()
    for number in range(5):
        writer.put(flows(1000, strings=strings))
        writer.put(flows(100))  # over a string table of its own
        if number == 2:
            await until(lambda: writer.stage.sent >= 3300)
    assert writer.stage.received == 5500
    await writer.stop()
    assert writer.stage.sent == 5500
    assert writer.stage.imbalance == 0
    assert store.query("SELECT count(), sum(octetTotalCount) FROM " + table(settings)).rows == [
        [5500, 550_000]
    ]


def table(settings: StoreSettings) -> str:
    return f"{settings.database}.flows"


async def test_commits_wait_for_the_interval_or_for_enough() -> None:
    store = Moody()
    writer = writer_for(store, commit_interval_s=3600, commit_records=1000)
    await writer.start()
    await until(lambda: writer.healthy)
    strings = StringTable()
    for _ in range(9):
        writer.put(flows(100, strings=strings))
    await asyncio.sleep(0.1)  # nothing is stored meanwhile
    assert store.calls == []
    assert writer.held() == 900
    writer.put(flows(100, strings=strings))
    await until(lambda: writer.stage.sent == 1000)
    assert [rows for rows, _, _ in store.calls] == [1000]
    await writer.stop()
    assert store.closed


async def test_a_commit_comes_before_the_queue_is_full() -> None:
    writer = writer_for(Moody(), commit_interval_s=3600, max_pending=700)
    await writer.start()
    await until(lambda: writer.healthy)
    strings = StringTable()
    for _ in range(7):
        for _ in range(7):
            writer.put(flows(50, strings=strings))
        await until(lambda: not writer.held())
    assert writer.stage.dropped == {}
    await writer.stop()


async def test_a_batch_that_is_larger_than_a_commit_is_split() -> None:
    store = Moody()
    writer = writer_for(store, commit_records=1000)
    writer.put(flows(2500))
    await writer.start()
    await writer.stop()
    assert [rows for rows, _, _ in store.calls] == [1000, 1000, 500]
    assert len({batch_id for _, batch_id, _ in store.calls}) == 3
    ports = np.concatenate([batch["sourceTransportPort"] for batch in store.stored.values()])
    assert ports.tolist() == list(range(2500))


async def test_the_same_id_until_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowvis.clickhouse.writer.FIRST_PAUSE_S", FAST)
    store = Moody()
    store.error = StoreError("the network", retryable=True)
    writer = writer_for(store)
    await writer.start()
    writer.put(flows(10))
    await until(lambda: len(store.calls) >= 3)
    assert (writer.healthy, writer.stats.failing) == (False, "the network")
    writer.put(flows(5))
    store.error = None
    await until(lambda: writer.stage.sent == 15)
    assert writer.healthy
    first = [call for call in store.calls if call[0] == 10]
    assert len({batch_id for _, batch_id, _ in first}) == 1
    assert [again for _, _, again in first] == [False] + [True] * (len(first) - 1)
    assert writer.stats.failures == len(first) - 1
    await writer.stop()
    assert writer.stage.imbalance == 0


@pytest.mark.parametrize(
    ("code", "text", "looks"),
    [
        (243, "Cannot reserve 1.00 MiB, not enough space (NOT_ENOUGH_SPACE)", True),
        (1001, "filesystem error: in rename: No space left on device (STD_EXCEPTION)", True),
        (999, "session expired (KEEPER_EXCEPTION)", False),
    ],
)
async def test_that_there_is_no_room_is_told_to_who_makes_some(
    monkeypatch: pytest.MonkeyPatch, code: int, text: str, *, looks: bool
) -> None:
    store = Moody()
    store.error = StoreError(text, retryable=True, code=code)
    writer = writer_for(store)
    told: list[str] = []
    monkeypatch.setattr(writer.monitor, "hurry", lambda: told.append("now"))
    await writer.start()
    writer.put(flows(10))
    await until(lambda: writer.stats.failures > 0)
    assert bool(told) == looks
    store.error = None
    await writer.stop()


async def test_a_rejected_batch_does_not_hold_up_the_others() -> None:
    store = Moody()
    store.error = StoreError("bad data", retryable=False)
    writer = writer_for(store)
    await writer.start()
    writer.put(flows(10))
    await until(lambda: writer.stage.dropped == {OutgoingDropped.REJECTED: 10})
    store.error = None
    writer.put(flows(5))
    await until(lambda: writer.stage.sent == 5)
    await writer.stop()
    assert writer.stage.imbalance == 0


async def test_a_batch_that_meets_a_defect_does_not_end_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowvis.clickhouse.writer.FIRST_PAUSE_S", FAST)

    class Faulty(Moody):
        def insert(self, batch: Batch, batch_id: BatchId, *, again: bool = False) -> None:
            if len(batch) == 7:
                self.calls.append((7, batch_id, again))
                raise TypeError("no such column")
            super().insert(batch, batch_id, again=again)

    store = Faulty()
    writer = writer_for(store)
    await writer.start()
    for count in (5, 7, 6):
        writer.put(flows(count))  # each over a string table of its own: a commit of its own
    await until(lambda: writer.held() == 0)
    assert (writer.stage.sent, writer.stage.dropped) == (11, {OutgoingDropped.REJECTED: 7})
    assert [count for count, _, _ in store.calls] == [5, 7, 7, 7, 6]
    await writer.stop()
    assert writer.stage.imbalance == 0


async def test_attempts_that_the_store_failed_in_are_no_defects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a batch that a store which was away for long has not taken survives two defects."""
    monkeypatch.setattr("flowvis.clickhouse.writer.FIRST_PAUSE_S", FAST)
    away, defect = StoreError("not now", retryable=True), KeyError("what?")
    results: list[Exception | None] = [away, away, away, away, defect, away, defect, None]

    class Faulty(Moody):
        def insert(self, batch: Batch, batch_id: BatchId, *, again: bool = False) -> None:
            if error := results.pop(0):
                raise error
            super().insert(batch, batch_id, again=again)

    store = Faulty()
    writer = writer_for(store)
    await writer.start()
    writer.put(flows(9))
    await until(lambda: writer.held() == 0)
    await writer.stop()
    assert (writer.stage.sent, writer.stage.dropped, results) == (9, {}, [])
    assert writer.stage.imbalance == 0


async def test_the_oldest_go_when_the_queue_is_full() -> None:
    store = Moody()
    store.migrate_error = StoreError("not there", retryable=True)
    writer = writer_for(store, max_pending=1000)
    await writer.start()
    for number in range(15):
        batch = flows(100)
        batch["sourceTransportPort"][:] = number
        writer.put(batch)
    assert writer.stage.dropped == {OutgoingDropped.QUEUE_FULL: 500}
    assert writer.held() == 1000
    store.migrate_error = None
    await writer.stop()
    assert writer.stage.sent == 1000
    assert {int(b["sourceTransportPort"][0]) for b in store.stored.values()} == set(range(5, 15))


async def test_the_oldest_go_when_the_queue_takes_too_much_memory() -> None:
    store = Moody()
    store.migrate_error = StoreError("not there", retryable=True)
    strings = StringTable()
    room = 40 * size_of(flows(100))
    writer = writer_for(store, max_bytes=room)
    await writer.start()
    for number in range(60):
        batch = flows(100, strings=strings)
        batch["sourceTransportPort"][:] = number
        writer.put(batch)
        assert writer.held_bytes() <= room * 3 // 4
    assert writer.stage.dropped == {OutgoingDropped.QUEUE_FULL: 3000}
    store.migrate_error = None
    await writer.stop()
    assert [rows for rows, _, _ in store.calls] == [1000, 1000, 1000]  # a quarter in one piece
    assert writer.stage.sent == 3000
    ports = [int(port) for b in store.stored.values() for port in b["sourceTransportPort"][::100]]
    assert ports == list(range(30, 60))


async def test_small_batches_take_no_more_memory_than_their_records() -> None:
    """As they come in a quiet cluster: an empty batch alone takes 9 KB."""
    store = Moody()
    store.migrate_error = StoreError("not there", retryable=True)
    strings = StringTable()
    writer = writer_for(store, max_bytes=5 * size_of(flows(2000)))
    await writer.start()
    for number in range(2000):
        batch = flows(1, strings=strings)
        batch["sourceTransportPort"][:] = number
        batch.mark = number
        writer.put(batch)
    assert (writer.held(), writer.mark, writer.stage.dropped) == (2000, 0, {})
    assert writer.held_bytes() < 2 * size_of(flows(2000))
    store.migrate_error = None
    await writer.stop()
    ports = [int(port) for b in store.stored.values() for port in b["sourceTransportPort"]]
    assert ports == list(range(2000))


async def test_what_is_committed_counts_and_its_string_table_when_that_is_left_behind() -> None:
    store = Moody()
    store.open.clear()
    old, new = StringTable(), StringTable()
    old.encode(f"{number:08}".ljust(1000, "x") for number in range(100))
    batch = flows(100, strings=old)
    writer = writer_for(store, max_bytes=1 << 20)
    await writer.start()
    writer.put(batch)
    await until(lambda: store.calls)
    assert writer.held_bytes() == size_of(batch)
    for _ in range(30):
        writer.put(flows(100, strings=new))
    assert writer.held_bytes() > size_of(batch) + old.memory_bytes
    assert writer.held_bytes() <= (3 << 18) + old.memory_bytes, "one has its room elsewhere"
    assert writer.stage.dropped[OutgoingDropped.QUEUE_FULL] > 0
    store.open.set()
    await writer.stop()
    assert writer.stage.imbalance == 0


async def test_a_full_queue_does_not_hurry_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowvis.clickhouse.writer.FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr("flowvis.clickhouse.writer.LONGEST_PAUSE_S", 3600.0)
    store = Moody()
    store.error = StoreError("too busy", retryable=True)
    writer = writer_for(store, commit_records=10, grace_s=0.1)
    await writer.start()
    for _ in range(50):
        writer.put(flows(10))
        await asyncio.sleep(0.005)  # many chances to hurry
    await until(lambda: store.calls)
    assert len(store.calls) == 1
    await writer.stop()
    assert writer.stage.imbalance == 0


async def test_stop_gives_up_after_the_grace_period() -> None:
    store = Moody()
    store.error = StoreError("not there", retryable=True)
    writer = writer_for(store, grace_s=0.3)
    await writer.start()
    writer.put(flows(7))
    await writer.stop()
    assert writer.stage.dropped == {OutgoingDropped.SHUTDOWN: 7}
    assert writer.stage.imbalance == 0
    writer.put(flows(3))
    assert writer.stage.dropped == {OutgoingDropped.SHUTDOWN: 7, "closed": 3}


async def test_a_slow_store_stalls_nobody() -> None:
    store = Moody()
    store.open.clear()
    writer = writer_for(store)
    await writer.start()
    writer.put(flows(10))
    await until(lambda: store.calls)
    writer.put(flows(10))
    await asyncio.sleep(0)
    assert writer.held() == 20
    store.open.set()
    await writer.stop()
    assert writer.stage.sent == 20


async def test_ids_stay_unique_when_the_clock_stands_still_or_goes_back() -> None:
    store = Moody()
    writer = writer_for(store, commit_records=10, clock=clock_of([100, 100, 99, 101]))
    for _ in range(4):
        writer.put(flows(10))
    await writer.start()
    await until(lambda: writer.stage.sent == 40)
    await writer.stop()
    ids = [(batch_id.inserted_s, batch_id.number) for _, batch_id, _ in store.calls]
    assert len(set(ids)) == 4
    assert ids == sorted(ids)


def clock_of(seconds: list[int]) -> object:
    """A clock that goes through these times, and stays at the last."""
    left = list(seconds)
    return lambda: float(left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.clickhouse
async def test_the_server_may_come_later_and_go_away(tmp_path: Path) -> None:
    """Everything that is put while the server starts, dies and starts again is stored, once."""
    server = Server(tmp_path / "moody")
    settings = StoreSettings(server.url, database="flowvis", ttl_s=0)
    writer = writer_for(open_store(settings), commit_records=5000)
    await writer.start()
    put = 0
    try:
        for phase in ("not started", "up", "killed", "up", "killed", "up"):
            if phase == "up":
                await asyncio.to_thread(server.start)
            elif phase == "killed":
                await asyncio.to_thread(server.kill)
            for _ in range(10):
                writer.put(flows(2000))
                put += 2000
                await asyncio.sleep(0.02)
        await until(lambda: writer.held() == 0)
        assert writer.stage.sent == writer.stage.received == put
        await writer.stop()
        store = open_store(replace(settings))
        assert store.query("SELECT count() FROM flows").rows == [[put]]
        store.close()
    finally:
        server.kill()
        await writer.stop()


@pytest.mark.clickhouse
async def test_a_server_that_does_not_answer_is_a_problem_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped, its kernel goes on taking what is sent; and what the queue cannot hold is lost."""
    monkeypatch.setattr(patience, "PATIENCE_S", 0.3)
    server = Server(tmp_path / "frozen")
    await asyncio.to_thread(server.start)
    ledger = Ledger()
    stage = ledger.stage("clickhouse")
    store = open_store(StoreSettings(server.url, database="frozen", ttl_s=0))
    writer = Writer(store, stage, commit_interval_s=FAST, max_pending=500)
    seen = Losses(ledger)
    try:
        await writer.start()
        await until(lambda: writer.healthy)
        server.send(signal.SIGSTOP)
        writer.put(flows(100))
        await until(lambda: "no answer for 0.3 s, asked to store 100 records" in caplog.text)
        assert writer.problem.startswith("no answer for")
        assert not writer.healthy
        writer.put(flows(700))
        seen.look(1.0)
        assert "200 records dropped: the destination was away or slow" in caplog.text
        server.send(signal.SIGCONT)
        await until(lambda: stage.sent == 600)
        assert (writer.problem, stage.imbalance) == ("", 0)
        assert store.query("SELECT count() FROM flows").rows == [[600]]
    finally:
        server.send(signal.SIGCONT)
        await writer.stop()
        await asyncio.to_thread(server.kill)
