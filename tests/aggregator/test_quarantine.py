"""Records whose handling fails cost no others; the books balance, and the log says what it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flowvis.aggregator.correlation.arrivals import Arrivals
from flowvis.aggregator.correlation.generations import Generations, Report
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.aggregator.enrichment.endpoints import Endpoints
from flowvis.aggregator.quarantine import MAX_FILES, Quarantine
from flowvis.batch import Batch
from flowvis.errors import FlowvisError
from flowvis.parts import ATTEMPTS, each_part
from waiting import until

from .harness import connection, exported
from .records import numbered
from .test_collector import Line, intra

BAD = "client-3"


def failing(batch: Batch) -> None:
    """Fail as a defect would: over one record, wherever it is."""
    if BAD in batch.texts("sourcePodName"):
        raise RuntimeError("a defect of a test")


def numbers(batch: Batch) -> list[int]:
    return [int(number) for number in batch["octetTotalCount"]]


def fails_over(*bad: int) -> Callable[[Batch], None]:
    def work(batch: Batch) -> None:
        found = set(numbers(batch)) & set(bad)
        if found:
            raise ValueError(str(found))
        done.extend(numbers(batch))

    done: list[int] = []
    work.done = done  # type: ignore[attr-defined]
    return work


@pytest.mark.parametrize("bad", [(), (1,), (0, 99), (40, 41, 42)])
def test_only_what_fails_is_given_up(bad: tuple[int, ...]) -> None:
    work, given_up = fails_over(*bad), list[int]()
    each_part(numbered(0, 100), work, lambda _, part: given_up.extend(numbers(part)))
    assert given_up == sorted(bad)
    assert work.done == sorted(set(range(100)) - set(bad))  # type: ignore[attr-defined]


def test_a_batch_that_fails_throughout_is_not_tried_for_ever() -> None:
    given_up: list[int] = []
    tries: list[int] = []

    def work(batch: Batch) -> None:
        tries.append(len(batch))
        raise MemoryError

    each_part(numbered(0, 1000), work, lambda _, part: given_up.extend(numbers(part)))
    assert len(tries) == ATTEMPTS
    assert given_up == list(range(1000))


async def test_a_record_that_cannot_be_settled_goes_in_as_it_was_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    settle = Endpoints.settle

    def odd(endpoints: Endpoints, batch: Batch) -> Batch:
        failing(batch)
        return settle(endpoints, batch)

    monkeypatch.setattr(Endpoints, "settle", odd)
    session = line.open()
    line.feed(session, intra(0, 100))
    assert sorted(await line.write()) == sorted(f"client-{n}" for n in range(100))
    assert "correlation: RuntimeError: a defect of a test; 1 records are set apart" in caplog.text
    assert "node-1@192.0.2.1 domain 1" in str(caplog.records[-1].__dict__["exporters"])


async def test_a_record_that_no_key_can_be_made_of_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    make = Arrivals.__init__

    def odd(arrivals: Arrivals, batch: Batch, *more: object) -> None:
        failing(batch)
        make(arrivals, batch, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Arrivals, "__init__", odd)
    line.feed(line.open(), intra(0, 100))
    assert sorted(await line.write()) == sorted(f"client-{n}" for n in range(100) if n != 3)
    books = line.ledger.stages["correlator"]
    assert books.dropped == {"failed": 1}
    assert (books.received, books.sent) == (100, 99)
    assert not line.ledger.imbalance()
    assert caplog.text.count("are set apart") == 1


async def test_an_error_amid_a_batch_costs_that_record_and_leaves_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of a batch is merged when a decision over one of its records fails."""
    line = Line(inactive_timeout_ms=1000, active_timeout_ms=100)
    session = line.open()
    line.feed(session, intra(0, 10))
    await line.write()
    slot = Generations.slot

    def odd(generations: Generations, report: Report, current: int, now_ms: int) -> int:
        found = slot(generations, report, current, now_ms)
        if len(decided) == 4:
            decided.append(-1)
            raise RuntimeError("a defect of a test, after the table was changed")
        decided.append(found)
        return found

    decided: list[int] = []
    monkeypatch.setattr(Generations, "slot", odd)
    later = {"flowStartMilliseconds": line.now_ms + 500, "flowEndMilliseconds": line.now_ms + 900}
    line.feed(session, exported(*(connection(n) | {"flowType": 1} | later for n in range(12))))
    line.collector.flush()
    assert len(decided) == 10
    assert not line.ledger.imbalance()
    books = line.ledger.stages["correlator"]
    assert books.dropped == {"failed": 1}
    await line.write()
    line.now_ms += 60_000
    await line.write()
    assert len(line.table) == 0, "a row that nobody writes or forgets"
    assert books.received == 22
    assert books.sent == 21


async def test_a_record_that_cannot_be_completed_is_written_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    complete = Completer.complete

    def odd(completer: Completer, batch: Batch) -> None:
        failing(batch)
        complete(completer, batch)

    monkeypatch.setattr(Completer, "complete", odd)
    line.feed(line.open(), intra(0, 100))
    assert sorted(await line.write()) == sorted(f"client-{n}" for n in range(100))
    clusters = [text for batch in line.history.latest(100) for text in batch.texts("clusterId")]
    assert sorted(clusters) == [""] + ["east"] * 99
    assert line.table.stats.uncompleted == 1
    assert "completion: RuntimeError" in caplog.text


async def test_a_flow_that_cannot_be_completed_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    line.feed(line.open(), intra(0, 50))
    await line.write()
    complete = Completer.complete

    def odd(completer: Completer, batch: Batch, *, counts: bool) -> None:
        assert not counts
        failing(batch)
        complete(completer, batch, counts=counts)

    monkeypatch.setattr(Completer, "complete", odd)
    shown = [
        each
        for part in line.correlator.open_flows(20)
        for each in zip(part.texts("sourcePodName"), part.texts("clusterId"), strict=True)
    ]
    assert sorted(shown) == sorted((f"client-{n}", "" if n == 3 else "east") for n in range(50))
    assert line.table.stats.uncompleted == 0  # nothing is written
    assert "completion: RuntimeError" in caplog.text


async def test_an_error_over_what_is_due_does_not_end_the_daemon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    line.feed(line.open(), intra(0, 3))
    line.collector.flush()
    due = line.table.due
    tries: list[int] = []

    def odd(now_ms: int, limit: int | None = None) -> Batch:
        tries.append(now_ms)
        if len(tries) < 4:
            raise FlowvisError("a defect of a test")
        return due(now_ms, limit)

    with monkeypatch.context() as patched:
        patched.setattr(line.table, "due", odd)
        await line.correlator.start()
        await until(lambda: len(line.history) == 3)
        await line.correlator.stop()
    assert caplog.text.count("in writing what is due: FlowvisError: a defect of a test") == 1


def test_set_apart_records_are_in_files_which_are_few(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "made" / "here"
    now = [0.0]
    quarantine = Quarantine(directory, clock_s=lambda: now[0])
    for number in range(MAX_FILES + 3):
        now[0] = 60.0 * (number >= MAX_FILES)
        batch = exported(connection(number), connection(number + 100))
        quarantine.note("a test", ValueError("odd"), batch)
    files = sorted(directory.iterdir())
    assert len(files) == MAX_FILES
    head, *rows = map(json.loads, files[2].read_text().splitlines())
    assert head == {"doing": "a test", "error": "ValueError: odd"}
    assert [row["sourcePodName"] for row in rows] == ["client-18", "client-118"]
    assert rows[0]["sourceIP"] == "10.0.0.18"
    assert files[2].stat().st_mode & 0o77 == 0
    (record,) = caplog.records
    assert record.__dict__["file"] == str(files[0])


def test_many_defects_at_once_write_few_files(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, clock_s=lambda: 0.0)
    for number in range(5 * MAX_FILES):
        quarantine.note("a test", ValueError("odd"), numbered(number + 1, 1))
    kept = [json.loads(file.read_text().splitlines()[1]) for file in sorted(tmp_path.iterdir())]
    assert [row["octetTotalCount"] for row in kept] == list(range(1, MAX_FILES + 1))


def test_a_directory_that_cannot_be_written_to_costs_the_file_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    Quarantine(blocked).note("a test", ValueError("odd"), numbered(0, 1))
    assert caplog.records[0].__dict__["file"].startswith("none: ")
