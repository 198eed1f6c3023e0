"""What is typed becomes the parameters of a question."""

import argparse
import time
from datetime import datetime

import pytest

from flowvis.cli.conditions import add_filter, filter_text
from flowvis.cli.feed import Stored
from flowvis.cli.flowctl import attached, main
from flowvis.cli.question import moment, span
from flowvis.filters import parse


def text(*arguments: str) -> str:
    parser = argparse.ArgumentParser()
    add_filter(parser)
    return filter_text(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ""),
        (["src.pod = a"], "src.pod = a"),
        (["src.pod", "=", "a"], "src.pod = a"),
        (["--pod", "shop/cart-*"], "pod = shop/cart-*"),
        (["--from-pod", "a b"], 'src.pod = "a b"'),
        (["--to-namespace", "x", "--port", "80"], "dst.namespace = x and port = 80"),
        (["-n", "a", "--namespace", "b"], "(namespace = a or namespace = b)"),
        (["--not", "--verdict", "allowed"], "not (verdict = allowed)"),
        (["--not", "--pod", "a", "--pod", "b"], "not (pod = a) and pod = b"),
        (["a or b", "--pod", "c"], "(a or b) and pod = c"),
        (["--not", "a or b"], "not (a or b)"),
        (["--not", "a", "--pod", "c"], "(a) and not (pod = c)"),
        (["--label", "app=web"], "label.app = web"),
        (["--from-label", "app"], "not src.label.app is empty"),
        (["--protocol", "tcp", "--to-ip", "10.0.0.0/8"], "dst.ip = 10.0.0.0/8 and proto = tcp"),
        (["--pod", "or"], 'pod = "or"'),
        (["--pod", 'a"*'], 'pod = "a\\"*"'),
    ],
)  # fmt: skip
def test_short_forms_are_filters(arguments: list[str], expected: str) -> None:
    found = text(*arguments)
    assert sorted(found.split(" and ")) == sorted(expected.split(" and "))
    parse(found)


def test_what_denies_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--socket", "/none", "flows", "--not"])
    assert ended.value.code == 2
    assert "--not: nothing follows" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--socket", "/none", "flows", "--label", "a b=c"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", ""),
        ("now", "now"),
        ("15m", "-900000ms"),
        ("-15m", "-900000ms"),
        ("1h30m", "-5400000ms"),
        ("2d", "-172800000ms"),
        ("1700000000000", "1700000000000"),
        ("1712121200000", "1712121200000"),
        ("20260131T12Z", "1769860800000"),
        ("2026-01-31T12:00:00+00:00", "1769860800000"),
        ("yesterday", "yesterday"),
        ("12", "12"),
    ],
)
def test_moments(written: str, expected: str) -> None:
    assert moment(written) == expected


def test_moments_are_of_this_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment("2026-01-31T21:00:00") == "1769860800000"
        assert moment("0001-01-01") == "0001-01-01", "of a year that no clock here has"
        today = datetime.now().astimezone().replace(hour=9, minute=30, second=0, microsecond=0)
        assert moment("9:30".rjust(5, "0")) == str(round(today.timestamp() * 1000))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_ranges() -> None:
    assert span("-2d..-1d") == "-172800000ms..-86400000ms"
    assert span("previous") == "previous"


def test_values_that_look_like_options() -> None:
    assert attached(["diff", "--before", "-2d..-1d", "--since", "1h", "--not", "-x"]) == [
        "diff",
        "--before=-2d..-1d",
        "--since",
        "1h",
        "--not",
        "-x",
    ]


RECORD = {
    "sourceIP": "10.0.0.1", "destinationIP": "10.0.0.2", "sourceTransportPort": 1,
    "destinationTransportPort": 2, "protocolIdentifier": 6, "flowStartSeconds": 1,
    "flowEndSeconds": 2, "flowEndReason": 2, "octetTotalCount": 1, "packetTotalCount": 1,
    "reverseOctetTotalCount": 0, "reversePacketTotalCount": 0, "octetDeltaCount": 1,
    "packetDeltaCount": 1,
}  # fmt: skip


def test_what_is_stored_is_known_as_often_as_it_is_stored() -> None:
    other = RECORD | {"flowEndSeconds": 3, "octetTotalCount": 2}
    stored = Stored([RECORD, RECORD], [*RECORD, "timeInserted"])
    lost = {"lost": 3}
    assert stored.without([RECORD, other, lost]) == [other | {"timeInserted": None}, lost]
    assert stored.without([RECORD, RECORD]) == [RECORD | {"timeInserted": None}]
