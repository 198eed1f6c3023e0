import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowvis.denials.sources import follow
from flowvis.denials.sources.follow import MAX_LINE_BYTES, Follower


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "np.log"


@pytest.fixture
def follower(path: Path) -> Iterator[Follower]:
    made = Follower(path)
    yield made
    made.close()


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def everything(follower: Follower) -> list[bytes]:
    lines = []
    while more := follower.read():
        lines += more
    return lines


def test_what_was_there_is_old(follower: Follower, path: Path) -> None:
    write(path, "old\n")
    assert everything(follower) == []
    write(path, "one\ntwo\n")
    assert everything(follower) == [b"one", b"two"]
    assert everything(follower) == []


def test_a_file_that_comes_later_is_new(follower: Follower, path: Path) -> None:
    assert everything(follower) == []
    write(path, "one\n")
    assert everything(follower) == [b"one"]


def test_lines_come_in_parts(follower: Follower, path: Path) -> None:
    everything(follower)
    for part, expected in (("o", []), ("ne", []), ("\ntw", [b"one"]), ("o\n", [b"two"])):
        write(path, part)
        assert everything(follower) == expected


def test_rotation_loses_nothing(follower: Follower, path: Path) -> None:
    everything(follower)
    write(path, "one\n")
    assert everything(follower) == [b"one"]
    write(path, "two\n")
    old = path.rename(path.with_name("np-2026.log"))
    write(old, "three\n")
    assert everything(follower) == [b"two", b"three"]
    write(old, "four")
    assert everything(follower) == []
    write(path, "five\n")
    assert everything(follower) == [b"four", b"five"]
    (path.parent / "np-2026.log.gz").write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()
    write(path, "six\n")
    assert everything(follower) == [b"six"]
    assert follower.stats.rotations == 1


def test_a_log_that_is_cut_off(follower: Follower, path: Path) -> None:
    everything(follower)
    write(path, "one\ntwo\nrest")
    assert everything(follower) == [b"one", b"two"]
    path.write_text("three\n")
    assert everything(follower) == [b"three"]
    assert follower.stats.truncations == 1


def test_reading_is_bounded(
    follower: Follower, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "READ_BYTES", 100)
    everything(follower)
    write(path, "0123456789\n" * 50)
    assert len(follower.read()) == 9
    assert len(everything(follower)) == 41


def test_lines_that_are_too_long(
    follower: Follower, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "READ_BYTES", MAX_LINE_BYTES)
    everything(follower)
    write(path, "one\n" + "x" * 5 * MAX_LINE_BYTES)
    for _ in range(9):
        follower.read()
    write(path, "xxx\ntwo\n")
    assert everything(follower) == [b"two"]
    assert follower.stats.oversize == 1


def test_what_comes_after_a_long_line_of_a_file_that_was_replaced(
    follower: Follower, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of it brings no whole line, and is not its end."""
    monkeypatch.setattr(follow, "READ_BYTES", MAX_LINE_BYTES)
    everything(follower)
    write(path, "one\n")
    assert everything(follower) == [b"one"]
    write(path, "x" * 6 * MAX_LINE_BYTES + "\ntwo\nthree")
    path.rename(path.with_name("np-2026.log"))
    write(path, "four\n")
    found = [line for _ in range(12) for line in follower.read()]
    assert found == [b"two", b"three", b"four"]
    assert (follower.stats.rotations, follower.stats.oversize) == (1, 1)


def test_a_long_line_at_once(follower: Follower, path: Path) -> None:
    everything(follower)
    write(path, "one\n" + "x" * (MAX_LINE_BYTES + 1) + "\ntwo\n")
    assert everything(follower) == [b"one", b"two"]
    assert follower.stats.oversize == 1


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_cannot_be_read(path: Path, make: Callable[[Path], None]) -> None:
    """Nobody writes into the pipe: who waits for that does nothing else."""
    make(path)
    follower = Follower(path)
    for failures in (1, 2):
        with pytest.raises(OSError, match=r"no regular file: .*np\.log"):
            follower.read()
        assert follower.stats.failures == failures
    path.rename(path.with_suffix(".old"))
    assert follower.read() == []
    write(path, "one\n")
    assert follower.read() == [b"one"]
    follower.close()
