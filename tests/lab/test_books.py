"""A ledger goes into metrics and comes back."""

import pytest
from prometheus_client import generate_latest

from flowvis.lab.books import read_books
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.metrics import new_registry


@pytest.mark.parametrize("held", [3, 4], ids=["balanced", "unbalanced"])
def test_books_come_back_as_they_are(held):
    ledger = Ledger()
    first = ledger.stage("connections", held=lambda: held)
    first.received, first.sent, first.merged = 100, 80, 10
    first.drop("filtered", 5)
    first.drop("full", 2)
    second = ledger.stage("collector", sources=[first])
    second.received = second.sent = 80
    assert read_books(generate_latest(new_registry("test", ledger)).decode()) == ledger.as_dict()
