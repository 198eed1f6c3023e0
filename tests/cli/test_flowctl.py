import asyncio
import csv
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from aggregator.records import numbered, records
from aggregator.served import Answered, served
from flowvis.cli import flows
from flowvis.cli.flowctl import COMMANDS, commands_in, main
from flowvis.cli.layout import Column, Layout
from flowvis.cli.status import SESSION_COLUMNS
from flowvis.clickhouse.query import Piece, Query, QueryLimits
from flowvis.errors import StoreError
from flowvis.transport.certificates import issue_ca
from waiting import PATIENCE_S, until

FLOW = {
    "sourceIP": "10.0.0.1",
    "destinationIP": "fd00::2",
    "sourceTransportPort": 40000,
    "destinationTransportPort": 80,
    "protocolIdentifier": 6,
    "flowType": 2,
    "sourcePodName": "client",
    "sourcePodNamespace": "shop",
    "sourceNodeName": "n1",
    "destinationServicePortName": "shop/web:http",
    "octetDeltaCount": 1_234_567,
    "reverseOctetDeltaCount": 99,
    "throughput": 8_000_000_000,
    "flowEndSeconds": 1_800_000_000,
    "flowEndReason": 3,
    "tcpState": "TIME_WAIT",
}

STAGE = {
    "stage": "correlator",
    "received": 9,
    "sent": 5,
    "merged": 2,
    "dropped": {"late": 1},
    "held": 1,
    "imbalance": 0,
    "missing": 0,
}


def status(**stage: int) -> dict[str, Any]:
    stages = [STAGE | stage]
    return {
        "version": "flow-aggregator 1.2.3",
        "uptimeSeconds": 61.2,
        "flows": 7,
        "sessions": [
            {"peer": "node-1@[::1]:5", "messages": 3, "records": 9, "lost": 2, "errors": 0},
            {
                "peer": "node-2@[::1]:6",
                "messages": 3,
                "records": 90,
                "lost": 0,
                "errors": 0,
                "acknowledged": 71,
                "waiting": 19,
                "sentAgain": 44,
            },
        ],
        "ranges": "3 of 9 Pod addresses are elsewhere",
        "destinations": [
            {"name": "clickhouse tcp://db:9000", "problem": "connection refused"},
            {"name": "IPFIX collector a:1:tcp", "problem": ""},
        ],
        "ledger": {"balanced": not any(stage.values()), "stages": stages},
    }


async def flowctl(path: Path, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["--socket", str(path / "control.sock"), *arguments])


async def test_flows_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path) as (_, history, _):
        history.put(records(FLOW, FLOW | {"sourcePodName": "other", "flowType": 9}))
        assert await flowctl(tmp_path, "flows", "--pod", "client", "-o", "wide") == 0
    heading, line = capsys.readouterr().out.splitlines()[:2]
    assert heading.lstrip().startswith("END")
    for text in ("shop/client:40000", "[fd00::2]:80", "shop/web:http", "inter-node", "tcp"):
        assert text in line, line
    for text in ("1.2 MB", "99 B", "8.0 Gbit/s", "n1", "TIME_WAIT", "end"):
        assert text in line, line


async def test_octets_in_a_time_that_nobody_knows_have_no_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path) as (_, history, _):
        history.put(records(FLOW | {"throughput": 0}))
        history.put(records(FLOW | {"throughput": 0, "octetDeltaCount": 0}))
        assert await flowctl(tmp_path, "flows", "-o", "table") == 0
    found = capsys.readouterr().out.splitlines()[1:]
    assert sorted(line.split("99 B")[1].strip() for line in found) == ["-", "0 bit/s"]


async def test_flows_as_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path) as (_, history, _):
        history.put(records(FLOW, FLOW, FLOW))
        assert await flowctl(tmp_path, "flows", "--last", "2", "-o", "json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2
    assert rows[0]["octetDeltaCount"] == 1_234_567


async def test_following_flows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []

    def shown(text: str) -> int:
        printed.append(capsys.readouterr().out)
        return "".join(printed).count(text)

    async with served(tmp_path) as (api, history, _):
        history.put(records(FLOW | {"sourcePodName": "first"}))
        following = asyncio.create_task(flowctl(tmp_path, "flows", "--follow", "-o", "table"))
        await until(lambda: shown("shop/first:40000"))
        for _ in range(3):  # more than the history holds: in one turn of the loop
            history.put(records(*[FLOW] * 6))
        await until(lambda: shown("shop/client:40000") >= 10)
        await api.stop()
        assert await asyncio.wait_for(following, PATIENCE_S) == 0
    lines = ("".join(printed) + capsys.readouterr().out).splitlines()
    assert lines[0].lstrip().startswith("END")
    assert lines[2] == "... 8 records missed: this terminal was too slow, or not connected"
    assert sum("shop/client:40000" in line for line in lines) == 10


async def test_a_range_needs_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path) as (_, history, _):
        history.put(records(FLOW))
        for arguments in (["--since", "5m"], ["--until", "5m"], ["--since", "5m", "--follow"]):
            assert await flowctl(tmp_path, "flows", *arguments) == 1
            captured = capsys.readouterr()
            assert "no store is configured" in captured.err
            assert not captured.out
        assert await flowctl(tmp_path, "flows") == 0
        assert "only what the aggregator remembers" in capsys.readouterr().err


async def test_live_flows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path) as (_, _, _):
        assert await flowctl(tmp_path, "flows", "--live", "--ip", "10.0.0.2", "-o", "table") == 0
    assert "10.0.0.2:0" in capsys.readouterr().out


@pytest.mark.parametrize(("form", "bytes_"), [("compact", "8.0 GB"), ("table", "5.0 GB 3.0 GB")])
async def test_live_flows_have_their_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, bytes_: str
) -> None:
    totals = {"octetTotalCount": 5 * 10**9, "reverseOctetTotalCount": 3 * 10**9}
    long = records(FLOW | totals | {"octetDeltaCount": 0, "reverseOctetDeltaCount": 0})
    async with served(tmp_path, open_flows=long):
        assert await flowctl(tmp_path, "flows", "--live", "-o", form) == 0
    assert bytes_ in " ".join(capsys.readouterr().out.split())


async def test_names_from_the_network_cannot_move_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path) as (_, history, _):
        history.put(records(FLOW | {"sourcePodName": "\x1b[2J[red]x"}))
        assert await flowctl(tmp_path, "flows") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]x" in out


async def test_queries_in_each_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path):
        assert await flowctl(tmp_path, "sql", "SELECT") == 0
        table = capsys.readouterr().out.splitlines()
        assert await flowctl(tmp_path, "sql", "SELECT", "-o", "json") == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert await flowctl(tmp_path, "sql", "SELECT", "-o", "csv", "--max-rows", "1") == 0
        captured = capsys.readouterr()
    assert table[0].split() == ["n", "s", "t"]
    assert str(2**64 - 1) in table[2]
    assert rows[0] == {"n": 1, "s": "a", "t": "2026-01-02 00:00:00"}
    assert list(csv.reader(io.StringIO(captured.out)))[:2] == [
        ["n", "s", "t"],
        ["1", "a", "2026-01-02 00:00:00"],
    ]
    assert "only the first 1 rows" in captured.err


async def test_a_query_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT broken"))
    async with served(tmp_path):
        assert await flowctl(tmp_path, "sql", "-") == 1
    assert capsys.readouterr().err == "flowctl: no such table: broken\n"


async def test_more_live_flows_than_are_shown_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = ("flows", "--live", "-o", "csv", "--fields", "sourceIP")
    async with served(tmp_path):
        assert await flowctl(tmp_path, *live) == 0
        assert capsys.readouterr() == ("sourceIP\r\n10.0.0.1\r\n10.0.0.2\r\n", "")
        assert await flowctl(tmp_path, *live, "--last", "1") == 0
        assert capsys.readouterr() == ("sourceIP\r\n10.0.0.1\r\n", "")
        monkeypatch.setattr(flows, "LAST", 1)
        assert await flowctl(tmp_path, *live) == 0
        output, errors = capsys.readouterr()
    assert output == "sourceIP\r\n10.0.0.1\r\n"
    assert errors == "flowctl: only 1 of those that are open: see --last\n"


async def test_a_stream_goes_on_after_what_was_not_chosen(tmp_path: Path) -> None:
    """Whoever comes back is told of no record as missed that was looked at."""
    async with served(tmp_path) as (_, history, client):
        history.put(numbered(0, 3))
        events = client.events("api/v1/stream", {"filter": "ip = 10.9.9.9", "latest": "3"})
        begun = await asyncio.to_thread(next, events)
        assert (begun.kind, begun.id.split("-")[1]) == ("", "3")
        await asyncio.to_thread(events.close)
        history.put(numbered(3, 12))  # more than are remembered
        again = client.events("api/v1/stream", {"filter": "ip = 10.9.9.9"}, begun.id)
        lost = await asyncio.to_thread(next, again)
        assert (lost.kind, lost.data, lost.id) == ("lost", {"lost": 2}, begun.id)
        went_on = await asyncio.to_thread(next, again)
        assert (went_on.kind, went_on.id.split("-")[1]) == ("", "15")
        await asyncio.to_thread(again.close)


@pytest.mark.parametrize(
    "arguments", [("flows", "\udcff"), ("top", "--by", "\udcff"), ("sql", "\udcff"), ("sql", "-")]
)
async def test_what_is_no_text_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"SELECT '\xff'"), "utf-8"))
    async with served(tmp_path):
        assert await flowctl(tmp_path, *arguments) == 1
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    ["https://[::1", "https://a..example", f"https://{'a' * 64}.example", "https://a b", "\udcff"],
)
def test_what_is_no_server_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--server", url, "flows"]) == 1
    assert "--server" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["https://me:secret@[::1]:1", "me:secret@flows", "http://x:secret@"]
)
def test_a_password_of_an_url_is_not_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--server", url, "flows"]) == 1
    error = capsys.readouterr().err
    assert "without a user" in error
    assert "secret" not in error


async def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path, status=status):
        assert await flowctl(tmp_path, "status") == 0
        out = capsys.readouterr().out
        assert await flowctl(tmp_path, "status", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == status()
    for text in ("flow-aggregator 1.2.3", "node-1@[::1]:5", "correlator", "late 1", "7 live flows"):
        assert text in out
    assert "connection refused" in out
    assert "Pod networks: 3 of 9 Pod addresses are elsewhere" in out


async def test_status_says_where_a_destination_is_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def of(behind_s: float) -> dict[str, Any]:
        place = "db:9000/default"
        problem = f"{place}: Connection refused"
        late = {"records": 28, "behindSeconds": behind_s, "spooledRecords": 0}
        return status() | {
            "destinations": [{"name": f"clickhouse {place}", "problem": problem} | late]
        }

    for behind_s, text in ((0.4, "28 records wait"), (61.0, "28 records behind, of 61 s")):
        async with served(tmp_path, status=partial(of, behind_s)):
            assert await flowctl(tmp_path, "status") == 0
            shown = capsys.readouterr().out
            assert f"clickhouse db:9000/default: Connection refused, {text}" in shown
            assert await flowctl(tmp_path, "status", "--check") == 2
            assert "clickhouse db:9000/default: Connection" in capsys.readouterr().out


async def test_status_names_flows_that_are_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def of(count: int) -> dict[str, Any]:
        return status() | {"uncountedFlows": count}

    for count, named in ((0, False), (3, True)):
        async with served(tmp_path, status=partial(of, count)):
            assert await flowctl(tmp_path, "status") == 0
        assert ("3 of them are not counted" in capsys.readouterr().out) is named


async def test_status_names_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def of_nodes() -> dict[str, Any]:
        found = status()
        found["sessions"][0] |= {"node": "worker-1", "lastReportSeconds": 2.4}
        found["nodes"] = [
            {"name": "worker-1", "sessions": 1, "records": 9, "lastReportSeconds": 2.4},
            {
                "name": "worker-2",
                "sessions": 0,
                "records": 7,
                "missing": ["2 connections ended unobserved"],
                "lastReportSeconds": 312.0,
            },
            {"name": "worker-3", "sessions": 0, "records": 0, "lastReportSeconds": None},
        ]
        return found

    async with served(tmp_path, status=of_nodes):
        assert await flowctl(tmp_path, "status") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "node-1@[::1]:5 worker-1 3 9 2 0 2s ago" in lines
    assert "node-2@[::1]:6 3 90 0 0 71 19 44 never" in lines
    assert "worker-2 7 5m12s ago" in lines
    assert "worker-3 0 never" in lines
    assert "worker-2: 2 connections ended unobserved" in lines
    assert sum("worker-1" in line for line in lines) == 1


async def test_status_shows_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = {
        "limitBytes": 2 << 30,
        "limitSource": "cgroup",
        "residentBytes": 321 << 20,
        "shares": [
            {"name": "flows", "limitBytes": 697 << 20, "bytes": 11 << 20},
            {"name": "text", "limitBytes": 279 << 20, "bytes": 0},
        ],
    }
    async with served(tmp_path, status=lambda: status() | {"memory": memory}):
        assert await flowctl(tmp_path, "status") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "memory: 321 of 2048 MiB (cgroup); of it flows 11 of 697, text 0 of 279" in shown


ROLLUPS = {
    "waitingRecords": 0,
    "minutesBehindSeconds": 70,
    "hoursBehindSeconds": 2400,
    "problem": "",
    "compared": [1_790_002_800_000, 1_790_006_400_000],
    "differences": [],
}


async def test_status_says_how_far_the_rollups_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = status() | {"rollups": ROLLUPS, "destinations": []}
    async with served(tmp_path, status=lambda: shown):
        assert await flowctl(tmp_path, "status") == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "roll-ups: well, minutes 1m10s behind, hours 40m" in out
        assert "sums of 2026-09-21 15:00Z to 2026-09-21 16:00Z equal to the records'" in out
        assert await flowctl(tmp_path, "status", "--check") == 0
    wrong = {"problem": "away", "differences": ["flow_hours has records 5"], "waitingRecords": 9}
    shown["rollups"] = ROLLUPS | wrong | {"expiredRecords": 70}
    capsys.readouterr()
    async with served(tmp_path, status=lambda: shown):
        assert await flowctl(tmp_path, "status") == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "roll-ups: away, " in out
        assert "9 records to roll up" in out
        assert "70 records expired before they were rolled up" in out
        assert "NOT equal to the records' flow_hours has records 5" in out
        assert await flowctl(tmp_path, "status", "--check") == 2
    out = capsys.readouterr().out
    assert "roll-ups differ from the records: flow_hours has records 5; roll-ups: away" in out


STORE = {
    "problem": "",
    "disks": [{"name": "default", "freeBytes": 30 << 30, "totalBytes": 100 << 30}],
    "tables": [
        {
            "name": "flow_records",
            "rows": 5_000_000,
            "bytes": 200_000_000,
            "fromMs": 1_790_002_800_000,
            "toMs": 1_790_013_600_000,
        }
    ],
    "insertRate": {"recordsPerSecond": 19_999.6, "bytesPerSecond": 1 << 20},
    "droppedRecords": 0,
    "droppedBytes": 0,
    "unrolledRecords": 0,
}


async def test_status_says_what_the_store_has_and_what_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = status() | {"store": STORE, "destinations": []}
    async with served(tmp_path, status=lambda: shown):
        assert await flowctl(tmp_path, "status") == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "store: well, " in out
        assert "free on disk default" in out
        assert "20,000 records (1.0 MB) a second come in" in out
        assert "flow_records: 5000000 rows" in out
        assert "committed 2026-09-21 15:00Z to 2026-09-21 18:00Z" in out
        assert "dropped" not in out
        assert await flowctl(tmp_path, "status", "--check") == 0
        went = {"droppedBytes": 90_000, "droppedRecords": 2_000, "unrolledRecords": 7}
        shown["store"] = STORE | went | {"problem": "disk default is 97% full", "insertRate": None}
        capsys.readouterr()
        assert await flowctl(tmp_path, "status") == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "store: disk default is 97% full" in out
        assert "come in" not in out
        assert "dropped for room, with 2000 records, 7 of them in no roll-up" in out
        capsys.readouterr()
        assert await flowctl(tmp_path, "status", "--check") == 2
    assert "store: disk default is 97% full" in capsys.readouterr().out


async def test_status_shows_what_is_wrong_with_policies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = {"AdminNetworkPolicy old": "peer with \x1b[2Jmoon"}
    policies = {"unenforced": 12, "unknown": 3, "unrecognized": strange}
    async with served(tmp_path, status=lambda: status() | {"policies": policies}):
        assert await flowctl(tmp_path, "status") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "policies: 12 verdicts of denial refuted by the traffic" in out
    assert "policies: AdminNetworkPolicy old: not understood: peer with \\x1b[2Jmoon" in out


@pytest.mark.parametrize("wrong", [{"imbalance": 3}, {"missing": 3}])
async def test_status_fails_when_the_books_do_not_balance(
    wrong: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path, status=lambda: status(**wrong)):
        assert await flowctl(tmp_path, "status") == 1
    assert "the books do not balance" in capsys.readouterr().err


async def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(tmp_path):
        assert await flowctl(tmp_path, "top") == 1
    assert "older than this flowctl" in capsys.readouterr().err


def test_without_an_aggregator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--socket", str(tmp_path / "none.sock"), "status"]) == 1
    error = capsys.readouterr().err
    assert f"no aggregator answers at {tmp_path}/none.sock" in error
    assert "controlSocket" in error


def test_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(tmp_path / "certs")
    names = "flow-aggregator.example,10.0.0.5"
    assert main(["certs", "--directory", directory, "--server", names, "--client", "n/1"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert [Path(path).name for path in written] == [
        "ca.crt",
        "ca.key",
        "flow-aggregator.example.crt",
        "flow-aggregator.example.key",
        "n-1.crt",
        "n-1.key",
    ]
    assert all(stat.S_IMODE(Path(p).stat().st_mode) == 0o600 for p in written if ".key" in p)
    server = x509.load_pem_x509_certificate(Path(written[2]).read_bytes())
    names_found = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names_found.get_values_for_type(x509.DNSName) == ["flow-aggregator.example"]
    ca = Path(written[0]).read_bytes()
    assert main(["certs", "--directory", directory, "--client", "n2"]) == 0
    assert Path(written[0]).read_bytes() == ca
    client = x509.load_pem_x509_certificate((tmp_path / "certs" / "n2.crt").read_bytes())
    client.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))


def test_a_certificate_that_is_renewed_lasts_for_another_year(tmp_path: Path) -> None:
    """A CA that ends when its first certificates do would make renewing these of no use."""
    assert main(["certs", "--directory", str(tmp_path), "--client", "n"]) == 0
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    assert ca.not_valid_after_utc - datetime.now(UTC) > timedelta(days=9 * 365)


@pytest.mark.parametrize("left", [20, 0], ids=["soon", "over"])
def test_nothing_that_is_issued_outlasts_its_ca(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: int
) -> None:
    began = datetime.now(UTC) - timedelta(days=365 - left)
    ca = issue_ca(now=began)
    ca.write(tmp_path, "ca")
    arguments = ["certs", "--directory", str(tmp_path), "--client", "n", "--server", "s"]
    assert main(arguments) == (1 if left == 0 else 0)
    end = ca.certificate.not_valid_after_utc
    said = capsys.readouterr()
    assert f"ca.crt end{'s' if left else 'ed'} at {end:%Y-%m-%d %H:%M}Z" in said.err
    found = [tmp_path / name for name in ("n.crt", "s.crt") if (tmp_path / name).exists()]
    assert len(found) == (2 if left else 0)
    for path in found:
        issued = x509.load_pem_x509_certificate(path.read_bytes())
        assert issued.not_valid_after_utc == end


@pytest.mark.parametrize(
    "arguments",
    [
        ("series", "--interval", "none"),
        ("series", "--interval", ""),
        ("diff", "--before", ""),
    ],
)
def test_what_would_be_no_series_and_no_difference_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--socket", "/none", *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[1]}: {arguments[2]!r}: " in capsys.readouterr().err


@pytest.mark.parametrize("names", [("--client", "ca"), ("--server", "ca"), ("--client", ".ca")])
def test_no_certificate_takes_the_place_of_the_ca(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str]
) -> None:
    command = ["certs", "--directory", str(tmp_path)]
    assert main(command) == 0
    key = (tmp_path / "ca.key").read_bytes()
    assert main([*command, *names]) == 1
    assert "those of the CA" in capsys.readouterr().err
    assert (tmp_path / "ca.key").read_bytes() == key


def test_certificates_of_two_are_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["certs", "--directory", str(tmp_path / "certs")]
    assert main([*command, "--server", "localhost", "--client", "localhost"]) == 1
    assert "those of 'localhost'" in capsys.readouterr().err
    assert main([*command, "--client", "a:b", "--client", "a-b"]) == 1
    assert main([*command, "--client", ".."]) == 1
    assert not (tmp_path / "certs").exists(), "nothing is begun that is not done"


def test_nothing_to_issue_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "--directory", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (2, ""), "a CA alone"
    assert main(["certs", "--directory", str(tmp_path)]) == 0
    said = f"{tmp_path} has a CA; no certificate was asked for (--server, --client)"
    assert capsys.readouterr() == ("", f"flowctl: {said}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--client", ""),
        ("--client", "a\nb"),
        ("--server", ","),
        ("--server", "\u00fc.example"),
        ("--server", "bad name"),
        ("--server", "10.0.0.0/8"),
    ],
)
def test_names_that_no_certificate_can_have_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["certs", "--directory", str(tmp_path), *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0]}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-n", "shop"), "-n says nothing to a control socket"),
        (("--ca", "ca.crt"), "--ca says nothing to a control socket"),
        (("--token-file", "token"), "--token-file says nothing to a control socket"),
        (("--server", "https://a.example", "-n", "shop"), "-n says nothing to --server"),
        (("--context", "a", "--ca", "ca.crt"), "--ca says nothing to an aggregator in a cluster"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert main([*arguments, "top"]) == 1
    assert capsys.readouterr().err.startswith(f"flowctl: {said}: it is for")


@pytest.mark.parametrize(
    "arguments", [[], ["flows"], ["sql"], ["status"], ["certs"], ["lab"], ["lab", "run"]]
)
def test_help_teaches(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    assert "usage: flowctl" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("flowctl ")


def test_an_unknown_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["flow"])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "command", "said"),
    [
        (("top", "--sicne", "1h"), "top", "--sicne; did you mean --since?"),
        (("flows", "--lst=4", "a=b"), "flows", "--lst=4; did you mean --last?"),
        (("map", "--frobnicate"), "map", "--frobnicate"),
        (("lab", "run", "--fualt", "kill"), "lab", "--fualt kill; did you mean --fault?"),
    ],
)
def test_an_unknown_option_is_an_error_of_its_command(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], command: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"usage: flowctl {command} ")
    assert lines[-1] == f"flowctl {command}: error: unrecognized arguments: {said}"


def missed(node: str, ago_s: float | None) -> dict[str, Any]:
    texts = [] if ago_s is None else ["3 connections ended unobserved"]
    return {"name": node, "sessions": 1, "missing": texts, "missedLastSeconds": ago_s}


LOSS = {"stage": "clickhouse", "reason": "queue-full", "records": 7, "lastSeconds": 59.7}


@pytest.mark.parametrize(
    ("changes", "code", "line"),
    [
        ({}, 0, "OK: books balance, nothing lost"),
        ({"losses": [LOSS | {"lastSeconds": 301}]}, 0, "OK: books balance, nothing lost"),
        (
            {"losses": [LOSS]},
            1,
            "WARNING: 7 records lost at clickhouse: queue-full, last 1m ago",
        ),
        (
            {"nodes": [{"name": "n1", "sessions": 0}, {"name": "n2", "sessions": 1}]},
            1,
            "WARNING: node n1 has no session",
        ),
        (
            {"nodes": [missed("n1", 200.0), missed("n2", 301.0), missed("n3", None)]},
            1,
            "WARNING: node n1: 3 connections ended unobserved, last 3m20s ago",
        ),
        ({"nodes": [missed("n2", 301.0)]}, 0, "OK: books balance, nothing lost"),
        ({"configuration": {"problems": ["a: b"]}}, 1, "WARNING: configuration not taken: a: b"),
        ({"kubernetes": "away"}, 1, "WARNING: Kubernetes API: away"),
        (
            {"destinations": [{"name": "db", "problem": "replaced, 5 records left"}]},
            1,
            "WARNING: db: replaced, 5 records left",
        ),
        (
            {"destinations": [{"name": "db", "problem": "no\nanswer"}], "losses": [LOSS]},
            2,
            "CRITICAL: db: no\\nanswer; 7 records lost at clickhouse: queue-full, last 1m ago",
        ),
        ({"ready": False}, 2, "CRITICAL: not ready"),
        ({"ready": False, "replica": "another one has the lease"}, 0, "OK: books balance,"),
        ({"ledger": {"balanced": False, "stages": []}}, 2, "CRITICAL: the books do not balance"),
    ],
)
async def test_check_is_a_line_and_an_exit_code(
    changes: dict[str, Any],
    code: int,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    well = status() | {"destinations": [], "nodes": [], "ready": True}
    async with served(tmp_path, status=lambda: well | changes):
        assert await flowctl(tmp_path, "status", "--check") == code
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed.startswith(line)


async def test_check_looks_back_as_far_as_it_is_asked(tmp_path: Path) -> None:
    well = status() | {"destinations": [], "losses": [LOSS]}
    async with served(tmp_path, status=lambda: well):
        assert await flowctl(tmp_path, "status", "--check", "--since", "30s") == 0
        assert await flowctl(tmp_path, "status", "--check", "--since", "1h") == 1


def test_at_80_cells_sessions_keep_their_numbers_whole() -> None:
    largest = 10**9 - 1
    numbers = ("messages", "records", "lost", "errors", "acknowledged", "waiting", "sentAgain")
    session: dict[str, Any] = dict.fromkeys(numbers, largest)
    session |= {"lastReportSeconds": 59.0, "lost": 1234}
    session |= {"peer": "node-1@[fd00:10:244::13:200]:53046", "node": "node-1.example.internal"}
    line = str(Layout(SESSION_COLUMNS, 80, [session]).line(session))
    assert len(line) <= 80
    assert {word for word in line.split() if word.isdecimal()} == {str(largest), "1234"}


def test_check_without_an_aggregator_knows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--socket", str(tmp_path / "none.sock"), "status", "--check"]) == 3
    assert capsys.readouterr().out.startswith("UNKNOWN: no aggregator answers")


@pytest.mark.parametrize(
    "target",
    [
        ("--server", "https://flows.example", "--token-file", "/nowhere"),
        ("--server", "https://[::1"),
        ("--server", "https://flows.example", "--socket", "/nowhere"),
        ("--kubeconfig", "/nowhere"),
    ],
)
def test_a_check_that_cannot_ask_knows_nothing(
    target: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*target, "status", "--check"]) == 3
    assert capsys.readouterr().out.startswith("UNKNOWN: ")


@pytest.mark.parametrize("answer", [{"version": "1"}, {"ledger": None}, {"ledger": []}, []])
async def test_what_is_no_status_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Any
) -> None:
    async with served(tmp_path, status=lambda: answer):
        assert await flowctl(tmp_path, "status", "--check") == 3
    assert capsys.readouterr().out.startswith("UNKNOWN: not the status of an aggregator")


HOSTILE = "x\n10:00:00  forged  row\r\x1b[2J\x9b2J\u202e\u2028[red]日本"


class Hostile(Answered):
    """A query whose column and values are texts of a hostile peer's."""

    def _found(self) -> Iterator[Piece]:
        self.names, self.types = [HOSTILE, "b"], ["String", "Array(String)"]
        yield [json.dumps([HOSTILE, [HOSTILE]]).encode()]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["flows"], 1),
        (["flows", "-o", "table"], 2),
        (["flows", "-o", "wide"], 2),
        (["flows", "-o", "json"], 1),
        (["sql", "SELECT"], 2),
        (["sql", "SELECT", "-o", "json"], 1),
        (["sql", "SELECT", "-o", "csv"], 2),
        (["status"], None),
        (["status", "--check"], 1),
    ],
)
async def test_a_hostile_name_forges_no_row(
    arguments: list[str],
    lines: int | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = status() | {
        "version": HOSTILE,
        "sessions": [{**status()["sessions"][0], "peer": HOSTILE, "node": HOSTILE}],
        "nodes": [{"name": HOSTILE, "sessions": 0, "records": 1}],
        "ranges": HOSTILE,
        "kubernetes": HOSTILE,
        "clusterId": HOSTILE,
        "configuration": {"problems": [HOSTILE], "restartRequired": [HOSTILE]},
        "policies": {"unrecognized": {HOSTILE: HOSTILE}},
        "destinations": [{"name": HOSTILE, "problem": HOSTILE}],
    }
    async with served(
        tmp_path,
        status=lambda: named,
        query=lambda sql, max_rows: Hostile(sql, QueryLimits(), max_rows),
    ) as (_, history, _):
        flow = {"sourcePodName": HOSTILE, "destinationServicePortName": HOSTILE}
        history.put(records(FLOW | flow))
        await flowctl(tmp_path, *arguments)
    printed = capsys.readouterr().out.replace("\r\n", "\n").rstrip("\n").split("\n")
    assert lines is None or len(printed) == lines
    assert all(line.isprintable() for line in printed)
    assert not any(line.startswith("10:00:00") for line in printed)
    assert any("[red]日本" in line for line in printed)


async def test_errors_are_as_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(sql: str, max_rows: int) -> Query:
        raise StoreError(HOSTILE, retryable=False)

    async with served(tmp_path, query=refuse):
        assert await flowctl(tmp_path, "sql", "SELECT") == 1
    printed = capsys.readouterr().err.rstrip("\n").split("\n")
    assert all(line.isprintable() and line.startswith("flowctl: ") for line in printed)


def test_wide_characters_take_two_cells() -> None:
    layout = Layout([Column("A", str, 8), Column("B", str, 8, right=True)], None)
    assert layout.line("日本").cell_len == 8 + 2 + 8
    assert str(layout.line("日本")) == "日本          " + "日本"


ALL = list(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["status", "--check"], ["status"]),
        (["--context", "top", "flows", "-n"], ["flows"]),
        (["--context", "top", "nonsense"], ALL),
        (["--context=top", "-n", "lab", "map"], ["map"]),
        (["--cont", "top", "map", "-h", "sql"], ["map"]),
        (["--context", "top", "-h", "sql"], ALL),
        (["--nonsense", "top", "sql"], ["top"]),
        (["--context"], ALL),
        (["sql", "--", "status"], ["sql"]),
        (["status", "top", "lab"], ["status"]),
        (["map", "--help"], ["map"]),
        (["--help", "map"], ALL),
        (["lab", "run"], ["lab"]),
        (["--version"], ALL),
        (["statsu"], ALL),
        ([], ALL),
    ],
)
def test_which_commands_are_made_ready(arguments: list[str], names: list[str]) -> None:
    assert commands_in(arguments) == names


def test_whoever_gives_no_command_is_told_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--context", "top", "nonsense"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert [name for name in (*ALL, "lab") if name not in said] == []


def test_a_shell_may_complete_any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert commands_in(["status", ""]) == ALL


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_found_by_its_name_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: flowctl {name} ")


def written_to(output: int, *arguments: str) -> tuple[int, str]:
    """Run flowctl as a process with this standard output; return its exit code and its errors."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", "flowvis.cli.flowctl", *arguments]
    ended = subprocess.run(
        command, stdout=output, stderr=subprocess.PIPE, env=environment, timeout=PATIENCE_S
    )
    return ended.returncode, ended.stderr.decode()


@pytest.mark.parametrize(
    "arguments", [("--version",), ("flows", "--help"), ("certs", "--directory", "PATH")]
)
def test_a_short_answer_that_nobody_reads_is_no_error(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    try:
        found = written_to(writable, *(each.replace("PATH", str(tmp_path)) for each in arguments))
    finally:
        os.close(writable)
    assert found == (0, "")


def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        found = written_to(full.fileno(), "certs", "--directory", str(tmp_path))
    assert found == (1, "flowctl: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    "arguments", [("certs", "--directory", "PATH"), ("lab", "scenarios"), ("completion", "bash")]
)
def test_no_standard_output_is_no_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    arguments = tuple(each.replace("PATH", str(tmp_path)) for each in arguments)
    command = [sys.executable, "-m", "flowvis.cli.flowctl", *arguments]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    ended = subprocess.run(closed, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sql", "-"), "flowctl: standard input is closed\n"),
        (("replay", "-", "--dry-run"), "flowctl: stdin: it is closed\n"),
    ],
)
def test_no_standard_input_is_said(arguments: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "flowvis.cli.flowctl", *arguments]
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    ended = subprocess.run(closed, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (ended.returncode, ended.stderr.decode()) == (1, said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_locale_does_not_have_are_escapes(tmp_path: Path, encoding: str) -> None:
    name = "\u540d\u00fc"
    command = [sys.executable, "-m", "flowvis.cli.flowctl", "certs", "--directory", str(tmp_path)]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    ended = subprocess.run(
        [*command, "--client", name], capture_output=True, env=environment, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert f"{tmp_path}/{name}.crt".encode(encoding, "backslashreplace") in ended.stdout
