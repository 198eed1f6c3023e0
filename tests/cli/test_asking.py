"""Questions on the command line, asked of a real aggregator with an embedded store."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aggregator.harness import deliver, exported
from flowvis.aggregator.api.paths.stream import ALIVE_S
from flowvis.aggregator.api.problems import STATUS
from flowvis.cli import client, completing, flows
from flowvis.cli.flowctl import main
from flowvis.errors import SystemRefused
from waiting import PATIENCE_S, block_until

from .asked import ADMIN, REMEMBERED, SHOP, Asked, asked, connection, known
from .relay import relaying

RECENT = ["--since", "10m"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with asked(tmp_path_factory.mktemp("asked")) as found:
        found.tell(*known())
        yield found


Run = Callable[..., list[str]]


@pytest.fixture
def run(store: Asked, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run flowctl over the socket; return the lines of its answer."""

    def ask(*arguments: str) -> list[str]:
        assert main([*store.socket, *arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    return ask


def rows(lines: list[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


def test_flows_are_those_of_the_filter_oldest_first(run: Run) -> None:
    lines = run("flows", "dst.pod = shop/orders-0", *RECENT)
    assert [line.split()[1:] for line in lines] == [
        ["batch/report-1", "-x", "shop/orders-0:80", "tcp", "60", "B", "dropped"],
        ["batch/report-1", "-x", "shop/orders-0:80", "tcp", "60", "B", "dropped"],
        ["shop/cart-0", "->", "shop/orders-0:80", "tcp", "1.0", "MB"],
        ["shop/cart-0", "->", "shop/orders-0:80", "tcp", "4.0", "MB"],
    ]


def test_short_forms_are_and_ed_to_the_text(run: Run) -> None:
    form = ("-o", "csv", "--fields", "sourcePodName,octetTotalCount", *RECENT)
    found = rows(
        run("flows", "bytes > 1MB", "--from-pod", "shop/*", "--not", "--port", "1000", *form)
    )
    assert found == [
        {"sourcePodName": "frontend-1", "octetTotalCount": "2000000"},
        {"sourcePodName": "cart-0", "octetTotalCount": "1000000"},
    ]
    denied = rows(run("flows", "--not", "--verdict", "none", "--to-namespace", "shop", *form))
    assert [row["sourcePodName"] for row in denied] == ["report-1", "report-1"]
    either = rows(run("flows", "--port", "1002", "--port", "1003", *form))
    assert [row["sourcePodName"] for row in either] == ["report-1", "frontend-1"]
    text = rows(run("flows", *form, "--not", "src.namespace", "=", "shop"))
    assert [row["sourcePodName"] for row in text] == ["report-1", "report-1"]


def test_the_newest_of_a_range(run: Run, store: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split()[1] for line in run("flows", "--last", "1")] == ["shop/cart-0"]
    assert len(run("flows", "--since", "2h")) == 8
    assert len(run("flows", "--since", "2h", "--until", "30m")) == 3
    for since in ((), ("--since", "2h")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flows, "AT_MOST", 2)
            assert main([*store.socket, "flows", *since, "--until", "30m"]) == 0
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 2
        assert "only the newest 2 of the range: see --last" in captured.err


def test_json_has_every_column_and_seconds(run: Run) -> None:
    (line,) = run("flows", "src.port = 1000", "-o", "json", *RECENT)
    record = json.loads(line)
    assert record["octetTotalCount"] == 4_000_000
    assert 0 <= time.time() - record["flowEndSeconds"] < 600
    assert record["clusterUUID"] == "east"


def test_top_adds_up(run: Run) -> None:
    lines = run("top", "--by", "src.workload,dst.workload", *RECENT)
    assert [" ".join(line.split()) for line in lines] == [
        "SRC.WORKLOAD DST.WORKLOAD BOTH OCTETS CONNECTIONS SHARE",
        "shop/cart-0 shop/orders-0 5.0 MB 2 71.4%",
        "shop/frontend-1 shop/cart-0 2.0 MB 1 28.6%",
        "batch/report-1 shop/orders-0 120 B 2 0.0%",
        "total 7.0 MB 5 100.0%",
    ]
    lines = run("top", "--by", "src.namespace", "--measure", "octets", "--limit", "1", *RECENT)
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "shop 7.0 MB 100.0%",
        "others 120 B 0.0%",
        "total 7.0 MB 100.0%",
    ]


def test_top_compares(run: Run) -> None:
    arguments = ("--by", "src.pod", "--measure", "octets", "--since", "10m", "--compare", "-1h")
    lines = [" ".join(line.split()) for line in run("top", *arguments)]
    assert lines[0] == "SRC.POD OCTETS SHARE BEFORE CHANGE"
    assert lines[1] == "shop/cart-0 5.0 MB 71.4% 800 kB +525%"
    assert lines[3] == "batch/report-1 120 B 0.0% 0 B new"


def test_top_for_programs(run: Run) -> None:
    query = ("--by", "src.pod", "--measure", "denied,octets", *RECENT)
    assert rows(run("top", *query, "-o", "csv"))[0] == {
        "src.pod": "batch/report-1",
        "denied": "2",
        "octets": "120",
    }
    document = json.loads("".join(run("top", *query, "-o", "json")))
    assert document["total"] == [2, 7_000_120]
    assert document["answer"]["table"]


def test_top_again_and_again(store: Asked, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowvis.cli.flowctl", *store.socket, "top", "-o", "csv"]
    path = tmp_path / "watched"
    with path.open("wb") as file:
        watching = subprocess.Popen([*command, "--watch", "100ms", *RECENT], stdout=file)
    try:
        block_until(lambda: path.read_text().count("src.workload,dst.workload") >= 3)
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE_S) in {130, -signal.SIGINT}


def test_top_waits_for_a_store_that_is_away() -> None:
    """But not for what is refused as often as it is asked."""
    problems = iter(("unavailable", "too-many", "", "bad-filter"))
    answer = {"columns": [], "rows": [], "answer": {"complete": True, "notes": []}}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            problem = next(problems)
            given = {"error": {"code": problem, "message": f"it is {problem}"}} if problem else {}
            self.send_response(STATUS[problem] if problem else 200)
            self.end_headers()
            self.wfile.write(json.dumps(given or answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        where = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "-m", "flowvis.cli.flowctl", "--server", where, "top"]
        watched = subprocess.run(
            [*command, "--watch", "10ms", "-o", "json"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        server.shutdown()
    assert watched.returncode == 1
    assert json.loads(watched.stdout) == answer
    said = [f"flowctl: it is {problem}" for problem in ("unavailable", "too-many", "bad-filter")]
    assert watched.stderr.splitlines()[:3] == said


def test_map_is_a_tree_of_sources(run: Run) -> None:
    lines = [" ".join(line.split()) for line in run("map", *RECENT)]
    assert lines == [
        "BYTES CONNECTIONS DENIED UNANSWERED",
        "shop/cart-0 5.0 MB 2",
        "└ shop/orders-0 5.0 MB 2",
        "shop/frontend-1 2.0 MB 1",
        "└ shop/cart-0 2.0 MB 1",
        "batch/report-1 120 B 2 2",
        "└ shop/orders-0 120 B 2 2",
    ]


def test_map_puts_small_edges_together(run: Run) -> None:
    lines = [" ".join(line.split()) for line in run("map", *RECENT, "--limit", "1")]
    assert "others 2.0 MB 3 2" in lines
    assert lines[-1] == "2 smaller edges are in others: see --limit"


def test_map_as_a_matrix(run: Run) -> None:
    lines = run("map", *RECENT, "--by", "namespace", "-o", "matrix")
    assert [line.split() for line in lines] == [
        ["shop"],
        ["shop", "7.0", "MB"],
        ["batch", "120", "B"],
    ]


def test_map_as_csv(run: Run) -> None:
    found = rows(run("map", *RECENT, "-o", "csv"))
    assert found[0]["source"] == "shop/cart-0"
    assert found[0]["octets"] == "5000000"
    assert len(found) == 3


def test_series_are_drawn(run: Run) -> None:
    lines = run("series", "--by", "src.pod", "--measure", "octets", "--interval", "10m", *RECENT)
    (cart,) = (line for line in lines if line.startswith("shop/cart-0"))
    assert "█" in cart
    assert "5.0 MB" in cart
    assert lines[0].endswith("a point every 10m")
    found = rows(run("series", "--measure", "octets", "--interval", "10m", "-o", "csv", *RECENT))
    assert sum(float(row["octets"]) for row in found) == 7_000_120


def test_diff_names_what_is_new_gone_and_changed(run: Run) -> None:
    lines = run("diff", "--since", "30m", "--before", "-90m..-60m")
    cells = [" ".join(line.split()) for line in lines]
    assert "new batch/report-1 shop/orders-0 120 B 2" in cells
    assert "gone shop/cart-0 batch/report-1 300 kB" in cells
    assert "changed shop/cart-0 shop/orders-0 500 kB 5.0 MB +900%" in cells
    assert cells[-1] == "1 new, 1 gone, 1 changed, 1 as before"
    found = rows(run("diff", "--since", "30m", "--before", "-1h", "-o", "csv", "--factor", "1.001"))
    assert Counter(row["what"] for row in found) == {"new": 1, "gone": 1, "changed": 2}


def test_diff_of_ranges_that_are_not_as_long(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*store.socket, "diff", "--since", "30m", "--before", "-90m..-80m"]) == 1
    assert "not as long as the range, which has 1800 s" in capsys.readouterr().err


def test_fields_name_what_can_be_asked(run: Run, store: Asked) -> None:
    lines = run("fields")
    assert any(line.split()[:4] == ["pod", "src", "dst", "*"] for line in lines)
    assert any(line.split()[:2] == ["unanswered", "connections"] for line in lines)
    assert not any(line.startswith("octetDeltaCount") for line in lines)
    about = run("fields", "src.verdict")
    assert "  values: rejected, dropped, unenforced, allowed, none, denied" in about
    assert main([*store.socket, "fields", "moon"]) == 1


def test_an_error_in_a_filter_is_shown_where_it_is(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("flows", "top", "map"):
        assert main([*store.socket, command, "proto = tcp and src.namspace = shop"]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert "src.namspace" in lines[0]
        assert lines[1:] == [
            "flowctl:   proto = tcp and src.namspace = shop",
            "flowctl:                   ^^^^^^^^^^^^",
            lines[3],
        ]
        assert lines[3].startswith("flowctl: expected namespace, pod, workload, ")
        assert lines[3].endswith(", rule, ...; did you mean src.namespace?")


@pytest.mark.parametrize(
    ("filter_text", "remedy"),
    [
        ("unanswered = yess", "expected yes, no; did you mean yes?"),
        ("bytes > 10XB", "expected 1500, 10MB, 1GiB"),
        ("src.pod = shop/", "did you mean shop/*?"),
        ("proto = tcp and", "expected a name, a word to search for, not, ("),
    ],
)  # fmt: skip
def test_an_error_in_a_filter_says_what_could_stand_there(
    store: Asked, capsys: pytest.CaptureFixture[str], filter_text: str, remedy: str
) -> None:
    assert main([*store.socket, "top", filter_text]) == 1
    assert capsys.readouterr().err.splitlines()[3:] == [f"flowctl: {remedy}"]


def test_a_name_of_one_end_is_none_of_both(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("map", "diff"):
        assert main([*store.socket, command, "--by", "node,src.namespace"]) == 1
        assert capsys.readouterr().err == (
            "flowctl: --by 'src.namespace': here names are of both ends: --by namespace\n"
        )


def test_what_is_missing_is_said_in_one_line(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*store.socket, "top", "--since", "3d"]) == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if "not complete" in line)
    assert "no aggregator kept books" in line


def test_nothing_is_said_of_what_was_not_asked_for(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest of a day lie within the minutes of which there are books."""
    store.tell(connection(1999, "other/a", "other/b", 1, ago_s=0))
    assert main([*store.socket, "flows", "src.port = 1999", "--last", "1"]) == 0
    assert "no aggregator kept books" not in capsys.readouterr().err


def server(store: Asked, token: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    return ["--server", store.url, "--ca", str(store.ca), "--token-file", str(path)]


class _Another(BaseHTTPRequestHandler):
    """Something that speaks HTTP, as the status port does."""

    def do_GET(self) -> None:
        self.send_error(404, "/metrics /healthz /readyz")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_another_port_than_the_api_s_is_said_to_be_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Another) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{server.server_port}"
        assert main(["--server", f"http://{where}", "status"]) == 1
        error = capsys.readouterr().err
        assert f"http://{where}: no answer of an aggregator's API: 404" in error
        assert main(["--server", f"https://{where}", "status"]) == 1
        assert "does the API speak there, and TLS (apiServer.tls)?" in capsys.readouterr().err
        server.shutdown()


def test_where_there_are_no_flows_it_says_so(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        (["src.pod = nobody"], "no record of the last day that the filter chooses"),
        (["--since", "2000-01-01", "--until", "2000-01-02"], "no record of the range"),
        (["--live", "src.pod = nobody"], "no open connection that the filter chooses"),
    ):
        assert main([*store.socket, "flows", *arguments, "-o", "json"]) == 0
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err.splitlines()[-1] == f"flowctl: {said}"


def test_the_same_over_tls(
    store: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = ["map", "namespace != other", *RECENT]
    assert main([*store.socket, *query]) == 0
    local = capsys.readouterr().out
    assert main([*server(store, ADMIN, tmp_path), *query]) == 0
    assert capsys.readouterr().out == local
    assert main([*query[:1], *server(store, ADMIN, tmp_path), *query[1:]]) == 0, "after the command"
    assert capsys.readouterr().out == local


def test_a_token_of_one_namespace_sees_that(
    store: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.tell(connection(1998, "secret/a", "secret/b", 1))
    here = server(store, SHOP, tmp_path)
    assert main([*here, "flows", "--since", "10m"]) == 0
    captured = capsys.readouterr().out
    assert "shop/cart-0" in captured
    assert "secret" not in captured
    assert main([*here, "sql", "SELECT 1"]) == 1
    assert "sam may not" in capsys.readouterr().err


def test_errors_of_a_server_name_the_remedy(
    store: Asked,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for arguments, remedy in (
        (["--server", store.url, "--ca", str(store.ca)], "--token-file, or FLOWVIS_TOKEN"),
        (["--server", store.url], "name the CA that signed it with --ca"),
        (["--server", store.url.replace("https", "http")], "speaks TLS"),
        (
            ["--server", store.url.replace("localhost", "127.0.0.1"), "--ca", str(store.ca)],
            "not valid for '127.0.0.1'; ask it by a name or an address that its certificate has",
        ),
        (["--server", "https://localhost:1"], "is its apiServer.enable on"),
        (["--server", "http://flows.example"], "use https"),
        (["--server", "ftp://localhost"], "https://HOST:PORT"),
        (["--server", "https://localhost:99999"], "--server"),
        (["--server", store.url, "--ca", str(tmp_path / "none")], "--ca"),
        (["--server", store.url, "--token-file", str(tmp_path / "none")], "--token-file"),
        (["--server", store.url, *store.socket], "give one"),
    ):
        assert main([*arguments, "status"]) == 1
        assert remedy in capsys.readouterr().err, arguments
    with monkeypatch.context() as patch:
        patch.setenv("FLOWVIS_SERVER", store.url)
        patch.setenv("FLOWVIS_CA", str(store.ca))
        patch.setenv("FLOWVIS_TOKEN", "wrong-0123456789abcdefgh")
        assert main(["status"]) == 1
        error = capsys.readouterr().err
        assert "the token is not valid" in error
        assert "wrong-0123456789abcdefgh" not in error
        patch.setenv("FLOWVIS_TOKEN", ADMIN)
        assert main(["status", "--check"]) in {0, 1}


def at_a_terminal(store: Asked, *arguments: str, **environment: str) -> str:
    """What flowctl writes to a terminal of 80 cells."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "flowvis.cli.flowctl", *store.socket, *arguments]
    known = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "TERM"}}
    running = subprocess.Popen(
        command, stdout=theirs, stderr=subprocess.PIPE, env=known | {"TERM": "xterm"} | environment
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes any more
        while piece := os.read(ours, 4096):
            written += piece
    os.close(ours)
    _, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, errors
    return written.decode()


def test_a_terminal_gets_lines_that_fit_in_colour(store: Asked) -> None:
    long_names = ("long/a-workload-with-a-long-name-7d4b9c6f5-x2k9q", "long/another-of-that-kind-0")
    store.tell(connection(1995, *long_names, 5, denied=True))
    arguments = ("flows", "src.port = 1995", "--since", "10m")
    coloured = at_a_terminal(store, *arguments)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    (line,) = plain.splitlines()
    assert len(line) <= 80
    assert "…" in line
    assert "dropped" in line
    assert "\x1b[31m" in coloured
    assert "\x1b[31m" not in at_a_terminal(store, *arguments, NO_COLOR="1")


def test_no_column_of_a_table_vanishes_and_no_number_is_broken(store: Asked) -> None:
    assert "sourceTransportPort" in undone(
        at_a_terminal(store, "sql", "SELECT * FROM flows LIMIT 1")
    )
    largest = str(2**64 - 1)
    columns = ", ".join(f"{'x' * 30!r} AS t{n}, toUInt64({largest}) AS n{n}" for n in range(2))
    _, *lines = at_a_terminal(store, "sql", f"SELECT {columns}").splitlines()
    assert max(map(len, lines)) <= 80
    assert [word for word in lines[0].split() if word.isdecimal()] == [largest] * 2


def undone(shown: str) -> str:
    """Put lines that a terminal would wrap together again."""
    return shown.replace("\r\n", "")


def test_who_reads_no_more_has_seen_enough_of_a_table(store: Asked) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    command = [sys.executable, "-m", "flowvis.cli.flowctl", *store.socket, "flows", *RECENT]
    ended = subprocess.run(
        command, stdout=writable, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False
    )
    os.close(writable)
    assert ended.returncode == 0, ended.stderr


def test_nothing_has_the_columns_of_something(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = [*store.socket, "flows", "src.pod = nobody", *RECENT]
    assert main([*nobody, "-o", "csv"]) == 0
    heading = capsys.readouterr().out
    assert main([*store.socket, "flows", *RECENT, "-o", "csv"]) == 0
    assert heading == capsys.readouterr().out.splitlines(keepends=True)[0]
    assert main([*nobody, "--fields", "bogus"]) == 1
    assert "--fields 'bogus': no column" in capsys.readouterr().err
    assert main([*nobody, "--fields", "sourceIP, destinationIP"]) == 0


def test_what_programs_are_not_given_is_told(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["top"], ["series", "--by", "src.pod"]):
        wide = [*store.socket, *arguments, *RECENT, "-o", "csv"]
        assert main([*wide, "--limit", "1"]) == 0
        assert "flowctl: only the first 1: see --limit\n" in capsys.readouterr().err
        assert main(wide) == 0
        assert "--limit" not in capsys.readouterr().err
    for form in ("csv", "json", "table"):
        wide = [*store.socket, "diff", "--since", "50m", "-o", form]
        assert main([*wide, "--limit", "1"]) == 0
        said, errors = capsys.readouterr()
        assert "smaller edges were not compared" in (said if form == "table" else errors)
        assert main(wide) == 0
        assert "smaller edges" not in "".join(capsys.readouterr())


def test_a_flow_to_explain_is_a_filter_as_of_all_commands(
    store: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here no policies are known: what is asked for is found, and then not explained."""
    said = []
    for arguments in (
        ["dst.pod = shop/orders-0"],
        ["dst.pod", "=", "shop/orders-0"],
        ["dst.pod ="],
    ):
        main([*store.socket, "explain", *arguments])
        said.append(capsys.readouterr())
    assert said[0] == said[1]
    assert said[0] != said[2]


def test_ranges_to_compare_with_are_of_this_machines_clock(
    store: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        now = ["--since", "2026-01-31T21:00", "--until", "2026-01-31T22:00"]
        compared = ["--compare", "2026-01-31T20:00..2026-01-31T21:00"]
        assert main([*store.socket, "top", *now, *compared, "-o", "json"]) == 0
    finally:
        monkeypatch.undo()
        time.tzset()
    document = json.loads(capsys.readouterr().out)
    assert document["compared"]["from"] == 1_769_857_200_000  # 11:00 UTC
    assert document["answer"]["from"] == 1_769_860_800_000


class Following:
    """flowctl flows --follow in a process of its own; what it shows are source ports."""

    def __init__(self, target: list[str], path: Path, *arguments: str) -> None:
        self._path, self._errors = path / "followed", path / "errors"
        form = ["-o", "csv", "--fields", "sourceTransportPort"]
        command = [sys.executable, "-m", "flowvis.cli.flowctl", *target, "flows", "--follow"]
        with self._path.open("wb") as file, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*command, *form, *arguments], stdout=file, stderr=errors
            )

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def ports(self) -> list[int]:
        return [int(line) for line in self._path.read_text().splitlines()[1:]]

    def until(self, expected: set[int]) -> list[int]:
        block_until(
            lambda: expected <= set(self.ports()),
            lambda: f"{expected - set(self.ports())} {self.errors}",
        )
        return self.ports()

    def end(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE_S)


def test_history_and_live_are_one_stream(store: Asked, tmp_path: Path) -> None:
    """More are written than are remembered, before, as it begins, and after: each comes once."""
    numbers = iter(range(20_000, 30_000))

    def send(count: int) -> set[int]:
        sent = [next(numbers) for _ in range(count)]
        store.tell(*(connection(n, "one/a", "one/b", n, ago_s=0) for n in sent))
        return set(sent)

    stored = send(REMEMBERED + 25)
    following = Following(store.socket, tmp_path, "src.namespace = one", "--since", "10m")
    try:
        expected = stored | send(30)
        following.until(expected)
        for _ in range(3):
            expected |= send(10)
        ports = following.until(expected)
    finally:
        following.end()
    assert Counter(ports) == Counter(expected)


def test_a_stream_that_is_silent_has_broken_off(
    store: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a node that lost its power, or a way that forgot the session, nothing else tells."""
    assert client.SILENT_S >= 3 * ALIVE_S
    monkeypatch.setattr(client, "SILENT_S", 0.2)
    found: list[BaseException] = []

    def follow() -> None:
        asked = client.ControlClient(store.path / "control.sock")
        try:
            for _ in asked.events("api/v1/stream", {"filter": "src.pod = nobody"}):
                pass
        except SystemRefused as error:
            found.append(error)

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    following.join(ALIVE_S)
    assert "timed out" in str(found)


def test_a_stream_that_breaks_off_goes_on(store: Asked, tmp_path: Path) -> None:
    """What was written while there was no connection comes as well, and nothing twice."""
    numbers = iter(range(40_000, 50_000))

    def send(count: int) -> set[int]:
        sent = [next(numbers) for _ in range(count)]
        store.tell(*(connection(n, "three/a", "three/b", n, ago_s=0) for n in sent))
        return set(sent)

    with relaying(store.api_port) as relay:
        url = f"https://localhost:{relay.port}"
        here = [*server(store, ADMIN, tmp_path)[2:], "--server", url]
        following = Following(here, tmp_path, "src.namespace = three", "--since", "10m")
        try:
            expected = send(3)
            following.until(expected)
            for _ in range(2):
                before = relay.connections
                relay.cut()
                expected |= send(3)
                ports = following.until(expected)
                assert relay.connections > before
            relay.refuse()
            block_until(
                lambda: "no aggregator answers" in following.errors, lambda: following.errors
            )
            expected |= send(3)
            relay.accept_again()
            ports = following.until(expected)
        finally:
            following.end()
    assert Counter(ports) == Counter(expected)
    assert "going on" in following.errors


def test_what_the_store_does_not_have_yet_is_shown(run: Run, store: Asked) -> None:
    """Right after more records than are remembered: all come, each once."""
    numbers = range(30_000, 30_000 + 2 * REMEMBERED)
    before = store.aggregator.books()["correlator"]["sent"]
    deliver(
        store.aggregator,
        exported(*(connection(n, "two/a", "two/b", n, ago_s=0) for n in numbers)),
    )
    block_until(
        lambda: store.aggregator.books()["correlator"]["sent"] >= before + len(numbers),
        store.aggregator.books,
    )
    lines = run("flows", "src.namespace = two", "--since", "10m", "-o", "json")
    found = [json.loads(line) for line in lines]
    assert Counter(record["sourceTransportPort"] for record in found) == Counter(numbers)
    assert {(record["clusterUUID"], record["clusterId"]) for record in found} == {("east", "east")}


def complete(store: Asked, path: Path, line: str) -> list[str]:
    """What argcomplete answers bash at the end of a line."""
    written = path / "completions"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(written),
        "COMP_TYPE": "9",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-m", "flowvis.cli.flowctl"]
    subprocess.run(command, env=environment, check=True, timeout=PATIENCE_S)
    return [each.strip() for each in written.read_text().splitlines()]


@pytest.fixture(scope="module")
def words(store: Asked) -> Asked:
    """With values that are in the latest records."""
    store.tell(connection(1997, "words/alpha-0", "words/beta-0", 1) | {"flowEndReason": 3})
    return store


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flows 'src.namespace = wor", "src.namespace = words"),
        ("flows src.namespace = wor", "words"),
        ("explain 'src.namespace = wor", "src.namespace = words"),
        ("explain src.namespace = wor", "words"),
        ("lab ru", "run"),
        ("lab run --fault kill-an", "kill-any"),
    ],
)
def test_shells_complete_names_and_values(
    line: str, expected: str, words: Asked, tmp_path: Path
) -> None:
    found = complete(words, tmp_path, f"flowctl {' '.join(words.socket)} {line}")
    assert expected in found, found


def test_what_is_completed(words: Asked) -> None:
    client = words.aggregator.control
    assert "src.namespace" in {each.strip() for each in completing.filters(client, "", "src.names")}
    assert "words/beta-0" in completing.values(client, "dst.pod", "words/be")
    assert "dropped" in completing.values(client, "verdict", "drop")
    assert "src.pod,dst.namespace" in completing.listed(client, "dimension", "src.pod,dst.na")
    assert "octets,denied" in completing.listed(client, "measure", "octets,den")
    assert not any(
        each.startswith("octets,octets")
        for each in completing.listed(client, "measure", "octets,den")
    )


def test_a_hostile_name_is_not_completed(words: Asked) -> None:
    hostile = {"sourcePodName": "evil\x1b[2J", "sourcePodNamespace": "evil-space"}
    words.tell(connection(1996, "x/y", "words/beta-0", 1) | hostile)
    client = words.aggregator.control
    assert "evil-space" in completing.values(client, "src.namespace", "evil")
    for found in (
        completing.values(client, "src.pod", "evil"),
        completing.filters(client, "", "src.pod = evil"),
    ):
        assert all(each.isprintable() for each in found)


def test_completion_without_an_aggregator_is_quiet(store: Asked, tmp_path: Path) -> None:
    assert complete(store, tmp_path, "flowctl --socket /none flows src.na") == []


def test_the_code_for_bash_works(store: Asked, tmp_path: Path) -> None:
    line = f"flowctl {' '.join(store.socket)} flows src.namesp"
    script = f"""
        export PATH={Path(sys.executable).parent}:$PATH
        eval "$(flowctl completion bash)"
        COMP_LINE='{line}' COMP_POINT={len(line)} COMP_TYPE=9
        COMP_WORDS=($COMP_LINE) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _python_argcomplete flowctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    answer = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert answer.stdout.strip().startswith("src.namespace"), answer.stderr
