"""What is under way becomes a checkpoint when it is delivered, and not before."""

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowvis import checkpoint
from flowvis.aggregator.checkpoint_files import CheckpointFiles
from flowvis.aggregator.checkpoints import Checkpoints
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.kept import KEPT, MOST_ROWS, kept, last_written
from flowvis.aggregator.correlation.parked import Inquiry
from flowvis.aggregator.under_way import UnderWay
from flowvis.backlog import UNBOUNDED
from flowvis.batch import SETTLED, Batch
from flowvis.delivery.queued import QueuedDestination
from flowvis.native.contract.halves import KEY_SIZE
from flowvis.runtime.ledger import Stage
from waiting import until

from .exported import INTRA_NODE, START_MS, exported
from .test_checkpoint_files import open_files, room_for

NOW_S = START_MS // 1000


def written(*ports: int, cycle: int = 1) -> tuple[Batch, Any]:
    """What a flow table writes of connections, and their keys."""
    table = FlowTable(max_flows=64)
    rows: list[Any] = [INTRA_NODE | {"sourceTransportPort": port} for port in ports]
    table.add(exported(table.strings, *rows), START_MS, cycle)
    keys = table._live.keys(np.arange(len(ports)))
    return table.flush(START_MS, None), keys


class Way:
    """Records under way to a destination, with a directory for checkpoints."""

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = UNBOUNDED,
        wait_s: float = 0.1,
        look_s: float = 0.05,
    ) -> None:
        self.stored = False
        self.destination = QueuedDestination("one", Stage("one"), capacity=1000)
        self.under_way = UnderWay(max_bytes)
        self.checkpoints = Checkpoints(
            CheckpointFiles(path, 1 << 22),
            self.under_way,
            lambda: self.stored,
            lambda: self.destination.mark,
            look_s=look_s,
            wait_s=wait_s,
        )
        self.under_way.keeper = self.checkpoints

    def put(self, batch: Batch) -> None:
        self.under_way.put(batch)
        self.destination.put(batch)

    def deliver(self) -> None:
        taken = self.destination.queue.take()
        assert taken is not None
        self.destination.queue.sent(len(taken))

    async def ports(self, keys: Any, since_s: int = 0) -> list[int]:
        """Of the connections of which something was written."""
        await self.checkpoints.ready()
        found = await self.checkpoints.last_written(Inquiry(keys, since_s))
        return sorted(found.columns["sourceTransportPort"].tolist())

    @property
    def rows(self) -> int:
        return self.checkpoints.stats.rows


async def test_what_is_delivered_is_kept_for_the_next_one(tmp_path: Path) -> None:
    way = Way(tmp_path)
    await way.checkpoints.start()
    batch, keys = written(1, 2, cycle=5)
    way.put(batch)
    assert way.under_way.mark == 5
    assert await way.ports(keys) == [1, 2], "of what is under way itself"
    way.under_way.settle(way.destination.mark)
    assert (way.rows, way.under_way.mark) == (0, 5)
    way.deliver()
    await until(lambda: way.rows == 2)
    assert way.under_way.mark == SETTLED
    await way.checkpoints.stop()
    other = Way(tmp_path)
    await other.checkpoints.start()
    assert await other.ports(keys) == [1, 2]
    assert await other.ports(keys, NOW_S + 3600) == []
    assert await other.ports(np.zeros((1, KEY_SIZE), np.uint8)) == []
    await other.checkpoints.stop()


async def test_who_waits_for_its_turn_waits_for_the_directory_from_then_on(tmp_path: Path) -> None:
    way, other = Way(tmp_path), Way(tmp_path)
    await way.checkpoints.start()
    await other.checkpoints.start()
    batch, keys = written(1, 2)
    way.put(batch)
    way.deliver()
    await asyncio.sleep(0.2)  # longer than it is waited for
    await way.checkpoints.stop()
    assert await other.ports(keys) == [1, 2]
    await other.checkpoints.stop()


async def test_nothing_is_kept_before_what_another_left_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding is a thread's, and says which names are free: the first file would be overwritten."""
    before, _ = written(1, 2)
    way = Way(tmp_path)
    await way.checkpoints.start()
    way.put(before)
    way.deliver()
    await way.checkpoints.stop()
    begun, goes_on = threading.Event(), threading.Event()
    find = CheckpointFiles._find

    def slow(files: CheckpointFiles) -> None:
        begun.set()
        goes_on.wait()
        find(files)

    monkeypatch.setattr(CheckpointFiles, "_find", slow)
    other = Way(tmp_path)
    starting = asyncio.create_task(other.checkpoints.start())
    await until(begun.is_set)
    batch, keys = written(1, 2, 3)
    other.put(batch.take(slice(2, 3)))
    other.deliver()
    other.under_way.settle(other.destination.mark)
    waits = other.under_way.mark
    goes_on.set()
    await starting
    await until(lambda: other.under_way.mark == SETTLED)
    assert await other.ports(keys) == [1, 2, 3]
    assert waits != SETTLED
    await other.checkpoints.stop()


async def test_what_a_stop_gives_up_is_not_kept(tmp_path: Path) -> None:
    way = Way(tmp_path)
    await way.checkpoints.start()
    first, keys = written(1)
    second, others = written(2)
    way.put(first)
    way.put(second)
    way.deliver()
    way.destination.abandon()
    await way.checkpoints.stop()
    other = Way(tmp_path)
    await other.checkpoints.start()
    assert await other.ports(np.concatenate([keys, others])) == [1]
    await other.checkpoints.stop()


async def test_what_cannot_be_written_holds_acknowledgements_within_its_bound(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    way = Way(tmp_path / "file" / "kept", max_bytes=3 * KEPT.itemsize, wait_s=3600)
    await way.checkpoints.start()
    assert "Not a directory" in way.checkpoints.problem
    first, keys = written(1, 2, cycle=5)
    way.put(first)
    way.deliver()
    way.under_way.settle(way.destination.mark)
    assert way.under_way.mark == 5
    way.put(written(3, 4, cycle=6)[0])
    way.deliver()
    way.under_way.settle(way.destination.mark)
    assert (way.under_way.mark, way.under_way.unkept) == (6, 2), "what is let go is acknowledged"
    assert await way.ports(keys) == [], "at once: there is nobody to wait for"
    (tmp_path / "file").unlink()
    await until(lambda: way.rows == 2)
    assert way.under_way.mark == SETTLED
    assert way.checkpoints.problem == ""
    await way.checkpoints.stop()


async def test_a_disk_that_is_full_is_not_tried_all_the_time(tmp_path: Path) -> None:
    way = Way(tmp_path, look_s=3600)
    await way.checkpoints.start()
    with room_for(40):
        batch, keys = written(1, 2)
        way.put(batch)
        way.deliver()
        for _ in range(7):
            way.under_way.settle(way.destination.mark)
    assert way.checkpoints.stats.failures == 1
    assert way.under_way.mark != SETTLED
    await way.checkpoints.stop()
    assert way.under_way.mark == SETTLED, "a stop tries once more"
    other = Way(tmp_path)
    await other.checkpoints.start()
    assert await other.ports(keys) == [1, 2]
    await other.checkpoints.stop()


async def test_of_many_rows_that_are_not_taken_few_are_made_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def full(_: CheckpointFiles, rows: Any) -> None:
        tried.append(len(rows))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    way = Way(tmp_path)
    await way.checkpoints.start()
    rows = np.zeros(MOST_ROWS // 2 + 1, dtype=KEPT)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "append", full)
        assert not way.checkpoints.keep([rows] * 40)
    assert tried == [2 * len(rows)]
    await way.checkpoints.stop()


async def test_who_comes_while_another_has_the_directory_waits(tmp_path: Path) -> None:
    way, other = Way(tmp_path), Way(tmp_path)
    await way.checkpoints.start()
    await other.checkpoints.start()
    assert "another process" in other.checkpoints.problem
    batch, keys = written(1)
    way.put(batch)
    way.deliver()
    await way.checkpoints.stop()
    await until(lambda: not other.checkpoints.problem)
    assert await other.ports(keys) == [1]
    await other.checkpoints.stop()


async def test_a_store_is_the_checkpoint_where_there_is_one(tmp_path: Path) -> None:
    way = Way(tmp_path)
    await way.checkpoints.start()
    way.put(written(1)[0])
    way.deliver()
    await until(lambda: way.rows == 1)
    way.stored = True
    way.put(written(2)[0])
    way.deliver()
    way.under_way.settle(way.destination.mark)
    await until(lambda: way.rows == 0)
    assert not list(tmp_path.glob("*.checkpoints"))  # noqa: ASYNC240
    await way.checkpoints.stop()


async def test_superseded_rows_are_left_out_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowvis.aggregator.checkpoint_files.SPARE_ROWS", 8)
    way = Way(tmp_path)
    await way.checkpoints.start()
    way.checkpoints._clock = lambda: START_MS
    for _ in range(5):
        batch, keys = written(1, 2)
        way.put(batch)
        way.deliver()
        way.under_way.settle(way.destination.mark)
    await until(lambda: way.checkpoints.stats.merged)
    await until(lambda: way.rows == 2)
    assert await way.ports(keys) == [1, 2]
    await way.checkpoints.stop()


async def test_files_that_cannot_be_merged_now_are_merged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowvis.aggregator.checkpoints.AGAIN_S", 0.0)
    monkeypatch.setattr("flowvis.aggregator.checkpoint_files.SPARE_ROWS", 3)
    way = Way(tmp_path)
    await way.checkpoints.start()
    way.checkpoints._clock = lambda: START_MS
    batch, keys = written(1, 2, 3, 4)
    with room_for(3 * KEPT.itemsize):
        assert not way.checkpoints.keep([kept(batch)])
    await until(lambda: way.checkpoints.keep([kept(batch)]))
    before = open_files()
    with room_for(3 * KEPT.itemsize):
        await until(lambda: way.checkpoints.stats.failures >= 5)
        assert "No space" in way.checkpoints.problem
    assert open_files() == before
    assert await way.ports(keys) == [1, 2, 3, 4]
    await until(lambda: way.checkpoints.stats.merged > 0)
    assert await way.ports(keys) == [1, 2, 3, 4]
    await way.checkpoints.stop()


def test_counters_that_began_anew_are_restored() -> None:
    table = FlowTable(max_flows=4)
    way = INTRA_NODE | {"flowStartMilliseconds": START_MS}
    for end, total in ((1000, 500), (2000, 20)):
        row = way | {"flowEndMilliseconds": START_MS + end, "octetTotalCount": total}
        table.add(exported(table.strings, row), START_MS + end)
    batch = table.flush(START_MS + 3000, None)
    assert batch[checkpoint.BASES].any()
    restored = last_written(kept(batch)).rows(np.array([0]))
    live = table._live.rows[:1]
    for name in ("sideEnd", "sideStart", "exporters", "octetTotalCount"):
        assert restored[name].tolist() == live[name].tolist()
    reported = [name for name in live.dtype.names or () if "/" in name]
    assert "octetTotalCount/source" in reported
    for name in reported:
        assert restored[name].tolist() == live[name].tolist(), name


def test_bases_of_many_are_read_at_once() -> None:
    """As after a flush of a node's counters: all of its connections have some, each its own."""
    table = FlowTable(max_flows=64)
    for end, total in ((1000, 500), (2000, 20)):
        rows = [
            INTRA_NODE
            | {"flowStartMilliseconds": START_MS, "flowEndMilliseconds": START_MS + end}
            | {"octetTotalCount": total + 1000 * port, "sourceTransportPort": 1 + port}
            for port in range(50)
        ]
        rows[7]["octetTotalCount"] = end  # of this one they went on
        table.add(exported(table.strings, *rows), START_MS + end)
    batch = table.flush(START_MS + 3000, None)
    assert len(np.unique(batch[checkpoint.BASES])) == 50
    asked: Any = CountingTexts(batch.strings)
    batch.strings = asked
    restored = last_written(kept(batch)).rows(np.arange(50))
    assert asked.times == 1
    for name in ("octetTotalCount/source", "octetTotalCount/destination"):
        assert restored[name].tolist() == table._live.rows[name][:50].tolist()


class CountingTexts:
    """A string table that counts how often it is asked for texts."""

    def __init__(self, strings: Any) -> None:
        self._strings = strings
        self.times = 0

    def texts(self, codes: Any) -> list[str]:
        self.times += 1
        found: list[str] = self._strings.texts(codes)
        return found
