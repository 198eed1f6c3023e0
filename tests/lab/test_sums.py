"""Sums on made-up stores: each way in which they are not the truth is found."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from flowvis.lab import sums
from flowvis.lab.books import Ledger
from flowvis.lab.expectation import SIDES
from flowvis.lab.faults.fault import damage
from flowvis.lab.measured import COUNTERS, INTERVAL, Row
from flowvis.lab.plan import ORDERS
from flowvis.lab.report import Report
from flowvis.lab.rules import Tuple, WitnessCount
from flowvis.lab.scenarios import choose

(INTER_NODE,) = choose(["inter-node"])
SENT = WitnessCount(100, 20_000, 90, 150_000)
FIRST, REST = WitnessCount(60, 12_000, 50, 90_000), WitnessCount(40, 8_000, 40, 60_000)
KEY = Tuple("tcp", INTER_NODE.client_address, INTER_NODE.client_ports[0], *INTER_NODE.server)
WITNESSES = {INTER_NODE.client.host: {KEY: SENT}}


def record(interval: int, delta: WitnessCount, **changed: object) -> Row:
    row: dict[str, Any] = {
        "protocolIdentifier": 6,
        "sourceIP": INTER_NODE.client_address,
        "sourceTransportPort": INTER_NODE.client_ports[0],
        "destinationIP": ORDERS.addresses[0],
        "flowStartSeconds": 1_700_000_000,
        "flowEndSeconds": 1_700_000_009,
        INTERVAL: interval,
    }
    for name, count in zip(COUNTERS, delta, strict=True):
        for side in ("", *SIDES):
            row[f"{name}DeltaCount{side}"] = row[f"{name}TotalCount{side}"] = count
    return {**row, **changed}


def report(rows: list[Row], ledger: Ledger | None = None) -> Report:
    ledgers = {"flow-aggregator": ledger} if ledger else {}
    return Report(
        sums.judge([INTER_NODE], WITNESSES, rows), ledgers=ledgers, named=sums.losses(ledgers)
    )


def books(stage: str, **dropped: int) -> Ledger:
    named = {word.replace("_", "-"): count for word, count in dropped.items()}
    return {"balanced": True, "stages": [{"stage": stage, "dropped": named}]}


def test_the_truth_in_however_many_records_is_right() -> None:
    for rows in ([record(1, SENT)], [record(2, REST), record(1, FIRST)]):
        found = report(rows)
        assert found.ok
        assert (found.lost_unnamed, found.doubled) == (0, 0)


@pytest.mark.parametrize("rows", [[], [record(1, FIRST)]], ids=["all", "a part"])
def test_what_is_missing_must_be_named(rows: list[Row]) -> None:
    assert report(rows).lost_unnamed == 1
    assert not report(rows).ok
    assert report(rows, books("clickhouse", queue_full=1)).ok
    # Nobody wanted these: they are not what is missing.
    assert report(rows, books("correlator", repeated=7)).lost_unnamed == 1


def test_more_than_was_sent_is_never_right() -> None:
    for more in (record(3, WitnessCount(0, 1, 0, 0)), record(3, WitnessCount(0, 0, 1, 0))):
        found = report([record(1, FIRST), record(2, REST), more], books("clickhouse", queue_full=9))
        assert not found.ok
        assert "sent" in found.findings[0].problems[0]


def test_a_record_that_is_there_twice_is_found_even_where_it_adds_nothing() -> None:
    nothing = record(3, WitnessCount())
    found = report([record(1, SENT), nothing, nothing])
    assert found.doubled == 1
    assert not found.ok


def test_a_loss_of_a_stage_that_is_unknown_counts_as_one() -> None:
    assert sums.losses({"d": books("spool", oldest=3)}) == {"d, spool: oldest": 3}


def test_the_answer_of_the_store_is_compared_in_the_same_way() -> None:
    answer = ["6", INTER_NODE.client_address, str(INTER_NODE.client_ports[0])]
    for stored, missing in ((SENT, 0), (FIRST, 1)):
        rows = [[*answer, ORDERS.addresses[0], *map(str, stored)]]
        assert sums.missing([INTER_NODE], WITNESSES, sums.answered(rows)) == missing
    assert sums.missing([INTER_NODE], WITNESSES, {}) == 1


def test_what_a_full_table_refused_no_kernel_has_counted() -> None:
    refused = WitnessCount(2, 120)
    another = KEY._replace(client_port=1)
    counted = sums.less_refused(WITNESSES, {KEY: refused, another: refused})
    right = SENT._replace(packets=98, octets=19_880)
    assert counted == {INTER_NODE.client.host: {KEY: right}}
    assert sums.judge([INTER_NODE], counted, [record(1, right)])[0].ok
    assert not sums.judge([INTER_NODE], counted, [record(1, SENT)])[0].ok


@pytest.mark.parametrize("size", [0, 64, 65, 4096])
def test_a_file_is_damaged_in_place(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    assert damage(path, Random(1)) == (size > 64)
    assert path.stat().st_size == size
    assert (path.read_bytes() != bytes(size)) == (size > 64)
