"""The flow log, read back from its files as others read CSV and JSON."""

import asyncio
import contextlib
import csv
import gzip
import io
import json
import os
import resource
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from flowvis.aggregator.destinations import flow_log, rotation
from flowvis.aggregator.destinations.file_lines import LOGGED, UPLOADED, csv_upload
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.destinations.outlets import Outlets
from flowvis.aggregator.destinations.parquet import Parquet
from flowvis.aggregator.destinations.rotation import LONGEST, TAIL, RotatedFile, Rotation
from flowvis.aggregator.destinations.s3 import PART_BYTES, csv_pieces
from flowvis.aggregator.destinations.texts import split_by_text
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.batch import SETTLED, Batch
from flowvis.fields import FIELDS, Kind
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Ledger, Stage
from flowvis.runtime.settings import load
from waiting import PATIENCE_S, until

from .harness import connection, deliver, exported, running
from .records import numbered, records

STORED = tuple(field for field in FIELDS if field.stored)
ODD = 'a,b"c\nd'
SOME = {
    "flowStartSeconds": 1_706_702_400, "sourceIP": "10.0.0.1", "destinationIP": "fd00::2",
    "sourceTransportPort": 40000, "protocolIdentifier": 6, "sourcePodName": ODD,
    "destinationServicePortName": "shop/größe:http", "ingressNetworkPolicyRuleAction": 2,
    "ingressNetworkPolicyType": 4, "egressNetworkPolicyRuleAction": 5, "egressIP": "10.9.9.9",
    "sourcePodLabels": '{"app":"it\'s"}', "octetTotalCount": 2**64 - 1,
}  # fmt: skip


def chosen(path: Path, **options: Any) -> flow_log.FlowLogger:
    document = {"flowLogger": {"enable": True, "path": str(path), **options}}
    return load(AggregatorSettings, json.dumps(document).encode(), {}).flow_logger


def made(section: flow_log.FlowLogger, stage: Stage) -> flow_log.FlowLog:
    return flow_log.make(
        section, Place(stage, 1 << 24, Surroundings(1.0, 1 << 30, lambda: 7)), None
    )


async def logged(section: flow_log.FlowLogger, *batches: Any) -> Stage:
    stage = Stage("flow-log")
    sink = made(section, stage)
    await sink.start()
    for batch in batches:
        sink.put(batch)
    await sink.stop()
    assert stage.imbalance == 0
    assert sink.mark == SETTLED
    return stage


async def test_csv_has_the_30_columns_and_any_text(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "flows.log"
    stage = await logged(chosen(path), records(SOME, {"protocolIdentifier": 99}, fields=STORED))
    assert (stage.sent, stage.dropped) == (2, {})
    assert path.stat().st_mode & 0o777 == 0o600
    rows = list(csv.reader(io.StringIO(path.read_text(), newline="")))
    assert [len(row) for row in rows] == [30, 30]
    one = dict(zip([field.name for field in LOGGED], rows[0], strict=True))
    assert one["flowStartSeconds"] == "1706702400"
    assert (one["sourceIP"], one["destinationIP"]) == ("10.0.0.1", "fd00::2")
    assert (one["sourcePodName"], one["protocolIdentifier"]) == (ODD, "TCP")
    assert one["destinationServicePortName"] == "shop/größe:http"
    assert one["ingressNetworkPolicyRuleAction"] == "Drop"
    assert one["ingressNetworkPolicyType"] == "K8sClusterNetworkPolicy"
    assert one["egressNetworkPolicyRuleAction"] == "UnenforcedReject"
    assert (one["destinationServiceIP"], one["egressIP"]) == ("", "10.9.9.9")
    assert rows[1][6] == "99"


async def test_numbers_where_pretty_print_is_off(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    await logged(chosen(path, prettyPrint=False), records(SOME, fields=STORED))
    ((*row,),) = csv.reader(io.StringIO(path.read_text(), newline=""))
    one = dict(zip([field.name for field in LOGGED], row, strict=True))
    assert one["protocolIdentifier"] == "6"
    assert one["ingressNetworkPolicyType"] == "4"
    assert one["egressNetworkPolicyRuleAction"] == "5"


async def test_json_has_every_stored_field(tmp_path: Path) -> None:
    path = tmp_path / "flows.json"
    await logged(chosen(path, recordFormat="JSON"), records(SOME, {}, fields=STORED))
    one, other = map(json.loads, path.read_text().splitlines())
    assert list(one) == list(other) == [field.name for field in STORED]
    assert (one["sourcePodName"], one["octetTotalCount"]) == (ODD, 2**64 - 1)
    assert (one["protocolIdentifier"], other["protocolIdentifier"]) == ("TCP", 0)
    assert json.loads(one["sourcePodLabels"]) == {"app": "it's"}


def test_the_columns_of_an_upload() -> None:
    lines = csv_upload(records(SOME, fields=STORED), 1_706_702_460).decode()
    (row,) = csv.reader(io.StringIO(lines, newline=""), quotechar="'")
    assert len(row) == 53
    one = dict(zip([field.name if field else "made" for field in UPLOADED], row, strict=True))
    assert one["made"] == "1706702460"
    assert one["sourcePodLabels"] == SOME["sourcePodLabels"]
    assert one["sourcePodName"] == ODD
    assert "'{\"app\":\"it''s\"}'" in lines
    assert ",''," in lines  # labels have quotes even where there are none


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        ([], [0, 1, 2, 3, 4]),
        ([{"ingressNetworkPolicyRuleActions": ["Drop", "reject"]}], [2, 3]),
        ([{"egressNetworkPolicyRuleActions": ["None"]}], [0, 2, 3, 4]),
        (
            [
                {
                    "ingressNetworkPolicyRuleActions": ["None", "Drop"],
                    "egressNetworkPolicyRuleActions": ["Allow"],
                },
                {"ingressNetworkPolicyRuleActions": ["Unenforced"]},
            ],
            [1, 4],
        ),
    ],
)
async def test_filters_by_rule_action(tmp_path: Path, filters: Any, taken: list[int]) -> None:
    path = tmp_path / "flows.log"
    actions = [(0, 0), (0, 1), (2, 0), (3, 0), (4, 0)]
    rows = [
        {
            "sourceTransportPort": port,
            "ingressNetworkPolicyRuleAction": ingress,
            "egressNetworkPolicyRuleAction": egress,
        }
        for port, (ingress, egress) in enumerate(actions)
    ]
    stage = await logged(chosen(path, filters=filters), records(*rows, fields=STORED))
    ports = [int(row[4]) for row in csv.reader(path.read_text().splitlines())]
    assert ports == taken
    assert (stage.received, stage.sent) == (5, len(taken))
    assert stage.dropped == ({"filtered": 5 - len(taken)} if len(taken) < 5 else {})


def test_a_file_is_put_aside_by_size_compressed_and_deleted_by_number_and_age(
    tmp_path: Path,
) -> None:
    now = [1_700_000_000.0]
    path = tmp_path / "flows.log"
    (tmp_path / "flows-of-others.log").write_text("not ours")
    file = RotatedFile(path, Rotation(100, 2, 500, compress=True), lambda: now[0])
    for number in range(9):
        file.append(b"%059d\n" % number)
        now[0] += 1
    assert path.read_bytes() == b"%059d\n" % 8
    backups = sorted(tmp_path.glob("flows-2*"))
    assert [gzip.decompress(one.read_bytes()) for one in backups] == [
        b"%059d\n" % 6,
        b"%059d\n" % 7,
    ]
    assert {one.suffix for one in backups} == {".gz"}
    now[0] += 501
    file.tidy()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["flows-of-others.log", "flows.log"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_who_could_read_the_file_can_read_the_next_and_those_put_aside(
    tmp_path: Path, mode: int
) -> None:
    """As a log shipper of another user; by default nobody else can."""
    path = tmp_path / "flows.log"
    file = RotatedFile(path, Rotation(5, 0, 0, compress=True))
    file.append(b"one\n")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(mode)
    for line in (b"two\n", b"three\n"):
        file.append(line)
    file.close()
    assert [one.suffix for one in sorted(tmp_path.iterdir())] == [".gz", ".gz", ".log"]
    assert {one.stat().st_mode & 0o777 for one in tmp_path.iterdir()} == {mode}


def test_a_link_stays_and_what_it_leads_to_is_put_aside(tmp_path: Path) -> None:
    there, link = tmp_path / "there", tmp_path / "flows.log"
    there.mkdir()
    link.symlink_to(there / "all.log")
    file = RotatedFile(link, Rotation(4, 2, 0, compress=False))
    for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
        file.append(line)
    file.tidy()
    file.close()
    assert (link.is_symlink(), link.read_bytes()) == (True, b"four\n")
    assert set(tmp_path.iterdir()) == {there, link}
    aside = sorted(there.glob("all-*.log"))
    assert [path.read_bytes() for path in aside] == [b"two\n", b"three\n"]


def test_a_disk_without_room_to_compress_still_loses_what_is_too_much(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    file = RotatedFile(tmp_path / "flows.log", Rotation(100, 2, 0, compress=True), lambda: now[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))  # of gzip's file, some 90 bytes
    try:
        for _ in range(9):
            file.append(b"%059d\n" % secrets.randbits(190))
            now[0] += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list(tmp_path.glob("flows-*"))) == 2
    file.tidy()
    file.close()
    assert [one.suffix for one in tmp_path.glob("flows-*")] == [".gz", ".gz"]


@pytest.mark.parametrize(
    ("results", "sent", "dropped"),
    [
        ([OSError(28, "full")] * 5 + [KeyError("what?"), OSError(28, "full"), KeyError()], 7, {}),
        ([KeyError("what?")] * 3, 0, {OutgoingDropped.FAILED: 7}),
    ],
)
async def test_a_load_survives_two_defects_however_often_it_was_not_taken(
    tmp_path: Path, results: list[Exception], sent: int, dropped: dict[str, int]
) -> None:
    stage = Stage("flow-log")
    sink = made(chosen(tmp_path / "flows.log"), stage)
    sink._backoff = Backoff(0.01, 0.02)
    left, append = list(results), sink.file.append

    def fickle(lines: bytes) -> None:
        if left:
            raise left.pop(0)
        append(lines)

    sink.file.append = fickle  # type: ignore[method-assign]
    await sink.start()
    sink.put(numbered(0, 7))
    await until(lambda: not sink.held())
    assert (stage.sent, stage.dropped, left) == (sent, dropped, [])
    assert sink.stats.failures == len(results)
    await sink.stop()


async def test_lines_are_written_while_a_file_is_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, goes_on = threading.Event(), threading.Event()
    compress = rotation._compress

    def slowly(path: Path, ended: Callable[[], bool]) -> None:
        began.set()
        goes_on.wait(60)
        compress(path, ended)

    monkeypatch.setattr(rotation, "_compress", slowly)
    monkeypatch.setattr(flow_log, "INTERVAL_S", 0.01)
    stage = Stage("flow-log")
    sink = made(chosen(tmp_path / "flows.log"), stage)
    sink.file._rotation = Rotation(1, 0, 0, compress=True)
    await sink.start()
    for number in range(5):
        sink.put(numbered(number, 1))
        await until(lambda: stage.sent == stage.received)
    assert began.is_set()
    assert not compressed(tmp_path)
    goes_on.set()
    await until(lambda: len(compressed(tmp_path)) == 4)
    await sink.stop()
    assert stage.imbalance == 0


async def test_a_stop_leaves_what_is_being_compressed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    aside = tmp_path / "flows-2023-11-14T22-13-20.000000.log"
    with aside.open("wb") as file:
        file.truncate(1 << 40)  # of zeros, which are not on the disk: an hour's work
    stage = await logged(chosen(path), numbered(0, 3))
    assert stage.sent == 3
    assert sorted(one.name for one in left(tmp_path)) == [aside.name, "flows.log"]


def left(path: Path) -> list[Path]:
    return list(path.iterdir())


def compressed(path: Path) -> list[Path]:
    return [one for one in left(path) if one.suffix == ".gz"]


def test_a_clock_that_is_set_back_keeps_nothing_for_longer(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    file = RotatedFile(tmp_path / "flows.log", Rotation(0, 1, 0, compress=False), lambda: now[0])
    file.append(b"one\n")
    for second in (1, 2):
        (tmp_path / f"flows-2023-11-01T00-00-0{second}.000000.log").write_bytes(b"old\n")
    now[0] -= 86_400
    file.append(b"two\n")
    file.close()
    assert len(list(tmp_path.glob("flows-*"))) == 1


def exist(*paths: Path) -> bool:
    return all(path.exists() for path in paths)


async def test_what_becomes_too_old_goes_while_no_record_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with filters that take little."""
    monkeypatch.setattr(flow_log, "TIDY_S", 0.01)
    path = tmp_path / "flows.log"
    sink = made(chosen(path, maxAge=1, compress=False), stage := Stage("flow-log"))
    await sink.start()
    sink.put(numbered(0, 1))
    await until(lambda: stage.sent)
    old, ahead = (tmp_path / f"flows-{year}-11-01T00-00-00.000000.log" for year in (2023, 2123))
    old.write_bytes(b"old\n")
    ahead.write_bytes(b"old\n")
    await until(lambda: not exist(old))
    await sink.stop()
    assert exist(path, ahead)


@pytest.mark.parametrize("back_s", [3600, 86_400 * 365])
def test_files_of_a_clock_that_was_ahead_are_the_first_to_go(tmp_path: Path, back_s: int) -> None:
    """Else what is put aside after them is deleted at once, for as long as it was ahead."""
    now = [1_700_000_000.0]
    path = tmp_path / "flows.log"
    file = RotatedFile(path, Rotation(5, 3, 0, compress=False), lambda: now[0])
    for number in range(9):
        if number == 5:
            now[0] -= back_s
        file.append(b"%04d\n" % number)
        now[0] += 1
    file.close()
    kept = {one.read_bytes() for one in tmp_path.glob("flows-*")}
    assert kept == {b"0005\n", b"0006\n", b"0007\n"}


def test_a_clock_that_is_set_back_a_little_takes_no_new_file(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    work: list[Callable[[], None]] = []
    path, kept = tmp_path / "flows.log", Rotation(5, 2, 0, compress=False)
    file = RotatedFile(path, kept, lambda: now[0], work.append)
    for number in range(5):
        file.append(b"%04d\n" % number)
        now[0] += 1
    now[0] -= 5.5  # before the thread gets to it
    file.tidy()
    file.close()
    assert {one.read_bytes() for one in tmp_path.glob("flows-*")} == {b"0002\n", b"0003\n"}


def test_what_a_crash_left_is_put_right(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    path.write_bytes(b"whole\nhal")
    aside = tmp_path / "flows-2023-11-14T22-13-20.000000.log"
    aside.write_bytes(b"old\n")
    (tmp_path / f"{aside.name}.part").write_bytes(b"\x1f\x8b")
    file = RotatedFile(path, Rotation(0, 0, 0, compress=True))
    file.append(b"next\n")
    file.close()
    assert path.read_bytes() == b"whole\nnext\n"
    assert gzip.decompress((tmp_path / f"{aside.name}.gz").read_bytes()) == b"old\n"
    assert not aside.exists()
    assert not (tmp_path / f"{aside.name}.part").exists()


@pytest.mark.parametrize("name", ["flows.log", "flows", "flows.gz"])
@pytest.mark.parametrize("compress", [True, False])
def test_what_was_put_aside_goes_whatever_a_kill_left_of_it(
    tmp_path: Path, name: str, compress: bool
) -> None:
    """Also where the file itself went before anybody came back to compress it."""
    path = tmp_path / name
    old = [
        tmp_path / f"{path.stem}-2023-11-14T22-13-2{digit}.000000{path.suffix}"
        for digit in range(3)
    ]
    for one in old:
        one.write_bytes(b"old\n")
    for one in (*old, tmp_path / f"{path.stem}-2022-01-01T00-00-00.5{path.suffix}"):
        one.with_name(f"{one.name}.part").write_bytes(b"\x1f\x8b")
    others = tmp_path / f"{name}.part"
    others.touch()
    file = RotatedFile(path, Rotation(0, 1, 0, compress))
    file.append(b"line\n")
    file.close()
    last = old[-1]
    if compress and path.suffix != ".gz":
        last = last.with_name(f"{last.name}.gz")
    assert set(tmp_path.iterdir()) == {path, last, others}


@pytest.mark.parametrize("whole", [b"", b"whole\n"])
@pytest.mark.parametrize("length", [TAIL - 6, TAIL, TAIL + 1, 2 * TAIL + 7])
def test_half_a_line_is_cut_off_however_long(tmp_path: Path, whole: bytes, length: int) -> None:
    """Of the texts that an exporter may bring a line has up to 2 MB."""
    path = tmp_path / "flows.log"
    path.write_bytes(whole + b"h" * length)
    file = RotatedFile(path, Rotation(0, 0, 0, compress=False))
    file.append(b"next\n")
    file.close()
    assert path.read_bytes() == whole + b"next\n"


def test_what_is_no_line_of_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    path.write_bytes(bytes(LONGEST + 1))
    file = RotatedFile(path, Rotation(0, 0, 0, compress=False))
    file.append(b"next\n")
    file.close()
    assert path.read_bytes() == bytes(LONGEST + 1) + b"\nnext\n"


def test_a_file_that_others_moved_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    file = RotatedFile(path, Rotation(0, 0, 0, compress=False))
    file.append(b"one\n")
    path.rename(tmp_path / "moved")
    file.append(b"two\n")
    path.unlink()
    file.append(b"three\n")
    file.close()
    assert ((tmp_path / "moved").read_bytes(), path.read_bytes()) == (b"one\n", b"three\n")


def test_nothing_of_lines_is_left_where_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    file = RotatedFile(path, Rotation(0, 0, 0, compress=False))
    file.append(b"one\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))  # SIGXFSZ is ignored by Python
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(b"x" * (1 << 17) + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.append(b"two\n")
    file.close()
    assert path.read_bytes() == b"one\ntwo\n"


async def test_it_goes_on_when_the_file_can_be_written_again(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("a file where a directory has to be")
    stage = Stage("flow-log")
    sink = made(chosen(place / "flows.log", maxPendingRecords=50), stage)
    await sink.start()
    sink.put(numbered(0, 20))
    await until(lambda: sink.problem)
    assert "cannot be written" in sink.problem
    sink.put(numbered(20, 60))
    assert (stage.sent, stage.dropped) == (0, {"queue-full": 30})  # 20 are on their way
    place.unlink()
    await until(lambda: stage.sent == 50)
    assert sink.problem == ""
    assert sink.stats.failures > 0
    await sink.stop()
    assert stage.imbalance == 0
    assert len((place / "flows.log").read_bytes().splitlines()) == 50


def with_long_texts(count: int) -> Batch:
    """Records that have one and the same text of 16 KB wherever they can have any."""
    long = {field.name: "x" * 16_000 for field in STORED if field.kind is Kind.TEXT}
    return records(*(long | {"octetTotalCount": n} for n in range(count)), fields=STORED)


async def test_lines_of_long_texts_are_made_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there of them stays there when the rest cannot be written yet."""
    path, stage = tmp_path / "flows.log", Stage("flow-log")
    sink = made(chosen(path, recordFormat="JSON"), stage)
    append, sizes = RotatedFile.append, []

    def full_at_times(file: RotatedFile, lines: bytes) -> None:
        sizes.append(len(lines))
        if len(sizes) in {3, 4}:
            raise OSError(28, "No space left on device")
        append(file, lines)

    monkeypatch.setattr(RotatedFile, "append", full_at_times)
    sink._backoff = Backoff(0.01, 0.02)
    sink.put(with_long_texts(60))
    await sink.start()
    await until(lambda: stage.sent == 60)
    await sink.stop()
    found = [json.loads(line)["octetTotalCount"] for line in path.read_bytes().splitlines()]
    assert found == list(range(60))
    assert sink.stats.failures == 2
    assert sink.stats.delivered_bytes == path.stat().st_size > 20_000_000
    assert max(sizes) < 1.2 * flow_log.AT_ONCE_BYTES


def test_files_of_long_texts_are_made_a_few_at_a_time() -> None:
    batch = with_long_texts(100)
    pieces = list(csv_pieces([batch], lambda: 1))
    assert sum(piece.count(b"\n") for piece in pieces) == 100
    assert max(map(len, pieces)) < 1.2 * PART_BYTES
    file = b"".join(Parquet("x", compress=True).pieces([batch, batch.take(slice(10))]))
    table = parquet.ParquetFile(io.BytesIO(file))
    assert table.metadata.num_row_groups > 2
    counted = table.read(["octetTotalCount", "sourcePodName"]).to_pydict()
    assert counted["octetTotalCount"] == [*range(100), *range(10)]
    assert set(counted["sourcePodName"]) == {"x" * 16_000}


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 100))
def test_parts_by_text_are_all_of_it_in_order(sizes: list[int], most: int) -> None:
    batch = records(
        *(
            {"octetTotalCount": at, "sourcePodName": "x" * size, "tcpState": "y"}
            for at, size in enumerate(sizes)
        )
    )
    parts = list(split_by_text(batch, most))
    found = [number for part in parts for number in part["octetTotalCount"].tolist()]
    assert found == list(range(len(sizes)))
    for part in parts:
        texts = [len(part.strings.value(int(code))) + 1 for code in part["sourcePodName"]]
        assert sum(texts[1:]) < most


async def test_standard_output_and_pipes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stage = await logged(chosen(pipe), numbered(0, 3))
    assert stage.sent == 3
    assert os.read(reader, 1 << 16).count(b"\n") == 3
    os.close(reader)


def test_standard_output_that_is_a_socket_as_under_systemd() -> None:
    ours, its = socket.socketpair()
    ours.settimeout(20)
    script = """
from pathlib import Path
from flowvis.aggregator.destinations.parquet import Parquet
from flowvis.aggregator.destinations.rotation import RotatedFile, Rotation
from flowvis.aggregator.destinations.s3 import PART_BYTES, csv_pieces
from flowvis.aggregator.destinations.texts import split_by_text
file = RotatedFile(Path("/dev/stdout"), Rotation(9, 1, 1, compress=True))
file.append(b"one\\n")
try:
    file.append(b"x" * (1 << 24) + b"\\n")
except OSError as error:
    file.close()
    raise SystemExit(str(error))
"""
    with its:
        ran = subprocess.run(
            [sys.executable, "-c", script],
            check=False,
            stdout=its.fileno(),
            stderr=subprocess.PIPE,
        )
    with ours:
        assert ours.recv(4) == b"one\n"
    assert ran.stderr.strip() in {
        b"nobody reads it",
        b"[Errno 11] Resource temporarily unavailable",
    }


def test_standard_output_that_is_a_file_stays_whoever_made_it_that(tmp_path: Path) -> None:
    """Putting aside would rename /dev/stdout itself, a link, and make a file in its place."""
    link, path = tmp_path / "stdout", tmp_path / "output"
    link.symlink_to("/proc/self/fd/1")
    path.write_bytes(b"not ours, and no whole line")
    script = f"""
from pathlib import Path
from flowvis.aggregator.destinations.rotation import RotatedFile, Rotation
for line in (b"one\\n", b"two\\n", b"three\\n"):
    file = RotatedFile(Path({str(link)!r}), Rotation(9, 1, 1, compress=True))
    file.append(line)
    file.close()
"""
    with path.open("ab") as output:
        subprocess.run([sys.executable, "-c", script], check=True, stdout=output, timeout=60)
    assert link.is_symlink()
    assert path.read_bytes() == b"not ours, and no whole lineone\ntwo\nthree\n"
    assert set(tmp_path.iterdir()) == {link, path}


async def test_a_pipe_that_nobody_reads_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    stage = Stage("flow-log")
    sink = made(chosen(pipe), stage)
    await sink.start()
    sink.put(numbered(0, 1000))
    await until(lambda: "cannot be written" in sink.problem)  # there is no reader
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink.put(numbered(1000, 1000))
    sink.put(numbered(2000, 1000))
    await until(lambda: "nobody reads it" in sink.problem)  # it is full
    text = b""
    while stage.sent < 3000:
        with contextlib.suppress(BlockingIOError):
            text += os.read(reader, 1 << 16)
        await asyncio.sleep(0)
    with contextlib.suppress(BlockingIOError):
        while more := os.read(reader, 1 << 16):
            text += more
    rows = list(csv.reader(text.decode().splitlines()))
    assert [len(row) for row in rows] == [30] * 3000  # no line twice, none in parts
    sink.put(numbered(0, 1000))
    sink.put(numbered(0, 1000))
    await until(lambda: "nobody reads it" in sink.problem)
    sink._grace_s = 0.1
    await asyncio.wait_for(sink.stop(), PATIENCE_S)
    os.close(reader)
    assert stage.imbalance == 0
    assert stage.dropped["shutdown"] > 0


def test_lines_that_were_given_up_take_nothing_from_those_after_them(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file = RotatedFile(pipe, Rotation(0, 0, 0, compress=False))
    lines = b"a line\n" * 30_000  # more than a pipe holds, which ends within one
    with pytest.raises(TimeoutError):
        file.append(lines)
    text = os.read(reader, 1 << 20)
    assert not text.endswith(b"\n")
    file.append(b"another line\n")
    text += os.read(reader, 1 << 20)
    *whole, cut, other = text.splitlines()
    assert (set(whole), other) == ({b"a line"}, b"another line")
    assert b"a line".startswith(cut)
    file.close()
    os.close(reader)


def test_a_pipe_that_was_made_anew_has_whole_lines(tmp_path: Path) -> None:
    """As its reader does when it begins again: the old one has nobody at its other end."""
    pipe = tmp_path / "pipe"
    file = RotatedFile(pipe, Rotation(0, 0, 0, compress=False))
    lines = b"".join(b"line %d\n" % number for number in range(30_000))
    read = []
    for _ in range(2):
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(TimeoutError):
            file.append(lines)
        read.append(os.read(reader, 1 << 20))
        os.close(reader)
    with pytest.raises(BrokenPipeError):
        file.append(lines)
    pipe.unlink()
    with pytest.raises(BrokenPipeError):  # it is not for us to make a file there
        file.append(lines)
    assert not pipe.exists()
    cut = len(read[0].splitlines()) - 1
    assert read[1].startswith(b"line %d\n" % cut)
    file.close()


def test_half_a_line_that_cannot_be_ended_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    with path.open("wb") as others:
        others.truncate(LONGEST + 1)
    file = RotatedFile(path, Rotation(0, 0, 0, compress=False))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LONGEST + 1, hard))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                file.append(b"next\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.append(b"next\n")
    file.close()
    assert path.read_bytes()[-6:] == b"\nnext\n"


def test_a_file_whose_end_fails_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a server has no room for what it was sent: its number is another file's soon."""
    path = tmp_path / "flows.log"
    file = RotatedFile(path, Rotation(5, 0, 0, compress=False))
    file.append(b"one\n")
    close = os.close

    def fail(number: int) -> None:
        close(number)
        raise OSError(28, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        with pytest.raises(OSError, match="full"):
            file.append(b"two\n")
    with (tmp_path / "of-others").open("wb", buffering=0) as others:
        file.append(b"two\n")
        file.close()
        others.write(b"x")
    assert (path.read_bytes(), (tmp_path / "of-others").read_bytes()) == (b"two\n", b"x")


@pytest.mark.kernel
def test_a_file_that_is_a_mount_says_why_it_is_not_put_aside(tmp_path: Path) -> None:
    """As a subPath of a volume is one."""
    path = tmp_path / "flows.log"
    path.touch()
    program = f"""
from pathlib import Path
from flowvis.aggregator.destinations.rotation import RotatedFile, Rotation
file = RotatedFile(Path({str(path)!r}), Rotation(5, 0, 0, False))
file.append(b"one\\n")
try:
    file.append(b"two\\n")
except OSError as error:
    print(error.strerror)
"""
    script = f'mount --bind {path} {path} && exec "$0" -c "$1"'
    told = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, program],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert told.stdout == "it is of maxSize, and cannot be put aside: Device or resource busy\n"
    assert path.read_bytes() == b"one\n"


async def test_another_file_while_records_flow(tmp_path: Path) -> None:
    ledger = Ledger()
    source = ledger.stage("source")
    surroundings = Surroundings(1.0, 1 << 30, lambda: 7)
    outlets = Outlets([flow_log.KIND], ledger, source, surroundings, 1 << 24)
    outlets.begin(AggregatorSettings(flow_logger=chosen(tmp_path / "one")))
    await outlets.start()
    assert outlets.has("flow-log")
    for name in ("one", "two", "three"):
        await outlets.apply(AggregatorSettings(flow_logger=chosen(tmp_path / name)))
        (outlet,) = outlets
        source.received += 10
        source.sent += 10
        outlet.put(numbered(0, 10))
        await asyncio.sleep(0)
    await outlets.stop()
    assert ledger.imbalance() == {}
    lines = [(tmp_path / name).read_bytes().count(b"\n") for name in ("one", "two", "three")]
    assert (sum(lines), lines[2]) == (30, 10)
    assert ledger.stages["flow-log"].sent == 30


async def test_lines_that_a_slow_pipe_has_are_there_once_when_the_log_is_replaced_or_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "ROOM_MS", 20)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    ledger = Ledger()
    source = ledger.stage("source")
    surroundings = Surroundings(0.2, 1 << 30, lambda: 7)
    outlets = Outlets([flow_log.KIND], ledger, source, surroundings, 1 << 24)
    outlets.begin(AggregatorSettings(flow_logger=chosen(pipe, recordFormat="JSON")))
    await outlets.start()
    (outlet,) = outlets
    source.received = source.sent = 3000
    outlet.put(numbered(0, 3000))
    await until(lambda: "nobody reads it" in str(outlets.as_dicts()))
    before = outlet.stage.sent
    again = chosen(pipe, recordFormat="JSON", maxBackups=7)
    await outlets.apply(AggregatorSettings(flow_logger=again))
    await until(lambda: outlet.former is None)
    assert outlet.stage.sent > before
    assert ledger.imbalance() == {}
    assert isinstance(outlet.current, flow_log.FlowLog)
    outlet.current._backoff = Backoff(0.01, 0.02)
    text = b""
    while text.count(b"\n") < 1000:
        await asyncio.sleep(0.01)
        with contextlib.suppress(BlockingIOError):
            text += os.read(reader, 1 << 16)
    await until(lambda: "nobody reads it" in str(outlets.as_dicts()))
    await outlets.stop()
    with contextlib.suppress(BlockingIOError):
        while more := os.read(reader, 1 << 16):
            text += more
    os.close(reader)
    whole = text[: text.rfind(b"\n") + 1].splitlines()
    assert [json.loads(line)["octetTotalCount"] for line in whole] == list(range(len(whole)))
    assert outlet.stage.sent == len(whole)
    assert outlet.stage.dropped == {"shutdown": 3000 - len(whole)}
    assert ledger.imbalance() == {}


async def test_another_file_in_the_place_of_one_whose_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, comes_back = threading.Event(), threading.Event()
    write, one = os.write, tmp_path / "one"

    def hanging(file: int, data: Any) -> int:
        if one.exists() and os.fstat(file).st_ino == one.stat().st_ino:
            hangs.set()
            comes_back.wait(60)
        return write(file, data)

    monkeypatch.setattr(flow_log, "CLOSING_S", 0.1)
    monkeypatch.setattr(flow_log, "WRITING_S", 0.1)
    ledger = Ledger()
    source = ledger.stage("source")
    surroundings = Surroundings(0.2, 1 << 30, lambda: 7)
    outlets = Outlets([flow_log.KIND], ledger, source, surroundings, 1 << 24)
    outlets.begin(AggregatorSettings(flow_logger=chosen(one)))
    await outlets.start()
    (outlet,) = outlets
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", hanging)
        outlet.put(numbered(0, 10))
        await until(hangs.is_set)
        await outlets.apply(AggregatorSettings(flow_logger=chosen(tmp_path / "two")))
        outlet.put(numbered(10, 10))
        await until(lambda: outlet.stage.sent == 20)
        comes_back.set()
    await outlets.stop()
    assert (tmp_path / "two").read_bytes().count(b"\n") == 20


def test_a_real_aggregator_logs_and_changes_its_file_while_it_runs(tmp_path: Path) -> None:
    settings = {"flowLogger": {"enable": True, "path": str(tmp_path / "flows.log")}}
    with running(tmp_path / "aggregator", settings) as aggregator:
        for round_ in range(2):
            halves = [connection(round_, source=source) for source in (True, False)]
            deliver(aggregator, exported(*halves))
            aggregator.until("flow-log", "sent", round_ + 1)
            assert aggregator.metrics()["flowvis_aggregator_flow_log_delivered_total"] == round_ + 1
            changed = {"enable": True, "path": str(tmp_path / "json.log"), "recordFormat": "JSON"}
            aggregator.configure({"flowLogger": changed})
            aggregator.logged("flowLogger")
        assert aggregator.stop() == 0
    ((*row,),) = csv.reader((tmp_path / "flows.log").read_text().splitlines())
    assert (row[2], row[7], row[10]) == ("10.0.0.0", "client-0", "server-0")
    (line,) = (tmp_path / "json.log").read_text().splitlines()
    assert (json.loads(line)["sourceIP"], json.loads(line)["clusterId"]) == ("10.0.0.1", "east")
