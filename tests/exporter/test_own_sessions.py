"""The exporter's own sessions, told by their tuple from all other connections to the collector."""

import resource
import socket
from functools import partial
from pathlib import Path

import pytest

from exporter.collector import Collector
from exporter.kernel_entries import Connection, entries
from exporter.test_live import Start, start
from flowvis.exporter.session_file import KEPT as SESSIONS_KEPT
from flowvis.exporter.session_file import SessionFile
from flowvis.exporter.tables.own_sessions import KEPT, OwnSessions
from flowvis.exporter.tables.scope import Scope
from waiting import until

__all__ = ["start"]

LOCAL, REMOTE = ("10.0.0.5", 40_001), ("10.96.0.9", 4739)
OWN = Connection(*("10.0.0.5", "10.96.0.9"), *(40_001, 4739), 6)


def test_only_the_very_tuple_is_left_out() -> None:
    own = OwnSessions()
    own.add(LOCAL, REMOTE)
    own.add(
        (
            "fe80::5%eth0",
            40_002,
        ),
        ("fd00::9", 4739),
    )
    own.add(("10.0.0.5", 40_004), REMOTE, 17)
    others = [
        Connection("10.0.0.6", "10.96.0.9", 40_001, 4739, 6),
        Connection("10.0.0.5", "10.96.0.8", 40_001, 4739, 6),
        Connection("10.0.0.5", "10.96.0.9", 40_003, 4739, 6),
        Connection("10.0.0.5", "10.96.0.9", 40_001, 4740, 6),
        Connection("10.0.0.5", "10.96.0.9", 40_001, 4739, 17),
        Connection("10.0.0.5", "10.96.0.9", 40_004, 4739, 6),
    ]
    udp = Connection("10.0.0.5", "10.96.0.9", 40_004, 4739, 17)
    six = Connection("fe80::5", "fd00::9", 40_002, 4739, 6)
    covered = Scope(own=own).covers(entries(OWN, six, udp, *others))
    assert covered.tolist() == [False, False, False] + [True] * len(others)
    assert Scope().covers(entries(OWN, six, udp, *others)).all()


def test_only_so_many_are_remembered() -> None:
    own = OwnSessions()
    own.add(LOCAL, REMOTE)
    for port in range(1, KEPT):
        own.add(("10.0.0.5", port), REMOTE)
    assert own.among(entries(OWN)).all()
    own.add(("10.0.0.5", 50_000), REMOTE)
    assert len(own) == KEPT
    assert not own.among(entries(OWN)).any()


@pytest.mark.kernel
@pytest.mark.parametrize("wanted", [False, True], ids=["not exported", "exported"])
async def test_a_daemons_own_sessions(start: Start, wanted: bool) -> None:
    """The collector goes away in between, so that there are two sessions and failed attempts."""
    collector = Collector()
    await collector.come()
    exporter = start(collector, own_sessions=wanted, protocolFilter=["tcp"])
    await until(lambda: collector.sessions)
    await collector.go_away()
    await exporter.metric("flowvis_exporter_client_attempts_total", 3.0)
    await collector.come()
    with socket.create_connection(("127.0.0.1", collector.port)) as other:
        port = other.getsockname()[1]
        await until(lambda: port in {row["sourceTransportPort"] for row in collector.rows})
    await exporter.stop()
    await collector.go_away()
    found = [row for row in collector.rows if row["destinationTransportPort"] == collector.port]
    mine = {row["sourceTransportPort"] for row in found} - {port}
    assert bool(mine) == wanted


def has_sessions(directory: Path, number: int) -> bool:
    return sum(path.read_text().count("\n") for path in directory.glob("*.sessions")) == number


@pytest.mark.kernel
@pytest.mark.parametrize("killed", [True, False])
async def test_the_sessions_of_exporters_before(start: Start, killed: bool) -> None:
    """The kernel lists them for a while, with all that was ever sent."""
    collector = Collector()
    await collector.come()
    exporter = start(collector, protocolFilter=["tcp"])
    for number in (1, 2, 3):
        await until(partial(has_sessions, exporter.path, number))
        if not killed:
            await exporter.stop()
        exporter.kill()
    await until(lambda: collector.sessions == 4)
    with socket.create_connection(("127.0.0.1", collector.port)) as other:
        port = other.getsockname()[1]
        await until(lambda: port in {row["sourceTransportPort"] for row in collector.rows})
    await exporter.stop()
    await collector.go_away()
    assert {row["sourceTransportPort"] for row in collector.rows} == {port}


async def test_a_damaged_file_costs_what_is_damaged(tmp_path: Path) -> None:
    first = SessionFile(tmp_path, "node/1", OwnSessions())
    first.add(LOCAL, REMOTE)
    with first.path.open("ab") as file:
        file.write(b"10.0.0.5 70000 10.96.0.9 4739 6\n10.0.0.5 7 x 4739 6\n\xff\0\n1 2\n10.0.0.")
    own = OwnSessions()
    await SessionFile(tmp_path, "node/1", own).start()
    assert own.among(entries(OWN)).all()
    assert len(own) == 1


async def sessions_left(directory: Path) -> OwnSessions:
    """What the next exporter knows."""
    own = OwnSessions()
    await SessionFile(directory, "node-1", own).start()
    return own


async def test_half_a_line_takes_none_that_comes_after_it(tmp_path: Path) -> None:
    path = SessionFile(tmp_path, "node-1", OwnSessions()).path
    path.write_bytes(b"10.0.0.5 7 10.96.0.9 4739 6\n10.0.0.")
    second = SessionFile(tmp_path, "node-1", OwnSessions())
    await second.start()
    second.add(LOCAL, REMOTE)
    own = await sessions_left(tmp_path)
    assert own.among(entries(OWN, OWN.at(source_port=7))).all()


async def test_a_disk_that_is_full_leaves_whole_lines(tmp_path: Path) -> None:
    sessions = SessionFile(tmp_path, "node-1", OwnSessions())
    sessions.add(("10.0.0.5", 7), REMOTE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sessions.path.stat().st_size + 9, hard))
    try:
        sessions.add(("10.0.0.5", 8), REMOTE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sessions.add(LOCAL, REMOTE)
    own = await sessions_left(tmp_path)
    assert own.among(entries(OWN, OWN.at(source_port=7))).all()


async def test_the_file_has_the_latest_attempts_only(tmp_path: Path) -> None:
    first = SessionFile(tmp_path, "node-1", OwnSessions())
    for port in range(1, 3 * SESSIONS_KEPT):
        first.add(("10.0.0.5", port), REMOTE)
        assert first.path.read_text().count("\n") <= 2 * SESSIONS_KEPT
        assert first.path.stat().st_mode & 0o077 == 0
    for port in range(50_000, 50_003):
        first.add(("10.0.0.5", port), REMOTE)
        own = OwnSessions()
        first = SessionFile(tmp_path, "node-1", own)
        await first.start()
        assert len(own) == SESSIONS_KEPT
        assert own.among(entries(OWN.at(source_port=port))).all()


async def test_where_no_file_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "node-1.sessions").mkdir()
    own = OwnSessions()
    sessions = SessionFile(tmp_path, "node-1", own)
    await sessions.start()
    for _ in range(2):
        sessions.add(LOCAL, REMOTE)
    assert own.among(entries(OWN)).all()
    assert [caplog.text.count(text) for text in ("not read", "not written")] == [1, 1]
