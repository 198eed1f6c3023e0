"""The store is asked only when it has what was written before."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from flowvis.aggregator.baseline import Baseline, StoredPast
from flowvis.aggregator.correlation.parked import Inquiry
from flowvis.clickhouse.schema.checkpoints import Answer, TooManyRows, Wanted, answer
from flowvis.errors import StoreError
from flowvis.runtime.ledger import Stage
from waiting import until


class Answering:
    """A store that has nothing, and the table that waits for its answer."""

    def __init__(
        self,
        stage: Stage,
        *,
        forgets: bool,
        patient: bool = True,
        awaits: Callable[[], bool] = bool,
    ) -> None:
        self.asked = 0
        self.answered = 0
        self.keys: list[int] = []
        self.most = 16
        self._keys = np.arange(8, dtype=np.uint8).reshape(8, 1).repeat(37, axis=1)
        self._inquiry: Any = Inquiry(self._keys, 0, patient)
        self.forgets = forgets
        self.parked = SimpleNamespace(inquiry=self._next)
        self.table = self
        store: Any = self
        correlator: Any = self
        past = StoredPast(store, stage, store, tick_s=0.01, awaits=awaits)
        self.baseline = Baseline(correlator, lambda: past, tick_s=0.01, patience_s=0.05)

    def _next(self, _now_s: int) -> Any:
        inquiry, self._inquiry = self._inquiry, None
        return inquiry

    def ask_again(self) -> None:
        self._inquiry = Inquiry(self._keys, 0)

    def checkpoints(self, wanted: Wanted) -> Answer:
        self.asked += 1
        if len(wanted.hashes) * (1 if wanted.crowded else 2) > self.most:
            raise TooManyRows(wanted)
        return answer(wanted, [])

    def answer(self, inquiry: Inquiry, _: Any) -> None:
        self.answered += 1
        self.keys += inquiry.keys[:, 0].tolist()


async def test_what_an_aggregator_before_has_spooled_is_stored_first() -> None:
    """Whatever of ours was stored before it was found."""
    looks, spooled = [0], [True]

    def lacks() -> bool:
        looks[0] += 1
        return spooled[0]

    store = Answering(Stage("clickhouse", received=10, sent=10), forgets=True, awaits=lacks)
    await store.baseline.start()
    await until(lambda: looks[0] > 9)
    assert store.asked == 0
    spooled[0] = False
    await until(lambda: store.answered)
    await store.baseline.stop()
    assert store.asked == 1


async def test_what_we_wrote_of_what_is_forgotten_is_stored_first() -> None:
    held = [10]
    stage = Stage("clickhouse", received=10, held=lambda: held[0])
    store = Answering(stage, forgets=True)
    await store.baseline.start()
    ticks = [0]

    def waited() -> bool:
        ticks[0] += 1
        return ticks[0] > 10

    await until(waited)
    assert store.asked == 0
    stage.sent, held[0] = 10, 0
    await until(lambda: store.answered)
    await store.baseline.stop()
    assert store.asked == 1


async def test_without_any_it_is_asked_at_once() -> None:
    stage = Stage("clickhouse", received=10, held=lambda: 10)
    store = Answering(stage, forgets=False)
    await store.baseline.start()
    await until(lambda: store.answered)
    await store.baseline.stop()


async def test_what_one_answer_has_no_room_for_is_asked_in_parts() -> None:
    store = Answering(Stage("clickhouse"), forgets=False)
    store.most = 3  # of crowded ones
    await store.baseline.start()
    await until(lambda: len(store.keys) == 8)
    await store.baseline.stop()
    assert sorted(store.keys) == list(range(8))
    assert (store.asked, store.answered, store.baseline.stats.failures) == (8, 4, 0)
    assert store.baseline.stats.connections == 8


async def test_what_is_only_late_does_not_wait_for_a_store_that_is_away() -> None:
    """It would hold up what is acknowledged behind it for as long as that takes."""
    stage = Stage("clickhouse", received=10, held=lambda: 10)
    late, again = (Answering(stage, forgets=True, patient=patient) for patient in (False, True))
    for each in (again, late):
        await each.baseline.start()
    await until(lambda: late.answered)
    assert (late.asked, late.baseline.stats.unanswered) == (0, 8)
    assert (again.answered, again.baseline.stats.unanswered) == (0, 0)
    for each in (again, late):
        await each.baseline.stop()


async def test_a_defect_in_asking_ends_nothing_and_lets_records_go_on() -> None:
    store = Answering(Stage("clickhouse"), forgets=False)
    asked = store.checkpoints
    errors: list[Exception] = [IndexError("one"), StoreError("away", retryable=True)]
    errors += [ValueError("two"), KeyError("three")]

    def broken(wanted: Wanted) -> Answer:
        if errors:
            store.asked += 1
            raise errors.pop(0)
        return asked(wanted)

    store.checkpoints = broken  # type: ignore[method-assign]
    await store.baseline.start()
    await until(lambda: store.answered)
    assert not errors
    stats = store.baseline.stats
    assert (store.asked, stats.failures, stats.questions, stats.unanswered) == (4, 4, 0, 8)
    assert store.baseline.problem == ""
    store.ask_again()
    await until(lambda: store.answered == 2)
    assert stats.questions == 1
    await store.baseline.stop()
