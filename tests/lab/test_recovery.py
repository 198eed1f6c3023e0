"""How long a run waits for the store: as long as there is something to wait for."""

from functools import partial

import pytest
from prometheus_client import generate_latest

from flowvis.lab.recovery import AWAY, LONGEST_S, STILL_S, STUCK_S, Recovery, on_the_way
from flowvis.lab.report import Report
from flowvis.lab.verdict import Finding
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.metrics import ReadingsCollector, new_registry

HELD = {"flow-exporter-node-1, records": 499}


def metrics(connected: int | None, **held: int) -> str:
    ledger = Ledger()
    for name, count in held.items():
        ledger.stage(name.replace("_", " "), held=partial(int, count))
    registry = new_registry("lab", ledger)
    if connected is not None:
        text = "1 while a session with the collector stands", lambda: connected
        registry.register(ReadingsCollector("flowvis_exporter", {"client_connected": text}))
    return generate_latest(registry).decode()


def test_what_a_daemon_has_for_the_store_is_told_from_what_it_only_knows() -> None:
    exporter = {"entries": 0, "connections": 40, "records": 3, "denied_connections": 2}
    assert on_the_way(metrics(1, **exporter)) == {"records": 3}
    assert on_the_way(metrics(0, **exporter)) == {"records": 3, AWAY: 42}
    aggregator = {"collector": 0, "correlator": 7, "clickhouse": 5, "flow_metrics": 0}
    assert on_the_way(metrics(None, **aggregator)) == {"correlator": 7, "clickhouse": 5}


@pytest.mark.parametrize(("waiting", "patience_s"), [({}, STILL_S), (HELD, STUCK_S)])
def test_it_waits_longer_for_what_somebody_has(waiting: dict[str, int], patience_s: float) -> None:
    recovery = Recovery(100.0)
    assert recovery.look(162, waiting, 110.0)
    assert recovery.look(162, waiting, 109.0 + patience_s)
    assert not recovery.look(162, waiting, 111.0 + patience_s)
    assert recovery.waiting == waiting


def test_it_goes_on_while_sums_change_but_not_for_ever() -> None:
    recovery = Recovery(0.0)
    now_s = 0.0
    while recovery.look(int(now_s) % 7 + 1, {}, now_s):
        now_s += 1.0
    assert now_s == LONGEST_S


def test_the_truth_ends_it_and_a_store_that_is_silent_does_not() -> None:
    recovery = Recovery(0.0)
    now_s = 0.0
    while recovery.look(None if int(now_s) % 2 else 3, {}, now_s):  # it says nothing new
        now_s += 1.0
    assert now_s == STILL_S
    recovery = Recovery(0.0)
    assert recovery.look(None, HELD, 1.0)
    assert recovery.look(3, HELD, 2.0)
    assert not recovery.look(0, HELD, 3.0)


def test_what_is_still_on_its_way_is_no_loss_and_not_right_either() -> None:
    short = Finding("bulk", 162, short=162)
    assert Report([short]).lost_unnamed == 162
    report = Report([short], waiting=HELD)
    assert report.lost_unnamed == 0
    assert not report.ok
    right = Report([Finding("bulk", 162)], waiting=HELD)  # it came as the daemons ended
    assert right.ok
