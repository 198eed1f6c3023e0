"""A writer with a spool: what the store does not take is on disk, and stored once it is back."""

import asyncio
import itertools
import os
import resource
import signal
import sys
import threading
from pathlib import Path

import pytest

from flowvis.aggregator.destinations.clickhouse import lacks_spooled
from flowvis.batch import SETTLED, Batch
from flowvis.clickhouse import spooling
from flowvis.clickhouse import writer as writer_module
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.spooled import spooled
from flowvis.clickhouse.spool import Entry, Spool
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.clickhouse.writer import UncommittedRecords, Writer
from flowvis.delivery import patience
from flowvis.errors import StoreError
from flowvis.native import StringTable
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Ledger
from waiting import PATIENCE_S, until

from .samples import flows, random_batch
from .server import Server
from .test_writer import Moody

TESTS = Path(__file__).parent.parent
GONE = StoreError("gone", retryable=True)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks, files and pauses are small."""
    monkeypatch.setattr(spooling, "LOOK_S", 0.02)
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(writer_module, "LONGEST_PAUSE_S", 0.1)


def files(directory: Path, suffix: str = "batch") -> list[Path]:
    return sorted(directory.glob(f"*.{suffix}"))


class Line:
    """A writer, its books, and who sends to it."""

    def __init__(self, store: object, directory: Path, **options: object) -> None:
        self.ledger = Ledger()
        self.source = self.ledger.stage("source")
        self.stage = self.ledger.stage("clickhouse", sources=[self.source])
        self.spool = Spool(directory, int(str(options.pop("max_bytes", 1 << 30))))
        given = {"commit_interval_s": 0.02, "grace_s": 5.0, "spool_after_s": 0.05} | options
        self.writer = Writer(store, self.stage, spool=self.spool, **given)  # type: ignore[arg-type]

    def send(self, count: int = 10, mark: int = SETTLED, batch: Batch | None = None) -> None:
        batch = batch or flows(count)
        batch.mark = mark
        self.source.received += len(batch)
        self.source.sent += len(batch)
        self.writer.put(batch)
        self.check()

    def check(self) -> None:
        assert self.ledger.imbalance() == {}, self.ledger.as_dict()

    async def send_to_disk(self, *counts: int) -> None:
        """Send so many records at a time, each as a file of its own."""
        for count in counts:
            self.send(count)
            await until(lambda: not self.writer.uncommitted.records)

    async def on_disk(self, records: int) -> None:
        def there() -> bool:
            self.check()
            return self.spool.records == records

        await until(there)


def stored(store: Moody) -> list[int]:
    return [len(batch) for batch in store.stored.values()]


async def test_what_a_store_does_not_take_is_on_disk_and_stored_when_it_is_back(
    tmp_path: Path,
) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    line.send(10, mark=3)
    assert line.writer.mark == 3
    await line.on_disk(10)
    assert line.writer.mark == SETTLED  # on disk is durable
    assert line.writer.held() == 10
    line.send(20, mark=4)
    line.send(30, mark=5)
    await line.on_disk(60)
    assert line.writer.stats.spooled == 60
    assert line.writer.stats.spooled_bytes == line.spool.bytes > 0
    store.migrate_error = None
    await until(lambda: line.stage.sent == 60)
    assert sum(stored(store)) == 60
    assert stored(store)[0] == 10
    line.check()
    await until(lambda: not files(tmp_path))
    line.send(5)
    await until(lambda: line.stage.sent == 65)
    await line.writer.stop()
    assert (line.stage.dropped, line.writer.stats.spooled_records) == ({}, 0)


async def test_a_commit_without_an_answer_is_on_disk_and_stored_once(tmp_path: Path) -> None:
    store = Moody()
    store.open.clear()  # it takes the records, and says nothing
    line = Line(store, tmp_path)
    await line.writer.start()
    line.send(10, mark=3)
    await until(lambda: store.calls)
    line.send(7, mark=4)
    await line.on_disk(17)
    assert line.writer.mark == SETTLED
    store.open.set()
    await until(lambda: line.stage.sent == 17)
    line.check()
    assert sorted(stored(store)) == [7, 10]
    await line.writer.stop()
    await until(lambda: not files(tmp_path))


async def test_a_commit_that_fails_goes_on_under_its_id_from_disk(tmp_path: Path) -> None:
    store = Moody()
    store.error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    line.send(10)
    await line.on_disk(10)
    await line.writer.stop()
    assert line.stage.dropped == {"left": 10}
    line.check()
    assert line.writer.held() == 0
    back = Moody()
    next_line = Line(back, tmp_path)
    await next_line.writer.start()
    await until(lambda: next_line.stage.sent == 10)
    next_line.check()
    assert (next_line.stage.received, next_line.source.sent) == (10, 0)
    (_, tried, _), *_ = store.calls
    assert back.calls == [(10, tried, True)]
    await next_line.writer.stop()


async def test_a_stop_leaves_nothing_in_memory(tmp_path: Path) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path, spool_after_s=3600.0)
    await line.writer.start()
    for count in (10, 20):
        line.send(count)
    await asyncio.wait_for(line.writer.stop(), PATIENCE_S)
    assert line.stage.dropped == {"left": 30}
    line.check()
    back = Moody()
    following = Line(back, tmp_path)
    await following.writer.start()
    assert following.writer.inherited == 30
    following.send(5)
    await until(lambda: following.stage.sent == 35)
    assert following.writer.inherited == 0
    assert stored(back)[-1] == 5
    await following.writer.stop()


async def test_a_damaged_file_is_put_aside_and_the_others_are_stored(tmp_path: Path) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    await line.send_to_disk(10, 20, 40)
    middle = files(tmp_path)[1]
    middle.write_bytes(middle.read_bytes()[:50])
    lost = int(middle.stem.partition("-")[2])
    store.migrate_error = None
    await until(lambda: line.stage.sent == 70 - lost)
    line.check()
    assert line.stage.dropped == {"spool-corrupt": lost}
    assert line.writer.stats.spool_corrupt == 1
    assert [path.name for path in files(tmp_path, "corrupt")] == [f"{middle.stem}.corrupt"]
    await line.writer.stop()


async def test_files_that_cannot_be_read_now_are_stored_when_they_can(tmp_path: Path) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    await line.send_to_disk(10, 20, 40)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # no descriptor is left
    try:
        store.migrate_error = None
        await until(lambda: "Too many open files" in line.writer.problem or line.stage.dropped)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: line.stage.sent == 70)
    line.check()
    assert (line.stage.dropped, line.writer.stats.spool_corrupt) == ({}, 0)
    await line.writer.stop()


async def test_a_file_that_the_store_refuses_is_counted_once_and_tried_no_more(
    tmp_path: Path,
) -> None:
    store, back = Moody(), Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    line.send(10)
    await line.on_disk(10)
    store.error = StoreError("never", retryable=False)
    store.migrate_error = None
    await until(lambda: line.stage.dropped == {"rejected": 10})
    await until(lambda: files(tmp_path, "rejected"))
    line.check()
    assert files(tmp_path) == []
    await line.writer.stop()
    following = Line(back, tmp_path)
    await following.writer.start()
    assert (following.stage.inherited, following.writer.held()) == (0, 0)
    await following.writer.stop()
    assert back.stored == {}


async def test_a_file_that_goes_while_it_is_read_is_counted_once(tmp_path: Path) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    await line.send_to_disk(10, 20)
    read, reading, go_on = line.spool.read, threading.Event(), threading.Event()

    def read_late(entry: Entry) -> tuple[Batch, BatchId]:
        reading.set()
        go_on.wait(PATIENCE_S)
        return read(entry)

    line.spool.read = read_late  # type: ignore[method-assign]
    store.migrate_error = None
    await until(reading.is_set)
    oldest = line.spool.oldest
    assert oldest is not None
    line.stage.drop(OutgoingDropped.SPOOL_FULL, oldest.records)  # as where both are full
    line.spool.forget(oldest)
    line.spool.delete(oldest)
    go_on.set()
    await until(lambda: line.writer.held() == 0)
    line.check()
    assert line.stage.dropped == {"spool-full": 10}
    assert line.writer.stats.spool_corrupt == 0
    await line.writer.stop()


async def test_when_everything_is_full_the_oldest_go_by_name(tmp_path: Path) -> None:
    store = Moody()
    store.migrate_error = GONE
    one = len(spooled(flows(100), BatchId("h" * 20, 1)))
    line = Line(store, tmp_path, max_bytes=4 * one, max_pending=1000)
    await line.writer.start()
    strings = StringTable()
    for _ in range(3):
        line.send(batch=flows(100, strings=strings))
        await until(lambda: not line.writer.uncommitted.records)
    line.send(batch=flows(100, strings=strings))
    await until(lambda: not line.spool.has_room(one))
    line.send(batch=flows(100, strings=strings))
    await asyncio.sleep(0.1)  # time enough to drop something, were memory not to spare
    assert line.stage.dropped == {}
    for _ in range(7):
        line.send(batch=flows(100, strings=strings))
    await until(lambda: line.stage.dropped.get("spool-full", 0) >= 100)
    line.check()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 4 * one
    store.migrate_error = None
    await until(lambda: line.writer.held() == 0)
    line.check()
    assert line.stage.sent + sum(line.stage.dropped.values()) == line.stage.received
    assert set(line.stage.dropped) == {"spool-full"}
    await line.writer.stop()


async def test_a_disk_that_takes_nothing_leaves_records_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Moody()
    store.migrate_error = GONE
    line, strings = Line(store, tmp_path), StringTable()
    await line.writer.start()
    with monkeypatch.context() as patched:

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(os, "fsync", full)
        line.send(mark=3, batch=flows(10, strings=strings))
        await until(lambda: line.writer.stats.spool_failures > 1)
        line.check()
        assert (line.writer.mark, line.spool.records) == (3, 0)
        assert "No space left" in line.writer.problem or "gone" in line.writer.problem
        line.send(batch=flows(7, strings=strings))
        failures = line.writer.stats.spool_failures
        await until(lambda: line.writer.stats.spool_failures > failures + 1)
    assert caplog.text.count("cannot spool") == 1
    await line.on_disk(17)
    store.migrate_error = None
    await until(lambda: line.stage.sent == 17)
    await line.writer.stop()


def full(_: int) -> None:
    """Stands for `os.fsync` on a disk that takes nothing."""
    raise OSError(28, "No space left on device")


async def test_a_disk_that_takes_nothing_is_tried_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    waits: list[float] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        if seconds is not None and round(seconds / 0.0137, 6).is_integer():
            waits.append(round(seconds / 0.0137))
        return timeout(None if seconds is None else min(seconds, 0.02))

    monkeypatch.setattr(spooling, "LOOK_S", 0.0137)
    monkeypatch.setattr(spooling, "LONGEST_LOOK_S", 7 * 0.0137)
    monkeypatch.setattr(asyncio, "timeout", noted)
    await line.writer.start()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        line.send(10)
        await until(lambda: waits[-2:] == [7, 7])
    assert waits[waits.index(2) :][:4] == [2, 4, 7, 7]
    await line.on_disk(10)
    await until(lambda: waits[-1] == 1)
    store.migrate_error = None
    await until(lambda: line.stage.sent == 10)
    await line.writer.stop()


async def test_a_disk_that_took_nothing_is_no_problem_once_the_store_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()

    monkeypatch.setattr(os, "fsync", full)
    line.send(10)
    await until(lambda: line.writer.stats.spool_failures > 0)
    store.migrate_error = None
    await until(lambda: line.stage.sent == 10)
    await until(lambda: line.writer.healthy)
    await line.writer.stop()


async def test_what_is_larger_than_the_spool_keeps_nothing_out_of_it(tmp_path: Path) -> None:
    store = Moody()
    one = len(spooled(flows(100), BatchId("h" * 20, 1)))
    line = Line(store, tmp_path, max_bytes=4 * one, max_pending=100_000)
    await line.writer.start()
    await until(lambda: line.writer.healthy)
    store.error = GONE
    large = random_batch(10_000)
    assert len(spooled(large, BatchId("h" * 20, 1))) > 4 * one
    line.send(batch=large)
    await until(lambda: line.writer.uncommitted.current is not None)
    for _ in range(3):
        line.send(batch=flows(100))
    await line.on_disk(300)
    line.send(batch=random_batch(60_000, 1))  # memory is short as well
    await asyncio.sleep(0.1)
    line.check()
    assert (line.spool.records, line.stage.dropped) == (300, {})
    store.error = None
    await until(lambda: line.writer.held() == 0)
    assert line.stage.sent == line.stage.received
    await line.writer.stop()


async def test_a_spool_that_another_aggregator_has_is_named(tmp_path: Path) -> None:
    other = Spool(tmp_path, 1 << 30)
    other.open()
    line = Line(Moody(), tmp_path)
    await line.writer.start()
    assert "another process has it" in line.writer.problem
    assert lacks_spooled(line.writer)
    line.send(10)
    await until(lambda: line.stage.sent == 10)
    other.close()
    await until(lambda: not line.writer.problem and not lacks_spooled(line.writer))
    await line.writer.stop()


async def test_what_is_found_late_is_lacked_until_it_is_stored(tmp_path: Path) -> None:
    """However much of ours was stored before."""
    away, store = Moody(), Moody()
    away.migrate_error = GONE
    line = Line(away, tmp_path, spool_after_s=3600.0)
    await line.writer.start()
    line.send(30)
    await line.writer.stop()
    other = Spool(tmp_path, 1 << 30)
    other.open()
    following = Line(store, tmp_path)
    await following.writer.start()
    following.send(40)
    await until(lambda: following.stage.sent == 40)
    store.open.clear()
    other.close()
    await until(lambda: following.stage.inherited == 30)
    assert lacks_spooled(following.writer)
    store.open.set()
    await until(lambda: not lacks_spooled(following.writer))
    assert sum(stored(store)) == 70
    await following.writer.stop()


async def test_a_file_that_a_slow_disk_has_too_late_is_not_stored_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "CLOSE_S", 0.05)
    store, back = Moody(), Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path, grace_s=0.1)
    write, writing, go_on = line.spool.write, threading.Event(), threading.Event()

    def write_late(batch: Batch, batch_id: BatchId) -> Entry:
        writing.set()
        go_on.wait(PATIENCE_S)
        return write(batch, batch_id)

    line.spool.write = write_late  # type: ignore[method-assign]
    await line.writer.start()
    line.send(10)
    await until(writing.is_set)
    await line.writer.retire(asyncio.Event())
    other = Writer(back, line.stage, commit_interval_s=0.02, spool=Spool(tmp_path, 1 << 30))
    other.succeed(line.writer.remainder())
    await other.start()
    await until(lambda: line.stage.sent == 10)
    go_on.set()
    await asyncio.to_thread(line.writer._spooling._thread.shutdown)  # type: ignore[union-attr]
    await other.stop()
    assert files(tmp_path) == []
    assert stored(back) == [10]


async def test_a_disk_that_hangs_keeps_nothing_from_a_store_that_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hangs, goes_on, flush = threading.Event(), threading.Event(), os.fsync

    def fsync(file: int) -> None:
        hangs.set()
        goes_on.wait(PATIENCE_S)
        flush(file)

    monkeypatch.setattr(spooling, "HANGS_S", 0.05)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.01)
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        line.send(10, mark=3)
        await until(hangs.is_set)
        store.migrate_error = None
        line.send(7, mark=4)
        await until(lambda: line.stage.sent == 17)
        line.check()
        assert (line.writer.problem, line.writer.mark, stored(store)) == ("", SETTLED, [10, 7])
        assert "asked to write 10 records to" in caplog.text
        goes_on.set()
        await until(lambda: not list(tmp_path.glob("0*")))
    await line.writer.stop()
    assert (stored(store), line.stage.dropped, line.spool.records) == ([10, 7], {}, 0)


async def test_a_disk_that_hangs_as_it_is_read_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    goes_on, read = threading.Event(), line.spool.read
    monkeypatch.setattr(line.spool, "read", lambda entry: goes_on.wait(PATIENCE_S) and read(entry))
    monkeypatch.setattr(patience, "PATIENCE_S", 0.01)
    await line.writer.start()
    await line.send_to_disk(10)
    store.migrate_error = None
    await until(lambda: line.writer._ready and line.writer.problem.startswith("no answer for"))
    goes_on.set()
    await until(lambda: line.stage.sent == 10)
    await line.writer.stop()
    assert line.writer.problem == ""


async def test_a_writer_without_a_spool_stores_what_the_one_before_spooled(tmp_path: Path) -> None:
    store, back = Moody(), Moody()
    store.migrate_error = GONE
    line = Line(store, tmp_path)
    await line.writer.start()
    line.send(10)
    await line.on_disk(10)
    await line.writer.retire(asyncio.Event())
    remainder = line.writer.remainder()
    assert isinstance(remainder, UncommittedRecords)
    following = Writer(back, line.stage, commit_interval_s=0.02)
    following.succeed(remainder)
    line.check()
    await following.start()
    await until(lambda: line.stage.sent == 10)
    line.check()
    assert stored(back) == [10]
    await following.stop()
    other = Spool(tmp_path, 1)
    other.open()  # it was let go of
    assert len(other) == 0


async def test_a_spool_in_another_place_follows_when_the_one_before_is_empty(
    tmp_path: Path,
) -> None:
    store, back = Moody(), Moody()
    store.migrate_error = back.migrate_error = GONE
    line = Line(store, tmp_path / "one")
    await line.writer.start()
    line.send(10)
    await line.on_disk(10)
    await line.writer.retire(asyncio.Event())
    moved = Spool(tmp_path / "two", 1 << 30)
    following = Writer(back, line.stage, commit_interval_s=0.02, spool=moved, spool_after_s=0.05)
    following.succeed(line.writer.remainder())
    await following.start()
    line.writer = following
    line.send(5)
    back.migrate_error = None
    await until(lambda: line.stage.sent == 15)
    await until(lambda: moved.is_open)
    back.error = GONE
    line.send(7)
    await until(lambda: moved.records == 7)
    line.check()
    back.error = None
    await until(lambda: line.stage.sent == 22)
    await following.stop()


CRASH = """
import asyncio, sys
from pathlib import Path
from clickhouse.samples import flows
from flowvis.clickhouse import spooling, writer as module
from flowvis.clickhouse.spool import Entry, Spool
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.runtime.ledger import Stage

async def main():
    spooling.LOOK_S = module.FIRST_PAUSE_S = 0.02
    url, database, directory, first = sys.argv[1:]
    store = open_store(StoreSettings(url, database=database))
    spool = Spool(Path(directory), 1 << 30)
    writer = module.Writer(
        store, Stage("clickhouse"), commit_interval_s=0.05, spool=spool, spool_after_s=0.1
    )
    await writer.start()
    for number in range(10**9):
        writer.put(flows(100, end_s=int(first) + 100 * number))
        print(100 * number + 100, writer.uncommitted.records, flush=True)
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


@pytest.mark.clickhouse
@pytest.mark.parametrize("kills", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_kill_9_while_the_store_is_away_and_as_it_comes_back(
    server: Server, server_settings: StoreSettings, tmp_path: Path, kills: int
) -> None:
    """What was acknowledged or on disk is in the store once, whenever the process died."""
    store = open_store(server_settings)
    store.migrate()
    durable = 0
    for number, turns in enumerate((25, 45)[:kills]):
        server.send(signal.SIGSTOP)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CRASH, server_settings.database_url, server_settings.database,
            str(tmp_path / "spool"), str(1_790_000_000 + 100_000 * number),
            stdout=asyncio.subprocess.PIPE, cwd=TESTS,
        )  # fmt: skip
        assert process.stdout is not None
        put = in_memory = 0
        for turn in itertools.count():
            if turn >= turns and put > in_memory:  # the disk may be slow, too
                break
            put, in_memory = map(int, (await process.stdout.readline()).split())
            if turn == 15 and number == 1:
                server.send(signal.SIGCONT)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        server.send(signal.SIGCONT)
        durable += put - in_memory
    line = Line(store, tmp_path / "spool")
    await line.writer.start()
    await until(lambda: line.writer.held() == 0)
    line.check()
    await line.writer.stop()
    ((total, distinct),) = store.query("SELECT count(), uniqExact(flowEndSeconds) FROM flows").rows
    store.close()
    assert total == distinct
    assert durable <= total
    assert durable > 0


async def test_an_answer_while_it_is_being_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, answered = Moody(), threading.Event()
    store.open.clear()
    line = Line(store, tmp_path)
    write = line.spool.write

    def slowly(batch: Batch, batch_id: BatchId) -> Entry:
        store.open.set()
        answered.wait(PATIENCE_S)
        return write(batch, batch_id)

    with monkeypatch.context() as patched:
        patched.setattr(line.spool, "write", slowly)
        await line.writer.start()
        line.send(10)
        await until(lambda: line.stage.sent == 10)
        line.check()
        answered.set()
        await line.writer.stop()
    assert (stored(store), files(tmp_path), line.spool.records) == ([10], [], 0)
    assert line.stage.dropped == {}
