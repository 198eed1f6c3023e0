"""Batches on disk: whole or refused, in order, bounded, and of one process."""

import os
import random
import struct
import subprocess
import sys
import threading
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.batch import Batch
from flowvis.checkpoint import COLUMNS
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.spooled import CorruptFile, restored, spooled
from flowvis.clickhouse.spool import CORRUPT, KEPT_ASIDE, Entry, Spool, SpoolError, SpoolFull
from flowvis.clickhouse.store import Store
from flowvis.fields import TEXT_FIELDS

from .samples import flows, random_batch

ID = BatchId("host-1a2b", 1_790_000_000, 7)


def put(spool: Spool, batch: Batch, batch_id: BatchId = ID) -> Entry:
    entry = spool.write(batch, batch_id)
    spool.add(entry)
    return entry


def gone(spool: Spool, entry: Entry | None) -> None:
    assert entry is not None
    spool.forget(entry)
    spool.delete(entry)


def same(one: Batch, other: Batch) -> None:
    assert set(one.columns) == set(other.columns)
    for name, column in one.columns.items():
        if name in TEXT_FIELDS:
            assert one.texts(name) == other.texts(name), name
        else:
            assert column.dtype == other[name].dtype
            assert np.array_equal(column, other[name]), name


@pytest.mark.parametrize("rows", [1, 2, 300, 70_000])
def test_a_file_gives_back_what_was_written(rows: int) -> None:
    batch = random_batch(rows)
    found, batch_id = restored(spooled(batch, ID))
    assert batch_id == ID
    same(batch, found)


def test_many_texts_have_wide_places() -> None:
    batch = flows(70_000)
    batch["sourcePodName"] = batch.strings.encode([f"pod-{n}" for n in range(70_000)])
    found, _ = restored(spooled(batch, ID))
    same(batch, found)


def test_columns_that_do_not_lie_together_are_written_as_they_are() -> None:
    batch = random_batch(40)
    view = batch.take(slice(None, None, 3))
    found, _ = restored(spooled(view, ID))
    same(view, found)


@pytest.mark.clickhouse
@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_a_program_before_spooled_is_stored_by_this_one(
    embedded: Store, *, checkpoint: bool
) -> None:
    """It lacked fields, had others, and numbers that were shorter."""
    batch = random_batch(40)
    if checkpoint:
        for name, kind in COLUMNS.items():
            batch[name] = np.ones(40, kind)
        del batch.columns["recordNumber"]
    batch["egressedBy"] = np.ones(40, np.uint64)
    batch["octetDeltaCount"] = (batch["octetDeltaCount"] & np.uint64(0xFFFF)).astype(np.uint32)
    for name in ("sourceZone", "flowType", "egressIP", "trafficNobodyCounts"):
        batch.columns.pop(name, None)
    found, batch_id = restored(spooled(batch, ID))
    assert "flowState" not in found
    embedded.insert(found, batch_id, again=True)
    (row,) = embedded.query(
        "SELECT count(), sum(octetDeltaCount), groupUniqArray(sourceZone), sum(flowType),"
        " groupUniqArray(egressIP) FROM flows"
    ).rows
    assert row == [40, int(batch["octetDeltaCount"].sum()), [""], 0, [""]]


def test_an_address_that_is_none_is_no_file_of_ours() -> None:
    batch = random_batch(4)
    batch["sourceIP"] = np.zeros((4, 4), np.uint8)
    with pytest.raises(CorruptFile, match="sourceIP: values of another kind"):
        restored(spooled(batch, ID))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_was_changed_or_cut_is_noticed(data: st.DataObject) -> None:
    file = bytearray(spooled(random_batch(20), ID))
    if data.draw(st.booleans()):
        del file[data.draw(st.integers(0, len(file) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(file) - 1))
        file[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptFile):
        restored(bytes(file))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.randoms(use_true_random=False))
def test_a_file_that_somebody_made_is_refused(junk: bytes, randomly: random.Random) -> None:
    """With a checksum that is right: who can write there can do that as well."""
    file = spooled(random_batch(5), ID)[:-16]
    size = struct.unpack_from("<I", file, 8)[0]
    cut = randomly.choice([8, 12, 12 + size, len(file)])
    made = file[:cut] + junk
    made += blake2b(made, digest_size=16).digest()
    if junk:
        with pytest.raises(CorruptFile):
            restored(made)


def test_in_order_and_over_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 30)
    spool.open()
    batches = [flows(rows) for rows in (3, 5, 7)]
    for number, batch in enumerate(batches):
        put(spool, batch, BatchId("w", 100, number))
    assert (len(spool), spool.records) == (3, 15)
    first = spool.oldest
    assert first is not None
    gone(spool, first)
    spool.close()
    again = Spool(tmp_path / "spool", 1 << 30)
    again.open()
    assert again.records == 12
    for number in (1, 2):
        entry = again.oldest
        assert entry is not None
        batch, batch_id = again.read(entry)
        assert batch_id == BatchId("w", 100, number)
        same(batch, batches[number])
        gone(again, entry)
    assert (again.oldest, again.bytes) == (None, 0)
    assert put(again, flows(1), ID).number == 3
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == [
        "000000000003-1.batch",
        "lock",
    ]


def test_its_size_is_that_of_its_files(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    for _ in range(3):
        put(spool, flows(1000), ID)
    assert spool.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.batch"))
    assert spool.bytes < 3 * 1000 * 300  # deflated


def test_files_are_written_while_others_come_and_go(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As in a writer: one thread writes, and the loop forgets what the store has."""
    spool = Spool(tmp_path, 1 << 40)
    spool.open()
    for number in range(30_000):
        spool.add(Entry(number, 2, 700))
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            oldest = spool.oldest
            assert oldest is not None
            spool.forget(oldest)
            spool.add(oldest)

    loop = threading.Thread(target=come_and_go)
    loop.start()
    try:
        written = [spool.write(flows(1), ID) for _ in range(20)]
    finally:
        over.set()
        loop.join()
    assert (len(written), spool.records, spool.bytes) == (20, 60_000, 21_000_000)


def test_names_that_others_gave_cost_no_file(tmp_path: Path) -> None:
    (tmp_path / "\N{SUPERSCRIPT TWO}").write_text("not ours")
    (tmp_path / "999999999999-1.batch").write_text("not ours")
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    late = put(spool, flows(3))
    spool.close()
    again = Spool(tmp_path, 1 << 30)
    again.open()
    assert [entry.name for entry in again] == ["999999999999-1.batch", late.name]
    assert put(again, flows(1)).number == late.number + 1
    again.close()


def test_files_are_read_by_their_owner_only(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a directory that is there before, as a volume, and others may look into."""
    tmp_path.chmod(0o755)
    request.addfinalizer(partial(os.umask, os.umask(0o022)))
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    put(spool, flows(2))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"lock": 0o600, "000000000000-2.batch": 0o600}


def test_what_nobody_can_look_at_costs_only_itself(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    good = put(spool, flows(3))
    spool.close()
    (tmp_path / "000000000004-5.batch").symlink_to(tmp_path / "nowhere")
    (tmp_path / "000000000005-6.partial").mkdir()
    again = Spool(tmp_path, 1 << 30)
    again.open()
    first, bad = again
    assert (first, bad.records, again.records) == (good, 5, 8)
    assert len(again.read(first)[0]) == 3
    with pytest.raises(CorruptFile, match="No such file"):
        again.read(bad)
    again.close()


def test_what_was_not_whole_is_gone_and_what_is_corrupt_is_put_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    for _ in range(KEPT_ASIDE + 3):
        put(spool, flows(2), ID)
    spool.close()
    (tmp_path / "000000000099-4.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    again = Spool(tmp_path, 1 << 30)
    again.open()
    assert not (tmp_path / "000000000099-4.partial").exists()
    while (entry := again.oldest) is not None:
        path = tmp_path / entry.name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CorruptFile, match="checksum"):
            again.read(entry)
        again.forget(entry)
        again.put_aside(entry, CORRUPT)
    assert len(list(tmp_path.glob("*.corrupt"))) == KEPT_ASIDE
    assert (tmp_path / "notes.txt").exists()
    again.close()
    later = Spool(tmp_path, 1 << 30)
    later.open()
    assert len(later) == 0
    assert put(later, flows(1), ID).number > KEPT_ASIDE + 2  # no name comes twice


def test_a_file_under_another_name_is_corrupt(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    entry = put(spool, flows(2), ID)
    (tmp_path / entry.name).rename(tmp_path / "000000000000-9.batch")
    spool.close()
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    found = spool.oldest
    assert found is not None
    with pytest.raises(CorruptFile, match="its name says 9"):
        spool.read(found)


def test_one_process_has_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    code = (
        "import sys; from pathlib import Path; from flowvis.clickhouse.spool import Spool\n"
        "try: Spool(Path(sys.argv[1]), 1).open()\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "another process has it" in done.stdout
    spool.close()
    spool.open()


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="file/below: Not a directory"):
        Spool(tmp_path / "file" / "below", 1 << 30).open()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, 1 << 30)
    spool.open()
    put(spool, flows(1), ID)
    with monkeypatch.context() as patched:

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(os, "fsync", full)
        with pytest.raises(SpoolError, match="No space left"):
            put(spool, flows(2), ID)
    assert (len(spool), len(list(tmp_path.glob("*")))) == (1, 2)
    put(spool, flows(3), ID)
    assert spool.records == 4


def test_it_takes_no_more_than_it_may(tmp_path: Path) -> None:
    size = len(spooled(flows(1000), ID))
    spool = Spool(tmp_path, 3 * size + 10)
    spool.open()
    for _ in range(2):
        put(spool, flows(1000))
    roomy = [spool.has_room(), spool.has_room(size + 100)]
    put(spool, flows(1000))
    roomy.append(spool.has_room())
    assert roomy == [True, False, False]
    with pytest.raises(SpoolFull, match="full, with"):
        spool.write(flows(1000), ID)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", *[".batch"] * 3]
    gone(spool, spool.oldest)
    put(spool, flows(1000))
