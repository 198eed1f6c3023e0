"""The record buffer: growth, sharing, string tables."""

from struct import pack

import numpy as np
import pytest

from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorSession, RecordBuffer
from flowvis.ipfix.buffer import INITIAL_ROWS, KEPT_ROWS

from . import wire
from .conftest import Leaf
from .wire import ANTREA, VARIABLE

TEMPLATE = wire.message(wire.templates(wire.template(256, (0, 7, 2), (ANTREA, 101, VARIABLE))))


def named(*names: str) -> bytes:
    records = [pack(">H", place & 0xFFFF) + wire.text(name) for place, name in enumerate(names)]
    return wire.message(wire.set_of(256, *records))


def test_it_grows_and_keeps_what_it_has(leaf: Leaf) -> None:
    buffer = RecordBuffer(EXPORTED, leaf.table())
    session = CollectorSession("peer", buffer)
    session.receive(TEMPLATE)
    names = [f"pod-{n % 7}" for n in range(3 * INITIAL_ROWS)]
    for start in range(0, len(names), 4000):
        session.receive(named(*names[start : start + 4000]))
    batch = buffer.batch()
    assert len(buffer) == len(batch) == 3 * INITIAL_ROWS
    assert batch.texts("sourcePodName") == names
    assert (batch["observationDomainId"] == 7).all()
    assert batch["sourceTransportPort"].tolist() == [n % 4000 for n in range(len(names))]
    assert session.stats.records == len(names)


def test_sessions_share_it(leaf: Leaf) -> None:
    buffer = RecordBuffer(EXPORTED, leaf.table())
    first, second = CollectorSession("one", buffer), CollectorSession("other", buffer)
    for session in (first, second):
        session.receive(TEMPLATE)
    first.receive(named("a"))
    second.receive(named("b", "a"))
    first.receive(named("a", "b"))
    batch = buffer.batch()
    assert batch.texts("sourcePodName") == ["a", "b", "a", "a", "b"]


def test_clear_starts_over(leaf: Leaf) -> None:
    buffer = RecordBuffer(EXPORTED, leaf.table())
    session = CollectorSession("peer", buffer)
    session.receive(TEMPLATE + named("a", "b"))
    buffer.clear()
    assert len(buffer) == len(buffer.batch()) == 0
    session.receive(named("c"))
    assert buffer.batch().texts("sourcePodName") == ["c"]


def test_memory_of_a_burst_goes_back(leaf: Leaf) -> None:
    buffer = RecordBuffer(EXPORTED, leaf.table())
    while buffer.target.capacity <= KEPT_ROWS:
        buffer.grow()
    buffer.clear()
    assert buffer.target.capacity == INITIAL_ROWS


def test_another_string_table(leaf: Leaf) -> None:
    """Sessions remember the last code of each text field: not across tables."""
    old, new = leaf.table(), leaf.table()
    new.intern(b"other")
    buffer = RecordBuffer(EXPORTED, old)
    session = CollectorSession("peer", buffer)
    session.receive(TEMPLATE + named("pod"))
    with pytest.raises(ValueError, match="1 records refer to the present table"):
        buffer.strings = new
    kept = buffer.batch().take(np.array([0]))
    buffer.clear()
    buffer.strings = new
    assert buffer.strings is new
    session.receive(named("pod"))
    assert kept.texts("sourcePodName") == buffer.batch().texts("sourcePodName") == ["pod"]
    assert buffer.batch()["sourcePodName"].tolist() == [2]
