"""Questions: what may be asked of the API and of the status port by whoever may ask."""

import http.client
import os
import threading
from pathlib import Path
from threading import Event

from benchmarks.attacks import Findings, Store, Target, attack
from flowvis.cli.client import ControlClient
from flowvis.errors import FlowvisError

ROWS = 1_000_000
ACCEPTS = (
    "application/openmetrics-text; version=x",
    "application/openmetrics-text; version=",
    "application/openmetrics-text; version=99999999999999999999.0.0",
    "application/openmetrics-text; version=0.0.1, text/plain;q=abc",
    "application/openmetrics-text;version=1.0.0;escaping=nonsense",
    "text/plain; version=1.x.y",
    ",;=,;q=;;",
    "*/*;q=-1",
    "\xff\xfe",
    "application/openmetrics-text" * 200,
)


def _ask(target: Target, sql: str, rows: int = 10) -> list[list[object]] | None:
    """Return the rows of an answer, None where there is none."""
    try:
        answer = ControlClient(target.control).post("sql", {"query": sql, "maxRows": rows})
    except (FlowvisError, OSError, http.client.HTTPException, ValueError):
        return None
    found: list[list[object]] = answer["rows"]
    return found


@attack("sql-million-rows", store=Store.EMBEDDED)
def million_rows(target: Target, over: Event) -> Findings:
    """Answers of a million rows, one after the other."""
    sql = f"SELECT number, toString(number), number * 2 FROM numbers({ROWS})"
    count = 0
    while not over.is_set():
        count += _ask(target, sql, ROWS) is not None
        over.wait(0.1)
    return {"answers": count}


@attack("sql-memory", store=Store.EMBEDDED)
def memory(target: Target, over: Event) -> Findings:
    """Queries that want more memory than there is."""
    queries = (
        "SELECT count() FROM (SELECT groupArray(number) FROM numbers(1500000000))",
        "SELECT count() FROM (SELECT number, rand() r FROM numbers(800000000) ORDER BY r)",
        "SELECT uniqExact(toString(number)) FROM numbers(600000000)",
        "SELECT length(repeat(toString(number), 10000000)) FROM numbers(1000)",
    )

    def ask(sql: str) -> None:
        while not over.is_set():
            _ask(target, sql)
            over.wait(0.1)

    threads = [threading.Thread(target=ask, args=(sql,), daemon=True) for sql in queries]
    for thread in threads:
        thread.start()
    over.wait()
    return {"queries": len(queries)}


@attack("sql-files", store=Store.EMBEDDED)
def files(target: Target, over: Event) -> Findings:
    """Queries that write files, or read some that are not tables."""
    secret = target.directory / "secret.csv"
    secret.write_text("1\n")
    escapes = [target.directory / f"written-{number}" for number in range(5)]
    writes = [
        f"SELECT 1 # '\nINTO OUTFILE '{escapes[0]}'",
        f"SELECT $$ '$$ INTO OUTFILE '{escapes[1]}' FORMAT CSV -- '",
        f"SELECT 1 INTO /* */ OUTFILE '{escapes[2]}'",
        f"SELECT $a$'$a$ INTO OUTFILE '{escapes[3]}' -- '",
        f"INSERT INTO FUNCTION file('{escapes[4]}', 'CSV', 'x UInt8') SELECT 1",
    ]
    reads = [
        f"SELECT * FROM file('{secret}', 'CSV', 'x UInt8')",
        f"SELECT * FROM file('{os.path.relpath(secret, '/')}', 'CSV', 'x UInt8')",
        "SELECT * FROM file('/etc/passwd', 'LineAsString', 'x String')",
        "SELECT * FROM url('file:///etc/passwd', 'LineAsString', 'x String')",
        f"SELECT x FROM s3('file://{secret}', 'CSV', 'x UInt8')",
        f"SELECT * FROM `{secret}`",
    ]
    read = 0
    while not over.is_set():
        for sql in writes:
            _ask(target, sql)
        read += sum(bool(_ask(target, sql)) for sql in reads)
        over.wait(0.1)
    written = [path.name for path in escapes if Path(path).exists()]
    return {"written": written, "read": read, "held": not written and not read}


@attack("accept-headers")
def accept_headers(target: Target, over: Event) -> Findings:
    """Scrapes with odd Accept headers; each must be answered."""
    asked = answered = 0
    while not over.is_set():
        for accept in ACCEPTS:
            client = http.client.HTTPConnection("127.0.0.1", target.status_port, timeout=2)
            asked += 1
            try:
                client.request("GET", "/metrics", headers={"Accept": accept})
                answered += client.getresponse().status == http.client.OK
            except (OSError, http.client.HTTPException):
                pass
            finally:
                client.close()
        over.wait(0.1)
    return {"asked": asked, "answered": answered, "held": asked == answered}
