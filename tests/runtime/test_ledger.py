import json
from pathlib import Path

import pytest

from flowvis.runtime.dropped import PAGES, FlowDropped, Page
from flowvis.runtime.ledger import Ledger


def test_books_that_balance() -> None:
    held = [4]
    ledger = Ledger()
    collect = ledger.stage("collect")
    flows = ledger.stage("flows", held=lambda: held[0], sources=[collect])
    collect.received = collect.sent = 10
    flows.received, flows.sent, flows.merged = 10, 2, 1
    flows.drop(FlowDropped.LATE, 3)
    flows.drop(FlowDropped.REPEATED, 0)
    assert ledger.imbalance() == {}
    assert ledger.as_dict() == {
        "balanced": True,
        "stages": [
            {
                "stage": "collect",
                "received": 10,
                "sent": 10,
                "merged": 0,
                "dropped": {},
                "held": 0,
                "imbalance": 0,
                "missing": 0,
            },
            {
                "stage": "flows",
                "received": 10,
                "sent": 2,
                "merged": 1,
                "dropped": {"late": 3},
                "held": 4,
                "imbalance": 0,
                "missing": 0,
            },
        ],
    }
    held[0] = 3
    assert ledger.imbalance() == {"flows": 1}
    assert ledger.as_dict()["balanced"] is False


def test_a_record_lost_between_stages_shows() -> None:
    ledger = Ledger()
    first, second = ledger.stage("first"), ledger.stage("second")
    both = ledger.stage("both", sources=[first, second])
    first.received = first.sent = 2
    second.received = second.sent = 3
    both.received = both.sent = 4
    assert both.imbalance == 0
    assert ledger.imbalance() == {"both": 1}


def test_two_stages_of_one_name() -> None:
    ledger = Ledger()
    ledger.stage("a")
    with pytest.raises(ValueError, match="a stage 'a' already"):
        ledger.stage("a")


def test_a_stage_that_opens_later_is_not_missing_what_went_before() -> None:
    ledger = Ledger()
    source = ledger.stage("source")
    source.received = source.sent = 5
    sink = ledger.stage("sink", sources=[source])
    assert ledger.imbalance() == {}
    source.received = source.sent = 7
    assert ledger.imbalance() == {"sink": 2}
    sink.received = sink.sent = 2
    assert ledger.imbalance() == {}


def test_what_a_process_before_has_left_is_received_and_not_missing() -> None:
    ledger = Ledger()
    source = ledger.stage("source")
    sink = ledger.stage("sink", sources=[source], held=lambda: 8)
    sink.inherit(5)
    source.received = source.sent = 3
    assert ledger.imbalance() == {"sink": -3}
    sink.received += 3
    assert ledger.imbalance() == {}
    assert (sink.received, sink.inherited, sink.missing) == (8, 5, 0)


def test_what_goes_past_a_closed_stage_is_not_missing() -> None:
    ledger = Ledger()
    source = ledger.stage("source")
    sink = ledger.stage("sink", sources=[source])
    for passed in (3, 4):
        source.received = source.sent = source.sent + 1
        sink.received = sink.sent = sink.sent + 1
        sink.close()
        sink.close()  # is closed
        source.received = source.sent = source.sent + passed
        assert ledger.imbalance() == {}
        sink.reopen()
        sink.reopen()  # is open
        assert ledger.imbalance() == {}
    source.received = source.sent = source.sent + 1
    assert ledger.imbalance() == {"sink": 1}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stage)
def test_every_reason_has_a_meaning_and_is_documented(page: Page) -> None:
    document = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    for reason in page.dropped or ():
        assert reason == reason.value == str(reason)
        assert reason.meaning
        loss = "yes" if reason.is_loss else ""
        assert f"| {page.stage} | {reason} | {loss} | {reason.meaning} |" in document


def test_a_reason_is_its_word_in_the_books() -> None:
    stage = Ledger().stage("flows")
    stage.received = 3
    stage.drop(FlowDropped.LATE, 3)
    assert json.dumps(stage.as_dict()["dropped"]) == '{"late": 3}'
