"""IPFIX files: what is written is read back, and what is damaged costs itself only."""

import hashlib
import subprocess
from pathlib import Path
from struct import unpack_from

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.batch import Batch
from flowvis.fields import EXPORTED
from flowvis.ipfix.file import FileWriter, read_file
from flowvis.native import StringTable

from .records import batch_of, records_of

NOW = 1_790_000_000


def numbered(first: int, count: int) -> Batch:
    return batch_of(
        [
            {
                "packetTotalCount": n,
                "sourcePodName": f"pod-{n}",
                "sourceIP": "fd00::1" if n % 3 else "10.0.0.1",
                "flowStartMilliseconds": 1000 * NOW + n,
            }
            for n in range(first, first + count)
        ],
        StringTable(),
    )


def written(*batches: Batch) -> list[bytes]:
    writer = FileWriter(7, EXPORTED)
    return [writer.begin(NOW), *(writer.records(batch, NOW) for batch in batches)]


def numbers(data: bytes) -> tuple[list[int], int]:
    content = read_file(data, EXPORTED, StringTable())
    return sorted(content.batch["packetTotalCount"].tolist()), content.damaged


def test_what_is_written_is_read() -> None:
    batches = numbered(1, 5), numbered(6, 3000)
    content = read_file(b"".join(written(*batches)), EXPORTED, StringTable())
    assert content.damaged == 0
    rows = sorted(records_of(content.batch), key=lambda row: row["packetTotalCount"])
    assert rows == records_of(batches[0]) + records_of(batches[1])


def test_each_message_has_its_checksum_and_place() -> None:
    """By RFC 7011 section 3.1 the records of checksums count in the sequence as well."""
    data, at, records = b"".join(written(numbered(1, 4), numbered(5, 2))), 0, 0
    per_message = [0, 0, 0, 1, 3, 1, 1]  # records of IPv4, then of IPv6, of each batch
    for expected in per_message:
        length, sequence = unpack_from(">H", data, at + 2)[0], unpack_from(">I", data, at + 8)[0]
        message = data[at : at + length]
        assert sequence == records
        assert message[-16:] == hashlib.md5(message[:-16] + bytes(16)).digest()  # noqa: S324
        records += expected + 1
        at += length
    assert at == len(data)


def test_each_file_of_a_writer_is_as_its_first() -> None:
    writer = FileWriter(7, EXPORTED)
    batches = numbered(1, 5), numbered(6, 40)
    files = [
        writer.begin(NOW) + b"".join(writer.records(batch, NOW) for batch in batches)
        for _ in range(3)
    ]
    assert files == [b"".join(written(*batches))] * 3


def test_a_file_that_ends_within_a_message() -> None:
    begin, first, second = written(numbered(1, 4), numbered(5, 4))
    for cut in range(1, len(second), 97):
        kept, damaged = numbers(begin + first + second[:-cut])
        assert kept[:4] == [1, 2, 3, 4]
        assert not damaged
    assert numbers(begin[:10]) == ([], 0)
    assert numbers(b"") == ([], 0)


@pytest.mark.parametrize("place", [20, 60, -1, -17])
def test_a_damaged_message_costs_itself_only(place: int) -> None:
    begin, first, second = written(numbered(3, 1), numbered(6, 1))
    spoiled = bytearray(first)
    spoiled[place] ^= 0x40
    assert numbers(begin + bytes(spoiled) + second) == ([6], 1)


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("bits", [1, 0x40, 0xFF])
def test_a_damaged_beginning_costs_that_message_only(at: int, bits: int) -> None:
    """Its version or length: that it is longer than the file does not hide those that follow."""
    begin, first, second, third = written(numbered(3, 1), numbered(6, 1), numbered(9, 1))
    spoiled = bytearray(second)
    spoiled[at] ^= bits
    assert numbers(begin + first + bytes(spoiled) + third) == ([3, 9], 1)
    assert numbers(begin + first + bytes(spoiled)) == ([3], 1)


def test_any_damage_of_a_bit_is_told_and_costs_one_message() -> None:
    whole = b"".join(written(*(numbered(3 * n, 1) for n in range(1, 6))))
    begin = len(written()[0])
    for place in range(begin, len(whole)):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << place % 8
        kept, damaged = numbers(bytes(spoiled))
        assert (len(kept), damaged) == (4, 1), place


def test_not_a_file_of_ours() -> None:
    assert numbers(b"PK\3\4" + bytes(100)) == ([], 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 255)), max_size=6))
def test_nothing_that_was_not_written_is_read(flips: list[tuple[int, int]]) -> None:
    data = bytearray(b"".join(DATA))
    for place, bits in flips:
        data[place % len(data)] ^= bits
    content = read_file(bytes(data), EXPORTED, StringTable())
    for row in records_of(content.batch):
        assert row in ROWS
    if data == b"".join(DATA):
        assert len(content.batch) == len(ROWS)


_BATCH = numbered(1, 30)
DATA = written(*(_BATCH.take(np.arange(n, n + 5)) for n in range(0, 30, 5)))
ROWS = records_of(_BATCH)


def test_other_programs_read_it(tmp_path: Path) -> None:
    """Wireshark opens IPFIX files as they are."""
    path = tmp_path / "records.ipfix"
    path.write_bytes(b"".join(written(numbered(1, 4))))
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "cflow.permanent_packets"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    totals = [int(n) for line in shown.split("\n") for n in line.split(",") if n]
    assert [n for n in totals if n] == [3, 1, 2, 4]
