import logging
import re

import pytest

from flowvis.delivery import patience
from flowvis.delivery.patience import Patience
from flowvis.runtime import losses
from flowvis.runtime.dropped import PAGES, EntryDropped, OutgoingDropped, PacketDropped, reason_of
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.losses import AGAIN_S, Losses
from waiting import until


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, str]]:
    found = [(r.levelno, r.reason, r.getMessage()) for r in caplog.records]  # type: ignore[attr-defined]
    caplog.clear()
    return found


def test_losses_are_logged_at_once_and_then_once_a_minute_for_each_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Ledger()
    stage, other = ledger.stage("clickhouse"), ledger.stage("ipfix")
    seen = Losses(ledger)
    full = "the destination was away or slow for longer than its queue lasts"
    seen.look(0)
    assert logged(caplog) == []
    stage.drop(OutgoingDropped.QUEUE_FULL, 3)
    seen.look(1)
    assert logged(caplog) == [(logging.WARNING, "queue-full", f"3 records dropped: {full}")]
    for second in range(2, 60):
        stage.drop(OutgoingDropped.QUEUE_FULL, 10)
        seen.look(second)
    assert logged(caplog) == []
    stage.drop(OutgoingDropped.OVERSIZE, 1)
    other.drop(OutgoingDropped.QUEUE_FULL, 2)
    seen.look(60)
    assert [reason for _, reason, _ in logged(caplog)] == ["oversize", "queue-full"]
    seen.look(1 + AGAIN_S)
    assert logged(caplog) == [(logging.WARNING, "queue-full", f"580 records dropped: {full}")]
    seen.look(1 + 2 * AGAIN_S)
    assert logged(caplog) == []


def test_what_is_left_is_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    stage = ledger.stage("clickhouse")
    seen = Losses(ledger)
    for second in range(3):
        stage.drop(OutgoingDropped.SHUTDOWN, 5)
        seen.look(second)
    assert len(logged(caplog)) == 1
    seen.look(3, last=True)
    assert logged(caplog)[0][2].startswith("10 records dropped")


def test_drops_that_are_no_losses_are_for_those_who_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    ledger = Ledger()
    stage = ledger.stage("entries")
    stage.drop(EntryDropped.OUT_OF_SCOPE, 7)
    stage.drop(EntryDropped.TABLE_FULL, 1)
    Losses(ledger).look(5)
    assert [(level, reason) for level, reason, _ in logged(caplog)] == [
        (logging.DEBUG, "out-of-scope"),
        (logging.WARNING, "table-full"),
    ]
    assert ledger.losses_as_dicts(7.5) == [
        {"stage": "entries", "reason": "table-full", "records": 1, "lastSeconds": 2.5}
    ]


def test_reasons_of_one_word_are_told_apart_by_their_stage() -> None:
    assert reason_of("denied packets", "table-full") is PacketDropped.TABLE_FULL
    assert reason_of("entries", "table-full") is EntryDropped.TABLE_FULL
    assert reason_of("ipfix", "closed") is OutgoingDropped.CLOSED
    assert reason_of("entries", "closed") is None
    for page in PAGES:
        for reason in page.dropped or ():
            for stage in page.stage.split("`")[1::2]:
                assert reason_of(stage, reason.value) is reason


def test_what_nobody_knows_is_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    ledger.stage("new").dropped["odd"] = 2
    Losses(ledger).look(0)
    assert logged(caplog) == [(logging.WARNING, "odd", "2 records dropped: odd")]
    assert ledger.losses


async def test_it_looks_while_it_runs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOOK_S", 0.01)
    ledger = Ledger()
    stage = ledger.stage("ipfix")
    seen = Losses(ledger)
    await seen.start()
    stage.drop(OutgoingDropped.FAILED, 1)
    await until(lambda: caplog.records)
    stage.drop(OutgoingDropped.FAILED, 4)
    await seen.stop()
    assert [text.split()[0] for _, _, text in logged(caplog)] == ["1", "4"]


async def test_who_does_not_answer_is_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.5)
    waits = Patience("store")
    with waits.waiting("take 5 records"):
        assert waits.problem == ""
        await until(lambda: waits.problem and caplog.records)
    assert waits.problem == ""
    with waits.waiting("take 6 records"):
        pass
    texts = [record.getMessage() for record in caplog.records]
    assert texts[0] == "store: no answer for 0.5 s, asked to take 5 records"
    assert re.fullmatch(r"store: over after no answer for \d+ s", texts[1])
    assert len(texts) == 2
