"""Columns of entries."""

from typing import Any

import numpy as np
import pytest

from flowvis.conntrack.entries import Entries
from flowvis.native import EntryDecoder
from flowvis.native.contract.conntrack import RECORD

from .messages import CT_NEW, FULL, message, udp


def some(*ports: int) -> Entries:
    decoder = EntryDecoder()
    for port in ports:
        decoder.feed(message(CT_NEW, udp(source_port=port)))
    return Entries.of(decoder.take())


def test_columns_are_those_of_the_decoder() -> None:
    assert list(Entries.none().columns()) == list(RECORD.names or ())
    decoder = EntryDecoder()
    decoder.feed(message(CT_NEW, FULL))
    entries = Entries.of(decoder.take())
    assert len(entries) == 1
    assert entries.octets.tolist() == [1 << 44]
    assert entries.source.shape == (1, 16)


def test_none_has_the_columns_types() -> None:
    for name, column in Entries.none().columns().items():
        assert column.dtype == RECORD[name].base
        assert column.shape == (0, *RECORD[name].shape)


@pytest.mark.parametrize(
    "which", [np.array([2, 0]), np.array([True, False, True]), slice(1, None)], ids=repr
)
def test_take(which: Any) -> None:
    entries = some(10, 11, 12)
    taken = entries.take(which)
    assert taken.source_port.tolist() == np.array([10, 11, 12])[which].tolist()
    assert taken.source.shape == (2, 16)


def test_concat() -> None:
    joined = Entries.concat([some(1, 2), some(), some(3)])
    assert joined.source_port.tolist() == [1, 2, 3]
    assert joined.source.shape == (3, 16)
    assert len(Entries.concat([])) == 0
    alone = some(4)
    assert Entries.concat([alone]).source_port is alone.source_port
