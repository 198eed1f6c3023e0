"""Records on disk until they are settled, over kills, damage, full disks and two exporters."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flowvis.batch import SETTLED, Batch
from flowvis.delivery.queue import Queue
from flowvis.exporter import unacknowledged
from flowvis.exporter.export import Exporter as Sending
from flowvis.exporter.unacknowledged import Unacknowledged
from flowvis.fields import EXPORTED
from flowvis.native import StringTable
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger
from flowvis.transport.address import CollectorAddress
from ipfix.records import batch_of
from ports import free_port

MAX_BYTES = 32 << 20


def numbered(first: int, count: int, text: str = "") -> Batch:
    rows: list[dict[str, int | str]] = [
        {"packetTotalCount": n, "sourceIP": "10.0.0.1", "sourcePodName": f"pod-{n}{text}"}
        for n in range(first, first + count)
    ]
    return batch_of(rows, StringTable())


class Exporter:
    """The parts of an exporter that keep records; it is killed by `kill`."""

    def __init__(self, directory: Path, max_bytes: int = MAX_BYTES, records: int = 65_536) -> None:
        self.ledger = Ledger()
        stage = self.ledger.stage("records")
        self.queue = Queue(stage, records, full=ExportDropped.PENDING_FULL)
        self.kept = Unacknowledged(directory, "node/1", self.queue, domain=7, max_bytes=max_bytes)

    async def start(self, *, acknowledged: bool = False) -> int:
        await self.kept.start()
        return self.queue.begin(acknowledged=acknowledged)

    def put(self, batch: Batch) -> None:
        self.kept.keep(batch)
        self.queue.put(batch)

    def send(self, limit: int = 1 << 60) -> list[int]:
        batch = self.queue.take(limit)
        if batch is None:
            return []
        self.queue.sent(len(batch))
        self.kept.settled()
        numbers: list[int] = batch["packetTotalCount"].tolist()
        return numbers

    def all(self) -> list[int]:
        numbers: list[int] = []
        while more := self.send():
            numbers += more
        return numbers

    def acknowledge(self, total: int) -> None:
        self.queue.acknowledge(total)
        self.kept.settled()

    def kill(self) -> None:
        """What the kernel does of it: locks and descriptors go, files stay."""
        for segment in self.kept._segments:
            os.close(segment.descriptor)
        self.kept._segments = []


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("node%2F1.records/*"))


async def test_what_was_not_sent_is_sent_by_the_next_exporter(tmp_path: Path) -> None:
    first = Exporter(tmp_path)
    assert await first.start() == 0
    first.put(numbered(0, 3))
    assert first.send() == [0, 1, 2]
    first.put(numbered(3, 3))
    first.put(numbered(6, 3))
    first.kill()
    second = Exporter(tmp_path)
    assert await second.start() == 6
    second.put(numbered(9, 2))
    assert second.all() == list(range(3, 11))
    assert second.kept.stats.inherited == 6
    assert second.ledger.imbalance() == {}
    assert second.queue.mark == SETTLED
    second.kill()
    assert await Exporter(tmp_path).start() == 0


async def test_what_was_not_acknowledged_is_sent_again(tmp_path: Path) -> None:
    first = Exporter(tmp_path)
    await first.start(acknowledged=True)
    for number in range(0, 5000, 500):
        first.put(numbered(number, 500, "x" * 400))
        first.send()
    assert len(files(tmp_path)) > 3
    first.acknowledge(2600)
    first.kill()
    second = Exporter(tmp_path)
    repeated = await second.start(acknowledged=True)
    again = second.all()
    assert again == list(range(5000 - repeated, 5000))
    assert 2600 - 1600 < 5000 - repeated <= 2600  # a file at most is repeated in vain
    second.put(numbered(5000, 10))
    second.send()
    second.acknowledge(repeated)
    second.kill()
    third = Exporter(tmp_path)
    assert await third.start() == 10
    assert third.all() == list(range(5000, 5010))


async def test_an_orderly_stop_leaves_what_is_not_settled(tmp_path: Path) -> None:
    first = Exporter(tmp_path)
    await first.start()
    await first.kept.stop()
    assert files(tmp_path) == []
    again = Exporter(tmp_path)
    await again.start()
    again.put(numbered(0, 4))
    await again.kept.stop()
    second = Exporter(tmp_path)
    await second.start()
    assert second.all() == [0, 1, 2, 3]
    await second.kept.stop()
    assert files(tmp_path) == []


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_again_and_again_lose_nothing(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that acknowledges late and in steps, and an exporter that never lives long."""
    monkeypatch.setattr(unacknowledged, "SEGMENT_BYTES", 8192)
    rng = np.random.default_rng(seed)
    made, durable = 0, set[int]()
    for _ in range(20):
        exporter = Exporter(tmp_path, max_bytes=2 << 20)
        await exporter.start(acknowledged=True)
        sent: list[int] = []
        for _ in range(int(rng.integers(0, 12))):
            match rng.integers(3):
                case 0:
                    count = int(rng.integers(1, 60))
                    exporter.put(numbered(made, count))
                    made += count
                case 1:
                    sent += exporter.send(int(rng.integers(1, 100)))
                case _ if sent:
                    total = int(rng.integers(len(sent) + 1))
                    durable |= set(sent[:total])
                    exporter.acknowledge(total)
        exporter.kill()
    last = Exporter(tmp_path)
    await last.start(acknowledged=True)
    durable |= set(last.all())
    assert durable == set(range(made))
    last.acknowledge(last.queue.unacknowledged)
    await last.kept.stop()
    assert files(tmp_path) == []


async def test_a_file_that_the_disk_does_not_give_is_left_to_the_next_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Exporter(tmp_path)
    await first.start()
    first.put(numbered(0, 3))
    first.kill()

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        second = Exporter(tmp_path)
        assert await second.start() == 0
    second.put(numbered(3, 3))
    assert second.kept.stats.failures == 1
    second.kill()
    third = Exporter(tmp_path)
    assert await third.start() == 6
    assert third.all() == [0, 1, 2, 3, 4, 5]


async def test_two_exporters_of_a_node(tmp_path: Path) -> None:
    """What one has is not another's while it lives."""
    first, second = Exporter(tmp_path), Exporter(tmp_path)
    await first.start()
    first.put(numbered(0, 3))
    assert await second.start() == 0
    second.put(numbered(10, 3))
    assert len(files(tmp_path)) == 2
    assert first.all() == [0, 1, 2]
    first.put(numbered(3, 3))
    first.kill()
    third = Exporter(tmp_path)
    assert await third.start() == 3
    assert third.all() == [3, 4, 5]
    assert second.all() == [10, 11, 12]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.kernel
async def test_a_full_disk(full: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records that are not written are sent all the same; what was written is not spoiled."""
    first = Exporter(full)
    await first.start(acknowledged=True)
    first.put(numbered(0, 300))
    filler = full / "filler"
    filler.write_bytes(bytes(os.statvfs(full).f_bavail * 4096 - 8192))
    for number in (300, 800):
        first.put(numbered(number, 500))
    assert first.kept.stats.failures > 0
    assert first.kept.stats.unprotected == 1000
    assert caplog.text.count("not written") == 1
    assert first.all() == list(range(1300))
    filler.unlink()
    first.put(numbered(1300, 5))
    assert first.kept.stats.failures == 2
    first.acknowledge(300)
    first.kill()
    second = Exporter(full)
    await second.start()
    assert [n for n in second.all() if n >= 300] == list(range(1300, 1305))


@pytest.mark.kernel
async def test_a_disk_that_is_full_from_the_start(full: Path) -> None:
    (full / "filler").write_bytes(bytes(os.statvfs(full).f_bavail * 4096))
    first = Exporter(full)
    await first.start()
    first.put(numbered(0, 100))
    assert first.kept.stats.failures > 0
    assert first.all() == list(range(100))
    assert files(full) == []


async def test_the_bound(tmp_path: Path) -> None:
    """The oldest file goes, is counted, and its records stay in the queue."""
    first = Exporter(tmp_path, max_bytes=1 << 20)
    await first.start()
    for number in range(0, 8000, 200):
        first.put(numbered(number, 200, "x" * 200))
    size = sum(path.stat().st_size for path in files(tmp_path))
    assert size == first.kept.stats.bytes <= 1 << 20
    unprotected = first.kept.stats.unprotected
    assert unprotected > 4000
    first.kill()
    second = Exporter(tmp_path)
    await second.start()
    assert second.all() == list(range(unprotected, 8000))


async def stop(exporter: Exporter, directory: Path) -> tuple[dict[str, int], int]:
    """Stop in good order while no collector is there; what is dropped, and left to the next."""
    nobody = CollectorAddress("127.0.0.1", free_port(), "tcp")
    sending = Sending([], exporter.queue, nobody, None, domain=7, kept=exporter.kept, drain_s=0.1)
    await sending.start()
    await sending.stop()
    await exporter.kept.stop()
    second = Exporter(directory)
    await second.start()
    assert second.kept.stats.inherited == len(exporter.queue)
    assert exporter.ledger.imbalance() == second.ledger.imbalance() == {}
    second.kill()
    return exporter.queue.stage.dropped, len(exporter.queue)


async def test_a_much_smaller_bound_than_before(tmp_path: Path) -> None:
    first = Exporter(tmp_path)
    await first.start()
    for n in range(12):
        first.put(numbered(1000 * n, 1000, text="x" * 300))  # a file each
    sizes = [path.stat().st_size for path in files(tmp_path)]
    assert len(sizes) == 12
    first.kill()
    second = Exporter(tmp_path, max_bytes=sizes[-1])
    await second.start()
    read = second.all()
    assert set(range(9000, 12_000)) <= set(read) != set(range(12_000))
    # What is in neither books nor files is counted.
    assert second.kept.stats.failures == 12 - len(read) // 1000 > 0
    second.kill()


async def test_an_orderly_stop_counts_what_is_in_no_file_any_more(tmp_path: Path) -> None:
    first = Exporter(tmp_path, max_bytes=1 << 20)
    await first.start()
    records = numbered(0, 8000, "x" * 200)
    for number in range(0, 8000, 40):  # the queue joins small batches, where they are of one file
        first.put(records.take(slice(number, number + 40)))
    unprotected = first.kept.stats.unprotected
    assert unprotected > 4000
    assert await stop(first, tmp_path) == ({"stopped": unprotected}, 8000 - unprotected)


@pytest.mark.kernel
@pytest.mark.parametrize("recovers", [True, False])
async def test_an_orderly_stop_counts_what_was_never_written(full: Path, recovers: bool) -> None:
    """And nothing that was, whether or not the disk is full at the end."""
    first = Exporter(full)
    await first.start()
    first.put(numbered(0, 10))
    filler = full / "filler"
    filler.write_bytes(bytes(os.statvfs(full).f_bavail * 4096 - 8192))
    first.put(numbered(10, 500))
    if recovers:
        filler.unlink()
        first.put(numbered(510, 5))
    assert first.kept.stats.unprotected == 500
    assert await stop(first, full) == ({"stopped": 500}, 15 if recovers else 10)


async def test_an_exporter_that_is_killed_at_once_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unacknowledged, "MOST_FILES", 8)
    for number in range(30):
        one = Exporter(tmp_path)
        await one.start()
        one.put(numbered(number, 1))
        assert len(files(tmp_path)) <= 9
        one.kill()
    last = Exporter(tmp_path)
    await last.start()
    assert last.all() == list(range(22, 30))


async def test_what_does_not_fit_into_the_queue_is_counted(tmp_path: Path) -> None:
    first = Exporter(tmp_path)
    await first.start()
    first.put(numbered(0, 900))
    first.kill()
    second = Exporter(tmp_path, records=500)
    await second.start()
    assert second.all() == list(range(400, 900))
    assert second.queue.stage.dropped == {"unconfirmed": 400}
    assert second.ledger.imbalance() == {}


@pytest.mark.parametrize("damage", ["cut", "middle", "begin", "empty", "foreign"])
async def test_damaged_files(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    first = Exporter(tmp_path)
    await first.start()
    for number in range(3):
        first.put(numbered(number, 1))
    first.kill()
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    match damage:
        case "cut":
            content = content[:-30]
        case "middle":
            content[-300] ^= 0xFF
        case "begin":
            content[:2] = b"\0\0"
        case "empty":
            content.clear()
        case _:
            content[:] = os.urandom(5000)
    path.write_bytes(content)
    second = Exporter(tmp_path)
    await second.start()
    read = second.all()
    expected = {"cut": [0, 1], "middle": [0, 2], "begin": [0, 1, 2], "empty": [], "foreign": []}
    assert read == expected[damage]
    damaged = damage not in {"cut", "empty"}
    assert second.kept.stats.damaged == int(damaged)
    assert ("damaged" in caplog.text) == damaged
    assert path not in files(tmp_path)


async def test_what_else_lies_there_is_left_alone(tmp_path: Path) -> None:
    room = tmp_path / "node%2F1.records"
    room.mkdir()
    (room / "notes.txt").write_text("mine")
    (room / "9999999999999999999-00000000.ipfix").write_text("too large a number")
    os.mkfifo(room / "0000000000000001-00000000.ipfix")
    (room / "0000000000000002-00000000.ipfix").symlink_to("/etc/passwd")
    (room / "0000000000000003-00000000.ipfix.new").write_text("begun and not finished")
    exporter = Exporter(tmp_path)
    await exporter.start()
    exporter.put(numbered(0, 1))
    assert exporter.all() == [0]
    await exporter.kept.stop()
    left = {path.name for path in files(tmp_path)}
    assert "0000000000000003-00000000.ipfix.new" not in left
    assert len(left) == 4


async def test_a_file_of_an_older_version(tmp_path: Path) -> None:
    """A template says which fields it has: what it lacks is empty."""
    fewer = [field for field in EXPORTED if field.name != "flowId"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unacknowledged, "EXPORTED", fewer)
        first = Exporter(tmp_path)
        await first.start()
        first.put(numbered(4, 2))
        first.kill()
    second = Exporter(tmp_path)
    await second.start()
    batch = second.queue.take()
    assert batch is not None
    assert batch["packetTotalCount"].tolist() == [4, 5]
    assert batch["flowId"].tolist() == [0, 0]
    assert batch.texts("sourcePodName") == ["pod-4", "pod-5"]


async def test_a_disk_that_turns_read_only_ends_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = Exporter(tmp_path)
    await first.start(acknowledged=True)
    first.put(numbered(0, 3))
    first.send()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        for name in ("open", "write", "ftruncate", "unlink"):
            patch.setattr(os, name, refuse)
        first.acknowledge(3)
        first.put(numbered(3, 2))
    assert caplog.text.count("not emptied: [Errno 30] Read-only") == 1
    assert (first.kept.stats.failures, first.kept.stats.unprotected) == (2, 2)
    assert first.kept.stats.files == 0
    first.put(numbered(5, 4))  # there is a disk again
    assert first.all() == [3, 4, 5, 6, 7, 8]
    first.acknowledge(3 + 2 + 1)
    first.kill()
    second = Exporter(tmp_path)
    assert await second.start() == 7
    assert second.all() == [0, 1, 2, 5, 6, 7, 8]  # the first could not be deleted: they come again
