"""What is typed becomes the parameters of a question."""

import argparse
import re
import time
from collections.abc import Generator, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.records import records
from flowvis.cli.client import Client, ControlSocket, Event, Refused
from flowvis.cli.conditions import add_filter, filter_text
from flowvis.cli.feed import Feed, Stored
from flowvis.cli.flowctl import attached, main
from flowvis.cli.question import compared, moment
from flowvis.filters import parse
from flowvis.filters.mask import mask
from flowvis.questions.times import parse_moment


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
        (
            ["--label", "app", "--port", "80"],
            "(not src.label.app is empty or not dst.label.app is empty) and port = 80",
        ),
        (["--protocol", "tcp", "--to-ip", "10.0.0.0/8"], "dst.ip = 10.0.0.0/8 and proto = tcp"),
        (["--pod", "or"], 'pod = "or"'),
        (["--pod", 'a"*'], 'pod = "a\\"*"'),
    ],
)  # fmt: skip
def test_short_forms_are_filters(arguments: list[str], expected: str) -> None:
    found = text(*arguments)
    assert sorted(found.split(" and ")) == sorted(expected.split(" and "))
    parse(found)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--label", "app"], [0, 1, 2]),
        (["--not", "--label", "app"], [3]),
        (["--label", "app=web"], [0, 1]),
        (["--from-label", "app"], [0, 2]),
        (["--not", "--to-label", "app"], [2, 3]),
        (["--label", "app", "--port", "80"], [2]),
    ],
)
def test_a_label_of_any_value_is_of_either_end(arguments: list[str], shown: list[int]) -> None:
    web, other, none = '{"app":"web"}', '{"app":"cart"}', '{"tier":"front"}'
    batch = records(
        {"sourcePodLabels": web, "destinationPodLabels": other},
        {"sourcePodLabels": "", "destinationPodLabels": web},
        {"sourcePodLabels": other, "destinationPodLabels": none, "destinationTransportPort": 80},
        {"sourcePodLabels": none, "destinationPodLabels": "", "destinationTransportPort": 80},
    )
    assert np.flatnonzero(mask(parse(text(*arguments)), batch)).tolist() == shown


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
        ("15m", "-15m"),
        ("-15m", "-15m"),
        ("1h30m", "-90m"),
        ("2d", "-2d"),
        ("2d ago", "-2d"),
        ("2w", "-2w"),
        ("30d", "-30d"),
        ("365d1ms", "-365d"),
        ("365d1s", "-31536001s"),
        ("1500ms", "-1500ms"),
        ("0s", "-0s"),
        ("1700000000000", "1700000000000"),
        ("1712121200000", "1712121200000"),
        ("now-1h", "now-1h"),
        ("-2h..-1h", "-2h..-1h"),
    ],
)
def test_moments(written: str, expected: str) -> None:
    assert moment(written, "--at") == expected


@pytest.mark.parametrize("written", ["20260131T12Z", "2026-01-31T12:00:00+00:00"])
def test_a_moment_with_an_offset_is_that_moment(written: str) -> None:
    moments = [datetime.fromisoformat(text) for text in (moment(written, "--at"), written)]
    assert moments[0] == moments[1]


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("written", ["yesterday", "12", "25:00", "1x", "2026-13-01"])
def test_what_is_no_moment_is_said_in_the_words_of_the_help(
    capsys: pytest.CaptureFixture[str], option: str, written: str
) -> None:
    """Nobody is asked: there is no aggregator."""
    assert main(["--socket", "/none", "top", option, written]) == 1
    said = (
        f"flowctl: {option} {written!r}: when? 90s, 15m, 1h30m, 2d ago; 14:00 or 2026-01-31T14:00"
    )
    assert capsys.readouterr().err.startswith(said)


def test_a_range_to_compare_with_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--socket", "/none", "diff", "--before", "-2d..tomorrow"]) == 1
    assert capsys.readouterr().err.startswith("flowctl: --before 'tomorrow': when? 90s")


@pytest.mark.parametrize("written", ["1s", "12d", "2w", "400d", "1000000s", "1000h1ms", "9:30"])
def test_the_api_reads_what_moments_are_written_as(written: str) -> None:
    asked = moment(written.rjust(5, "0") if ":" in written else written, "--at")
    now_ms = round(time.time() * 1000)
    found = parse_moment("from", asked, now_ms)
    if ":" in written:
        assert datetime.fromtimestamp(found / 1000).astimezone().strftime("%-H:%M") == written
    else:
        (number, unit), *_ = re.findall(r"(\d+)([a-z]+)", written)
        size_ms = {"s": 1000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}[unit]
        assert abs(now_ms - found - int(number) * size_ms) < 1000


class Today(date):
    """A day that does not end between two looks."""

    @classmethod
    def today(cls) -> "Today":
        return cls(2026, 1, 20)


def test_moments_are_of_this_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowvis.cli.question.date", Today)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment("2026-01-31T21:00:00", "--at") == "2026-01-31T21:00:00+09:00"
        assert moment("0001-01-01", "--at") == "0001-01-01", "of a year that no clock here has"
        assert moment("09:30", "--at") == "2026-01-20T09:30:00+09:00"
        assert compared("2026-01-31..2026-02-01", "--before") == (
            "2026-01-31T00:00:00+09:00..2026-02-01T00:00:00+09:00"
        )
    finally:
        monkeypatch.undo()
        time.tzset()


def test_ranges() -> None:
    assert compared("-2d..-1d", "--before") == "-2d..-1d"
    assert compared("60d..30d", "--before") == "-60d..-30d"
    assert compared("previous", "--before") == "previous"
    assert compared("-1d", "--before") == "-1d"


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


class Remembering(Client):
    """An aggregator without a store, which remembers one record."""

    def __init__(self) -> None:
        super().__init__(ControlSocket(Path("/none")))

    def get(self, *_: object, **__: object) -> Any:
        raise Refused("no store is configured", {"code": "no-store"})

    def lines(self, *_: object, **__: object) -> Iterator[Any]:
        yield RECORD | {"clusterId": "east"}

    def events(self, *_: object, **__: object) -> Generator[Event, None, None]:
        yield Event("live", {"wholeSinceSeconds": None}, "1")


def test_what_is_remembered_has_the_cluster_by_both_of_its_names() -> None:
    (record,) = Feed(Remembering(), {}, 5).past()
    assert (record["clusterId"], record["clusterUUID"]) == ("east", "east")
