"""Checkpoints on disk: found again, merged, bounded; what is damaged is left out and counted."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flowvis.aggregator import checkpoint_files
from flowvis.aggregator.checkpoint_files import CheckpointFiles, look_up
from flowvis.aggregator.correlation.kept import FRAME, HASH, HEAD, KEPT

MOST = 1 << 22
FULL = r"No space|too large"


def rows(*ports: int, end: int = 1000, total: int = 7) -> NDArray[np.void]:
    made = np.zeros(len(ports), dtype=KEPT)
    made["sourceTransportPort"] = ports
    made[HASH] = np.array(ports, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    made["flowEndSeconds"] = end
    made["octetTotalCount"] = total
    return made


def opened(path: Path, most: int = MOST) -> CheckpointFiles:
    files = CheckpointFiles(path, most)
    files.open()
    return files


def found(files: CheckpointFiles, *ports: int) -> list[tuple[int, int]]:
    answer = look_up(files.views(), rows(*ports)[HASH])
    return [(int(row["sourceTransportPort"]), int(row["octetTotalCount"])) for row in answer]


def merged(files: CheckpointFiles, since_s: int = 0) -> None:
    sealed = files.sealed()
    files.replace(sealed, files.merge(sealed, since_s))
    files.sweep()


def left(path: Path) -> list[Path]:
    return sorted(path.glob("*.checkpoints"))


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Have no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # SIGXFSZ is ignored by Python
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_next_one_finds_what_was_appended(tmp_path: Path) -> None:
    files = opened(tmp_path, most=1 << 24)
    files.append(rows(*range(20_000)))
    files.append(rows(5, 6, total=8))
    assert found(files, 5, 19_999, 30_000) == [(5, 7), (19_999, 7), (5, 8)]
    files.close()
    files = opened(tmp_path, most=1 << 24)
    assert files.rows == 20_002
    files.append(rows(5, total=9))
    assert found(files, 5, 4) == [(4, 7), (5, 7), (5, 8), (5, 9)]
    files.close()


def test_one_process_has_a_directory(tmp_path: Path) -> None:
    files = opened(tmp_path)
    with pytest.raises(BlockingIOError):
        opened(tmp_path)
    files.close()
    opened(tmp_path).close()


def test_merging_leaves_the_last_row_of_each_connection(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.append(rows(1, 2, 3))
    files.append(rows(2, end=500, total=9))
    another = rows(3, total=11)
    another["flowStartSeconds"] = 77  # of the same tuple
    files.append(another)
    sealed = files.sealed()
    files.append(rows(1, total=12))  # meanwhile
    files.replace(sealed, files.merge(sealed, since_s=600))
    files.sweep()
    assert found(files, 1, 2, 3) == [(1, 7), (3, 7), (3, 11), (1, 12)]
    files.close()
    files = opened(tmp_path)
    assert found(files, 1, 2, 3) == [(1, 7), (3, 7), (3, 11), (1, 12)]
    merged(files, since_s=2000)
    assert (files.rows, left(tmp_path)) == (0, [])
    files.close()


def test_files_that_go_while_they_are_merged_go_once(tmp_path: Path) -> None:
    most = 400 * KEPT.itemsize
    files = opened(tmp_path, most)
    for port in range(0, 300, 25):
        files.append(rows(*range(port, port + 25)))
    sealed = files.sealed()
    merged = files.merge(sealed, 0)
    for port in range(1000, 1400, 25):  # meanwhile
        files.append(rows(*range(port, port + 25)))
    assert files.forgotten > 100
    files.replace(sealed, merged)
    files.sweep()
    assert files.bytes <= most
    files.append(rows(1, total=8))
    assert found(files, 1, 1399)[-2:] == [(1399, 7), (1, 8)]
    files.close()
    files = opened(tmp_path, most)
    assert len(left(tmp_path)) == len(files.views())
    assert found(files, 1, 1399)[-2:] == [(1399, 7), (1, 8)]
    files.close()


def test_a_file_that_is_merged_keeps_its_name_whatever_is_appended(tmp_path: Path) -> None:
    most = 400 * KEPT.itemsize
    files = opened(tmp_path, most)
    files.append(rows(*range(25)))
    sealed = files.sealed()
    merged = files.merge(sealed, 0)
    for port in range(1000, 1500, 25):  # meanwhile
        files.append(rows(*range(port, port + 25)))
    files.replace(sealed, merged)
    files.sweep()
    assert sorted(view.file.path for view in files.views()) == left(tmp_path)
    assert files.bytes <= most
    files.close()


def test_the_files_that_others_left_become_one(tmp_path: Path) -> None:
    for number in range(3):
        files = opened(tmp_path)
        files.append(rows(number, 9, total=number))
        files.close()
    files = opened(tmp_path)
    merged(files)
    assert len(left(tmp_path)) == 1
    assert found(files, 0, 1, 2, 9) == [(0, 0), (1, 1), (2, 2), (9, 2)]
    files.append(rows(9, total=5))
    files.close()
    assert found(opened(tmp_path), 9) == [(9, 2), (9, 5)]


def test_it_stays_within_its_bytes(tmp_path: Path) -> None:
    files = opened(tmp_path)
    for first in range(0, 40_000, 2000):
        files.append(rows(*range(first, first + 2000), end=first))
        if files.is_long:
            merged(files)
        assert files.bytes == sum(path.stat().st_size for path in left(tmp_path)) <= MOST
    assert found(files, 39_999) == [(39_999, 7)]
    assert files.forgotten == 40_000 - files.rows
    files.close()


def test_it_stays_within_its_bytes_where_nothing_is_merged(tmp_path: Path) -> None:
    files = opened(tmp_path)
    for first in range(0, 32_000, 2000):
        files.sealed()  # a file each
        files.append(rows(*range(first, first + 2000)))
        assert files.bytes <= MOST
    assert files.forgotten == 32_000 - files.rows > 0
    assert found(files, 31_999) == [(31_999, 7)]
    files.close()


@pytest.mark.parametrize(
    ("offset", "lost"),
    [
        (len(HEAD) + 1, [1, 2]),  # the first frame's magic
        (len(HEAD) + 5, [1, 2]),  # how many rows it has
        (len(HEAD) + FRAME.size + KEPT.itemsize, [1, 2]),  # a row
        (len(HEAD) + FRAME.size + 2 * KEPT.itemsize + 13, [3]),  # the second frame's head
    ],
)
def test_damage_costs_what_is_damaged(tmp_path: Path, offset: int, lost: list[int]) -> None:
    files = opened(tmp_path)
    for part in ((1, 2), (3,), (4,)):
        files.append(rows(*part))
    files.close()
    data = bytearray(left(tmp_path)[0].read_bytes())
    data[offset] ^= 0x40
    left(tmp_path)[0].write_bytes(data)
    files = opened(tmp_path)
    assert [port for port, _ in found(files, 1, 2, 3, 4)] == [
        n for n in range(1, 5) if n not in lost
    ]
    assert files.damaged >= 1
    files.close()


def test_what_a_killed_writer_left_half_is_no_damage(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.append(rows(1))
    files.append(rows(2))
    files.close()
    os.truncate(left(tmp_path)[0], left(tmp_path)[0].stat().st_size - 1)
    files = opened(tmp_path)
    assert (found(files, 1, 2), files.damaged) == ([(1, 7)], 0)
    files.append(rows(2, total=8))
    assert found(files, 2) == [(2, 8)]
    files.close()


def test_what_is_no_file_of_ours_is_let_be(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    path = tmp_path / "kept"
    path.mkdir()
    (path / f"{1:016}.checkpoints").symlink_to(outside)
    os.mkfifo(path / f"{2:016}.checkpoints")
    (path / f"{3:016}.checkpoints").write_bytes(b"flowvis checkpoints 0\n" + bytes(5000))
    (path / "notes").write_text("")
    files = opened(path)
    assert files.rows == 0
    files.append(rows(1))
    assert found(files, 1) == [(1, 7)]
    files.close()
    assert outside.read_bytes() == b"theirs"
    assert (path / "notes").exists()


def test_a_disk_that_is_full_leaves_whole_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = opened(tmp_path)
    files.append(rows(1))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:50]))
        with pytest.raises(OSError, match="No space"):
            files.append(rows(2))
    files.append(rows(3))
    files.close()
    files = opened(tmp_path)
    assert (found(files, 1, 2, 3), files.damaged) == ([(1, 7), (3, 7)], 0)
    files.close()


def test_a_disk_that_stays_full_takes_neither_descriptors_nor_what_is_left_of_it(
    tmp_path: Path,
) -> None:
    files = opened(tmp_path / "a")
    before = open_files()
    with room_for(10):
        for _ in range(10):
            with pytest.raises(OSError, match=FULL):
                files.append(rows(1))
    assert open_files() == before
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["lock"]
    files.append(rows(*range(3000)))
    before = open_files()
    with room_for(10_000):
        for _ in range(10):
            with pytest.raises(OSError, match=FULL):
                files.merge(files.sealed(), 0)
            files.keep_unmerged()
    assert open_files() == before
    assert not list((tmp_path / "a").glob("*.new"))
    merged(files)
    assert found(files, 2999) == [(2999, 7)]
    files.close()


def test_files_that_cannot_be_merged_do_not_become_more_and_more(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.append(rows(*range(3000)))
    for number in range(10):
        with room_for(10_000), pytest.raises(OSError, match=FULL):
            files.merge(files.sealed(), 0)
        files.keep_unmerged()
        files.append(rows(1, total=number))
    assert len(left(tmp_path)) == 2
    merged(files)
    files.append(rows(1, total=10))
    merged(files)
    assert len(left(tmp_path)) == 1
    assert found(files, 1, 2) == [(2, 7), (1, 10)]
    files.close()


def test_a_merged_file_that_cannot_have_its_name_leaves_what_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = opened(tmp_path)
    files.append(rows(1))
    files.append(rows(2))

    def refused(*_: object) -> Path:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refused)
        with pytest.raises(OSError, match="Input/output"):
            files.merge(files.sealed(), 0)
    files.keep_unmerged()
    files.close()
    files = opened(tmp_path)
    assert found(files, 1, 2) == [(1, 7), (2, 7)]
    files.close()


def test_a_file_that_the_disk_does_not_give_costs_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        files = opened(tmp_path)
        files.append(rows(number))
        files.close()
    pread, bad = os.pread, left(tmp_path)[1].stat().st_ino

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        if offset and os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, size, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        files = opened(tmp_path)
    assert found(files, 0, 1, 2) == [(0, 7), (2, 7)]
    assert files.damaged == 1
    files.close()
    assert len(left(tmp_path)) == 3
    files = opened(tmp_path)
    assert found(files, 0, 1, 2) == [(0, 7), (1, 7), (2, 7)]
    files.close()


def test_a_directory_that_cannot_be_read_now_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = opened(tmp_path)
    files.append(rows(1))
    files.close()
    before = open_files()

    find = CheckpointFiles._find

    def failing(files: CheckpointFiles) -> None:
        find(files)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "_find", failing)
        files = CheckpointFiles(tmp_path, MOST)
        with pytest.raises(OSError, match="memory"):
            files.open()
    assert not files.is_open
    assert open_files() == before
    files.open()
    assert found(files, 1) == [(1, 7)]
    files.close()


def test_too_many_rows_that_others_left_are_not_read(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.append(rows(*range(3000)))
    files.close()
    files = opened(tmp_path)
    files.append(rows(4000))
    files.close()
    files = opened(tmp_path, most=200_000)
    assert found(files, 1, 4000) == [(4000, 7)]
    assert len(left(tmp_path)) == 1
    files.close()


def test_many_small_files_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_files, "MOST_FILES", 8)
    for number in range(6):
        files = opened(tmp_path)
        files.append(rows(number))
        assert files.is_long == (number >= 4)
        files.close()
