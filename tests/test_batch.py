"""Batches: columns of one length over one string table."""

from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowvis.batch import (
    SETTLED,
    Batch,
    address_bytes,
    address_text,
    any_of,
    concat,
    is_ipv4,
    is_unset,
    is_zero,
    move_codes,
    only,
    same_addresses,
    take,
    whole_rows,
)
from flowvis.native import StringTable


def addresses(*texts: str) -> np.ndarray:
    return np.array([list(address_bytes(text)) for text in texts], dtype=np.uint8)


def batch_of(pods: list[str], octets: list[int]) -> Batch:
    strings = StringTable()
    return Batch(
        {
            "sourcePodName": strings.encode(pods),
            "octetDeltaCount": np.array(octets, dtype=np.uint64),
        },
        strings,
    )


def test_columns_must_agree_in_length() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Batch({"a": np.zeros(2), "b": np.zeros(3)}, StringTable())
    batch = batch_of(["a"], [1])
    with pytest.raises(ValueError, match="2 values for 1 records"):
        batch["c"] = np.zeros(2)


def test_take_selects_and_copies() -> None:
    batch = batch_of(["a", "b", "c"], [1, 2, 3])
    taken = batch.take(np.array([2, 0]))
    assert taken.texts("sourcePodName") == ["c", "a"]
    assert taken["octetDeltaCount"].tolist() == [3, 1]
    assert batch.take(batch["octetDeltaCount"] > 1).texts("sourcePodName") == ["b", "c"]
    assert list(batch.select(["octetDeltaCount"]).columns) == ["octetDeltaCount"]


def test_concat_needs_one_string_table() -> None:
    first, second = batch_of(["a"], [1]), batch_of(["b"], [2])
    with pytest.raises(ValueError, match="different string tables"):
        concat([first, second])
    joined = concat([first, second.on(first.strings, ["sourcePodName"])])
    assert joined.texts("sourcePodName") == ["a", "b"]
    assert joined["octetDeltaCount"].tolist() == [1, 2]


def test_moving_codes_keeps_the_text_and_interns_each_once() -> None:
    source, target = StringTable(), StringTable()
    target.encode(["x", "y", "web-1"])
    codes = source.encode(["web-1", "db", "", "web-1"])
    moved = move_codes(codes, source, target)
    assert target.texts(moved) == ["web-1", "db", "", "web-1"]
    assert len(target) == 5  # the empty string, x, y, web-1, db


def test_a_batch_on_its_own_table_is_itself() -> None:
    batch = batch_of(["a"], [1])
    assert batch.on(batch.strings, ["sourcePodName"]) is batch


@given(st.ip_addresses())
@example(IPv6Address("::ffff:0:0"))
@example(IPv6Address("::ffff:10.0.0.1"))
def test_address_text_is_what_people_write(address: IPv4Address | IPv6Address) -> None:
    text = address_text(address_bytes(str(address)))
    plain = getattr(address, "ipv4_mapped", None) or address
    assert text == (str(plain) if int(plain) else "")


@pytest.mark.parametrize("text", ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "pod-1", "1.2.3.x", ":"])
def test_a_bad_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="IPv4 or IPv6 address"):
        address_bytes(text)


def test_families_and_absence() -> None:
    column = addresses("10.0.0.1", "2001:db8::1", "0.0.0.0", "::")
    assert is_ipv4(column).tolist() == [True, False, True, False]
    assert is_unset(column).tolist() == [False, False, True, True]
    assert is_unset(addresses("::1", "::ffff:0:1")).tolist() == [False, False]


MAPPED = ("10.0.0.1", "0.0.0.0", "255.255.255.255")
OTHER = ("::", "::1", "::fffe:a00:1", "1::ffff:a00:1", "::ffff:0:a00:1", "0:0:0:1::ffff:a00:1")


@pytest.mark.parametrize("stride", [1, 2], ids=["contiguous", "strided"])
def test_which_addresses_are_ipv4(stride: int) -> None:
    column = np.repeat(addresses(*MAPPED, *OTHER), stride, axis=0)[::stride]
    assert is_ipv4(column).tolist() == [True] * len(MAPPED) + [False] * len(OTHER)
    assert is_ipv4(column[:0]).tolist() == []


@pytest.mark.parametrize("stride", [1, 3], ids=["contiguous", "strided"])
def test_which_addresses_are_the_same(stride: int) -> None:
    one = np.repeat(addresses("10.0.0.1", "fd00::1", "fd00::1", "::"), stride, axis=0)[::stride]
    other = addresses("10.0.0.1", "fd00::2", "fd01::1", "::")
    assert same_addresses(one, other).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    "which",
    [
        np.array([3, 0, -1, 3]),
        np.array([], dtype=np.int64),
        np.array([True, False, False, True, True]),
        np.zeros(5, dtype=bool),
        slice(1, -1),
    ],
    ids=["positions", "no positions", "mask", "empty mask", "slice"],
)
def test_the_same_rows_of_columns_of_any_layout(which: np.ndarray | slice) -> None:
    rows = np.arange(5 * 16, dtype=np.uint8).reshape(5, 16)
    records = np.zeros(5, dtype=[("address", "u1", 16), ("count", "u8")])
    records["address"], records["count"] = rows, range(5)
    columns = [rows, rows[:, ::2], records["address"], records["count"], np.arange(5)]
    taken = list(take(columns, which))
    assert all((one == column[which]).all() for one, column in zip(taken, columns, strict=True))
    assert [one.shape for one in taken] == [column[which].shape for column in columns]


@pytest.mark.parametrize("which", [[True, False, True], [False] * 3, [True] * 3])
@pytest.mark.parametrize("stride", [1, 2], ids=["contiguous", "strided"])
def test_only_some_rows(which: list[bool], stride: int) -> None:
    column = np.repeat(addresses("10.0.0.1", "fd00::1", "fd00::2"), stride, axis=0)[::stride]
    mask = np.array(which)
    kept = only(column, mask)
    assert (kept == np.where(mask[:, None], column, 0)).all()
    kept[:] = 7
    assert column.tolist() == addresses("10.0.0.1", "fd00::1", "fd00::2").tolist()


def test_rows_are_assigned_whole() -> None:
    counters = np.arange(20, dtype=np.uint64).reshape(5, 4)
    whole_rows(counters)[[3, 0]] = whole_rows(np.full((4, 4), 9, dtype=np.uint64)[::2])
    assert counters.tolist() == [[9] * 4, [4, 5, 6, 7], [8, 9, 10, 11], [9] * 4, [16, 17, 18, 19]]
    ports = np.arange(3)
    assert whole_rows(ports) is ports


def test_which_addresses_are_zero() -> None:
    column = addresses("::", "::1", "1::", "0.0.0.0", "::1:0:0:0")
    assert is_zero(column).tolist() == [True, False, False, False, False]
    assert is_zero(column[::-2]).tolist() == [False, False, True]


def test_which_rows_have_any() -> None:
    few = np.array([[False, False], [True, False], [False, True], [True, True]])
    assert any_of(few).tolist() == [False, True, True, True]
    assert any_of(few[:, :1]).tolist() == [False, True, False, True]


def test_the_mark_goes_with_the_records_and_the_oldest_is_that_of_all() -> None:
    made = batch_of(["web-0", "web-1"], [1, 2])
    assert made.mark == SETTLED
    made.mark = 7
    later = made.take(np.array([1]))
    later.mark = 9
    for part in (
        made.take(slice(1)),
        made.take(np.array([False, False])),
        made.select(["octetDeltaCount"]),
        made.on(StringTable(), ["sourcePodName"]),
        concat([later, made]),
    ):
        assert part.mark == 7
    assert concat([later, later]).mark == 9
