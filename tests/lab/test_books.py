"""Books go into a daemon's log and come back."""

import io
import logging

import pytest

from flowvis.lab.books import closing_books
from flowvis.runtime.dropped import FlowDropped
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.logs import JsonFormatter


def log_of(ledger: Ledger) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test of books")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        logger.info("something else", extra={"stage": "not a book"})
        for stage in ledger.stages.values():
            logger.info("books of %s", stage.name, extra=stage.as_dict())
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


@pytest.mark.parametrize("held", [3, 4], ids=["balanced", "unbalanced"])
def test_books_come_back_as_they_are(held: int) -> None:
    ledger = Ledger()
    first = ledger.stage("connections", held=lambda: held)
    first.received, first.sent, first.merged = 100, 80, 10
    first.drop(FlowDropped.REPEATED, 5)
    first.drop(FlowDropped.FULL, 2)
    second = ledger.stage("collector", sources=[first])
    second.received = second.sent = 80
    assert closing_books(f'not JSON\n{log_of(ledger)}{{"sta') == ledger.as_dict()


def test_the_last_books_count() -> None:
    first, second = Ledger(), Ledger()
    first.stage("one").received = 5
    second.stage("one")
    assert closing_books(log_of(first) + log_of(second)) == second.as_dict()


def test_no_books_do_not_balance() -> None:
    assert not closing_books("{}\n")["balanced"]
