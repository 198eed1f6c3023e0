import numpy as np

from flowvis.batch import Batch
from flowvis.exporter.pending import SMALL, Pending
from flowvis.native import StringTable
from flowvis.runtime.dropped import ExportDropped
from flowvis.strings import Strings

STRINGS = StringTable()


def batch(first: int, count: int, strings: Strings = STRINGS) -> Batch:
    return Batch({"number": np.arange(first, first + count)}, strings)


def drain(pending: Pending) -> list[list[int]]:
    taken = []
    while (one := pending.take()) is not None:
        taken.append(one["number"].tolist())
        pending.settle()
    return taken


def balanced(pending: Pending) -> None:
    assert pending.stage.imbalance == 0, pending.stage.as_dict()


def test_in_and_out_in_order() -> None:
    pending = Pending(10_000)
    pending.put(batch(0, SMALL))
    pending.put(batch(SMALL, 0))
    pending.put(batch(SMALL, 2))
    assert len(pending) == SMALL + 2
    assert drain(pending) == [list(range(SMALL)), [SMALL, SMALL + 1]]
    assert pending.stage.sent == SMALL + 2
    balanced(pending)


def test_small_batches_are_joined() -> None:
    pending = Pending(10_000)
    for first in range(0, 100, 10):
        pending.put(batch(first, 10))
    pending.put(batch(100, 5, StringTable()))
    assert drain(pending) == [list(range(100)), list(range(100, 105))]


def test_the_oldest_are_dropped_and_counted() -> None:
    pending = Pending(100)
    pending.put(batch(0, 60, StringTable()))
    pending.put(batch(60, 30, StringTable()))
    pending.put(batch(90, 80, StringTable()))
    assert len(pending) == 100
    assert drain(pending) == [list(range(70, 90)), list(range(90, 170))]
    assert pending.stage.dropped == {ExportDropped.PENDING_FULL: 70}
    balanced(pending)


def test_what_was_not_sent_comes_first_again() -> None:
    pending = Pending(100)
    pending.put(batch(0, 10))
    taken = pending.take()
    assert taken is not None
    pending.put(batch(10, 5))
    balanced(pending)
    pending.settle(taken.take(slice(4, None)))
    assert pending.stage.sent == 4
    assert drain(pending) == [[4, 5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    balanced(pending)


def test_what_is_out_and_given_up() -> None:
    pending = Pending(100)
    pending.put(batch(0, 10))
    pending.take()
    pending.drop(ExportDropped.OVERSIZE, 3)
    balanced(pending)
    pending.settle()
    assert pending.stage.sent == 7
    pending.put(batch(0, 10))
    assert pending.abandon(ExportDropped.STOPPED) == 10
    assert pending.take() is None
    assert pending.stage.dropped == {"oversize": 3, "stopped": 10}
    balanced(pending)
