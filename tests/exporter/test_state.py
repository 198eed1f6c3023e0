import asyncio
import resource
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.kernel_entries import SECOND, Connection, entries
from exporter.test_connections import IDLE, T0, ended, event, poll, reported, rows, table
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.batch import Batch
from flowvis.conntrack.entries import NEW
from flowvis.exporter import journal as journal_module
from flowvis.exporter import state as state_module
from flowvis.exporter.journal import Journal, OfAnotherBoot
from flowvis.exporter.state import StateFile
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.default_zone import DefaultZone
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.reported import Reported
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import TEXT_FIELDS
from flowvis.ipfix.buffer import DOMAIN

STEPS = ("grow", "grow", "poll", "poll", "end", "kill")

ONE = Connection(counters=(1, 100, 0, 0))
TWO = Connection(id=2, source_port=2, counters=(2, 200, 0, 0), tcp_state="TIME_WAIT")


async def successor(first: ConnectionTable, tmp_path: Path, **settings: Any) -> ConnectionTable:
    await StateFile(tmp_path, "node/1", first).stop()
    second = table(**settings)
    await StateFile(tmp_path, "node/1", second).start()
    return second


async def predecessor(*connections: Connection) -> ConnectionTable:
    first = table()
    poll(first, T0, *connections)
    assert len(first.flush()) == len(connections)
    return first


async def test_a_restart_repeats_nothing(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE, TWO), tmp_path)
    poll(second, T0 + 5000, ONE, TWO)
    assert not len(second.due(T0 + 90_000))
    assert second.entries.dropped == {"reported-before": 2}
    assert StateFile(tmp_path, "node/1", second).path == tmp_path / "node%2F1.state"


async def test_nobody_else_reads_who_was_connected_to_whom(tmp_path: Path) -> None:
    first = await predecessor(ONE)
    await successor(first, tmp_path)
    assert StateFile(tmp_path, "node/1", first).path.stat().st_mode & 0o077 == 0


async def test_what_grew_meanwhile_is_reported(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE, TWO), tmp_path)
    poll(second, T0 + 5000, ONE.at(3, 350, 0, 0), TWO)
    assert reported(second.due(T0 + 90_000)) == [(1, 250, 350)]
    third = await successor(second, tmp_path)
    poll(third, T0 + 95_000, ONE.at(4, 360, 0, 0), TWO)
    assert reported(third.due(T0 + 190_000)) == [(1, 10, 360)]


async def test_the_end_is_reported_even_if_nothing_was_counted(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE), tmp_path)
    event(second, T0 + 9000, ended(ONE, 1, 100, 0, 0))
    batch = second.due(T0 + 9000)
    assert reported(batch) == [(3, 0, 100)]
    assert rows(batch, "flowStartMilliseconds", "flowEndMilliseconds") == [(T0, T0 + 9000)]


async def test_another_connection_with_the_same_key_is_reported_whole(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE), tmp_path)
    for passed_ms in (5000, 10_000, 15_000):  # the end of the one before may come as an event
        poll(second, T0 + passed_ms, ONE.at(5, 500, 0, 0, start_ns=1_004 * SECOND))
    assert reported(second.due(T0 + 90_000)) == [(1, 500, 500)]
    assert second.stats.ended_unobserved == 1


async def test_what_ended_meanwhile_and_the_kernel_still_lists(tmp_path: Path) -> None:
    """A connection that is closed stays in TIME_WAIT for two minutes: its last bytes are there."""
    second = await successor(await predecessor(ONE), tmp_path)
    poll(second, T0 + 60_000, ONE.at(4, 350, 2, 80, tcp_state="TIME_WAIT", timeout=75))
    batch = second.due(T0 + 60_000)
    assert reported(batch) == [(3, 250, 350)]
    (closed,) = rows(batch, "flowEndMilliseconds")[0]
    assert abs(closed - (T0 + 60_000 - 45_000)) <= 1000
    for at in (65_000, 70_000, 75_000):
        poll(second, T0 + at)
    assert second.stats.ended_unobserved == 0


async def test_counters_below_what_was_reported_are_anothers(tmp_path: Path) -> None:
    first = await predecessor(ONE.at(start_ns=0))
    second = await successor(first, tmp_path)
    event(second, T0 + 5000, ONE.at(0, 0, 0, 0, start_ns=0, event=NEW))
    poll(second, T0 + 5000, ONE.at(1, 60, 0, 0, start_ns=0))
    assert reported(second.due(T0 + 90_000)) == [(1, 60, 60)]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("ESTABLISHED", "ESTABLISHED", []),
        ("ESTABLISHED", "TIME_WAIT", [(T0, 3, "TIME_WAIT")]),
        ("TIME_WAIT", "TIME_WAIT", []),
        ("TIME_WAIT", "ESTABLISHED", [(T0 + 5000, 1, "ESTABLISHED")]),
    ],
)
async def test_what_neither_counters_nor_starts_tell_states_do(
    tmp_path: Path, before: str, after: str, told: list[tuple[int, int, str]]
) -> None:
    """Of Open vSwitch's connections nothing else is known."""
    one = Connection(start_ns=0, id=0, uncounted=1)
    second = await successor(await predecessor(one.at(tcp_state=before)), tmp_path)
    poll(second, T0 + 5000, one.at(tcp_state=after))
    names = ("flowStartMilliseconds", "flowEndReason", "tcpState")
    assert rows(second.due(T0 + 5000 + IDLE), *names) == told


async def test_what_the_kernel_lists_no_more_is_forgotten(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE, TWO), tmp_path)
    for at in (5000, 10_000, 15_000):
        poll(second, T0 + at, TWO)
    assert len(second.reported()) == 1


async def test_what_ended_while_no_exporter_ran_is_counted(tmp_path: Path) -> None:
    """Of ONE the last bytes are missing; of TWO the end was exported."""
    second = await successor(await predecessor(ONE), tmp_path)
    for at in (5000, 10_000, 15_000):
        poll(second, T0 + at)
    assert second.stats.ended_unobserved == 1
    first = table()
    poll(first, T0, TWO)
    assert reported(first.due(T0)) == [(3, 200, 200)]
    third = await successor(first, tmp_path)
    for at in (5000, 10_000, 15_000):
        poll(third, T0 + at)
    assert third.stats.ended_unobserved == 0


async def test_what_was_missed_is_counted_once_however_often_exporters_are_killed(
    tmp_path: Path,
) -> None:
    """ONE ended while none ran, another one has a key now, and of the last the end was seen."""
    again = ONE.at(id=3, source_port=3)
    last = ONE.at(id=4, source_port=4)
    second = await successor(await predecessor(ONE, again, last), tmp_path)
    for at in (5000, 10_000, 15_000):
        poll(second, T0 + at, again.at(start_ns=1_004 * SECOND), last)
    event(second, T0 + 16_000, ended(last, 1, 100, 0, 0))
    second.due(T0 + 16_000)
    assert second.stats.ended_unobserved == 2
    third = table()
    await StateFile(tmp_path, "node/1", third).start()
    for at in (20_000, 25_000, 30_000):
        poll(third, T0 + at, again.at(start_ns=1_004 * SECOND))
    assert third.stats.ended_unobserved == 0


async def test_what_is_not_wanted_any_more_is_not_missed(tmp_path: Path) -> None:
    udp = Connection(id=7, protocol=17, tcp_state=None, counters=(1, 100, 0, 0))
    second = await successor(await predecessor(ONE, udp), tmp_path, scope=Scope(("tcp",)))
    for at in (5000, 10_000, 15_000):
        poll(second, T0 + at, udp)
    assert second.stats.ended_unobserved == 1


async def test_what_was_of_another_zone_is_not_missed(tmp_path: Path) -> None:
    """The predecessor was there before Antrea's gateway."""
    inner = ONE.at(id=5, zone=65520)
    second = await successor(
        await predecessor(ONE, inner), tmp_path, default_zone=DefaultZone(capacity=8)
    )
    for at in (5000, 10_000, 15_000):
        poll(second, T0 + at, ONE)
    assert second.stats.ended_unobserved == 1


async def test_of_what_is_not_counted_nothing_is_missing(tmp_path: Path) -> None:
    uncounted = Connection(uncounted=1)
    second = await successor(await predecessor(ONE.at(id=2), uncounted), tmp_path)
    for at in (5000, 10_000, 15_000):
        poll(second, T0 + at)
    assert second.stats.ended_unobserved == 1


async def test_without_a_predecessor(tmp_path: Path) -> None:
    first = table()
    await StateFile(tmp_path, "node", first).start()
    assert len(first.reported()) == 0


class Node:
    """Exporters of one node, one after the other, each of which is killed."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._directory, self._settings = directory, settings
        self.octets = 0

    async def restart(self) -> ConnectionTable:
        self.table = table(**self._settings)
        self.state = StateFile(self._directory, "node", self.table)
        await self.state.start()
        return self.table

    def due(self, now_ms: int) -> Batch:
        """What is sent before the exporter is killed."""
        batch = self.table.due(now_ms)
        self.octets += int(batch["octetDeltaCount"].sum())
        return batch


async def test_what_a_killed_exporter_has_exported_is_not_exported_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.restart()
    open_ = Connection(counters=(10, 1000, 0, 0))
    idle = Connection(id=2, source_port=2, counters=(5, 500, 0, 0))
    over = Connection(id=3, source_port=3, counters=(3, 300, 3, 300), tcp_state="TIME_WAIT")
    for second in range(0, 61, 5):
        grown = open_.at(10 + second, 1000 + 100 * second, 0, 0)
        poll(node.table, T0 + 1000 * second, grown, idle, over)
        node.due(T0 + 1000 * second)
    assert node.octets == 7000 + 500 + 300
    second_exporter = await node.restart()
    now = T0 + 170_000
    poll(second_exporter, now, open_.at(300, 30_000, 0, 0), idle, over)
    assert rows(node.due(now + IDLE), "octetDeltaCount", "flowStartMilliseconds") == [(23_000, T0)]
    event(second_exporter, now + IDLE, ended(over, 3, 300, 3, 300))
    event(second_exporter, now + IDLE, ended(idle, 5, 500, 0, 0))
    assert reported(node.due(now + IDLE)) == [(3, 0, 500)]  # its end nobody has reported
    assert node.octets == 30_000 + 500 + 300


async def test_a_killed_exporters_start_is_kept_where_the_kernel_has_none(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.restart()
    old = Connection(start_ns=0)
    poll(node.table, T0 + 500_000, old.at(10, 10_000, 0, 0))
    assert len(node.due(T0 + 500_000)) == 1
    await node.restart()
    poll(node.table, T0 + 700_000, old.at(12, 12_000, 0, 0))
    names = ("flowStartMilliseconds", "octetDeltaCount", "octetTotalCount")
    assert rows(node.due(T0 + 760_000), *names) == [(T0 + 500_000, 2000, 12_000)]


def arrive(flows: FlowTable, batch: Batch, now: int) -> None:
    """Let the aggregator have records of this node."""
    if len(batch):
        batch = batch.on(flows.strings, TEXT_FIELDS)
        domain = np.full(len(batch), 7, dtype=np.uint32)
        flows.add(Batch({**batch.columns, DOMAIN: domain}, batch.strings), now)


@pytest.mark.parametrize("away_s", [20, 110, 400])
@pytest.mark.parametrize("unsent", [False, True])
async def test_the_aggregator_has_each_byte_once_over_a_kill(
    tmp_path: Path, away_s: int, unsent: bool
) -> None:
    """After 110 s it has forgotten the flow; what was made and not sent is then missing.

    After 20 s the first record of the next exporter makes it good.
    """
    node, flows = Node(tmp_path), FlowTable()
    await node.restart()
    now, second, missing = 0, 0, 0
    written = 0
    killed = 130
    while second < killed + away_s + 130:
        second += 5
        now = T0 + 1000 * second
        if not killed <= second < killed + away_s:
            if second == killed + away_s:
                await node.restart()
            poll(node.table, now, Connection(counters=(second, 100 * second, 0, 0)))
            batch = node.due(now)
            if unsent and second == 125 and len(batch):
                missing = int(batch["octetDeltaCount"].sum())
            else:
                arrive(flows, batch, now)
        written += int(flows.due(now)["octetDeltaCount"].sum())
    arrive(flows, node.table.flush(), now)
    written += int(flows.flush(now)["octetDeltaCount"].sum())
    assert (missing > 0) is unsent
    assert written == 100 * second - (missing if away_s > 90 else 0)


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_byte_is_exported_twice_whenever_exporters_are_killed(
    steps: list[tuple[str, int]],
) -> None:
    """With four connections that take turns in a table that has room for two."""

    async def play(directory: Path) -> None:
        node = Node(directory, max_connections=2, active_timeout_ms=5000, idle_timeout_ms=4000)
        await node.restart()
        now, octets, live = T0, 0, {}
        counts = [0] * 4
        begun = [0] * 4
        for step, which in steps:
            now += 4000
            if step == "grow":
                if which not in live:
                    counts[which], begun[which] = 0, begun[which] + 1
                counts[which] += 1
                octets += 100
                live[which] = Connection(
                    id=which, start_ns=(1000 + begun[which]) * SECOND, source_port=which + 1
                )
            listed = [one.at(counts[at], 100 * counts[at], 0, 0) for at, one in live.items()]
            if step == "poll":
                node.table.poll(entries(*listed), now)
                node.table.sweep()
            elif step == "end" and which in live:
                event(
                    node.table,
                    now,
                    ended(live.pop(which), counts[which], 100 * counts[which], 0, 0),
                )
            elif step == "kill":
                await node.restart()
            node.due(now)
            assert node.octets <= octets
        if not any(step in {"kill", "end"} for step, _ in steps):
            event(
                node.table,
                now,
                *(ended(one, counts[at], 100 * counts[at], 0, 0) for at, one in live.items()),
            )
            node.due(now)
            assert node.octets == octets

    with TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory)))


def test_a_kill_in_the_middle_of_a_write_costs_that_row_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "one.state", like=table().reported())
    journal.rewrite(exported(3))
    journal.append(exported(5))
    journal.close()
    content = journal.path.read_bytes()
    for cut in (1, 70, 140):
        journal.path.write_bytes(content[:-cut])
        reported = journal.read()
        assert reported is not None
        assert sorted(reported.exported[:, 0].tolist()) == [0, 1, 2, 3]


def test_the_last_row_of_a_connection_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "one.state", like=table().reported())
    first = exported(4)
    journal.rewrite(first)
    journal.append(replace(first, exported=first.exported + 7))
    gone = replace(first, reasons=np.zeros(4, dtype=np.uint8))
    journal.append(
        replace(
            gone,
            keys=gone.keys[:1],
            **{
                name: getattr(gone, name)[:1]
                for name in ("starts", "began", "ends", "exported", "reasons", "completed")
            },
        )
    )
    reported = journal.read()
    assert reported is not None
    assert sorted(reported.exported[:, 0].tolist()) == [8, 9, 10]


def test_the_file_stays_as_long_as_what_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SPARE_ROWS", 8)
    node = Node(tmp_path)
    asyncio.run(node.restart())
    for second in range(0, 6000, 60):
        poll(
            node.table,
            T0 + 1000 * second,
            *(
                Connection(id=at, source_port=at + 1, counters=(second + 1, second + 1, 0, 0))
                for at in range(5)
            ),
        )
        node.due(T0 + 1000 * second + IDLE)
    assert node.state.journal.stats.rewrites > 5
    assert node.state.journal.stats.rows <= 2 * 5 + 8 + 5
    assert node.octets == 5 * 5941
    reported = node.state.journal.read()
    assert reported is not None
    assert reported.exported[:, 1].tolist() == [5941] * 5


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4", b"nonsense\n", b"flowvis state other-boot []\n" + bytes(141), b"x" * 100_000],
)
async def test_a_bad_file_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = StateFile(tmp_path, "node", table()).path
    path.write_bytes(content)
    state = StateFile(tmp_path, "node", table())
    await state.start()
    assert "not used, so flows may be exported again: it is of another version" in caplog.text
    reported = state.journal.read()
    assert reported is not None
    assert not len(reported)


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SPARE_ROWS", 0)
    like = table().reported()
    Journal(tmp_path / "file", like, max_connections=2).rewrite(exported(20))
    assert Journal(tmp_path / "file", like, max_connections=2).read() is not None
    with pytest.raises(ValueError, match="more than 10 rows"):
        Journal(tmp_path / "file", like, max_connections=1).read()


async def test_what_was_open_when_the_machine_was_started_anew_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The directory was kept. Of ONE and the last what they did after their records is nowhere; the
    end of TWO was reported. Whoever has their keys now is another."""
    first = await predecessor(ONE, TWO, ONE.at(id=3, source_port=3))
    await StateFile(tmp_path, "node/1", first).stop()
    boot = tmp_path / "boot"
    boot.write_text("the-next-one\n")
    monkeypatch.setattr(state_module, "Journal", partial(Journal, boot=boot))
    second = table()
    await StateFile(tmp_path, "node/1", second).start()
    assert second.stats.ended_unobserved == 2
    assert "may be exported again" not in caplog.text
    poll(second, T0 + 5000, ONE)
    assert reported(second.due(T0 + 90_000)) == [(1, 100, 100)]
    third = table()
    await StateFile(tmp_path, "node/1", third).start()
    assert third.stats.ended_unobserved == 0


async def test_denied_connections_of_another_boot_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = DeniedTable(PlainHost(), Scope())
    state = StateFile(tmp_path, "node", denied, "denied")
    state.journal.rewrite(exported(3, denied.reported()))
    boot = tmp_path / "boot"
    boot.write_text("the-next-one\n")
    monkeypatch.setattr(state_module, "Journal", partial(Journal, boot=boot))
    after = DeniedTable(PlainHost(), Scope())
    await StateFile(tmp_path, "node", after, "denied").start()
    assert not len(after.reported())


async def test_the_state_of_another_boot_is_not_gone_on_from(tmp_path: Path) -> None:
    boots = [tmp_path / "one", tmp_path / "two"]
    for boot in boots:
        boot.write_text(f"{boot.name}\n")
    path = tmp_path / "node.state"
    Journal(path, table().reported(), boots[0]).rewrite(exported(3))
    reported = Journal(path, table().reported(), boots[0]).read()
    assert reported is not None
    assert len(reported) == 3
    with pytest.raises(OfAnotherBoot) as raised:
        Journal(path, table().reported(), boots[1]).read()
    assert raised.value.reported.exported[:, 0].tolist() == [0, 1, 2]


async def test_where_nothing_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    state = StateFile(tmp_path / "file", "node", connections := table())
    await state.start()
    poll(connections, T0, ONE)
    assert len(connections.due(T0 + IDLE)) == 1
    await state.stop()
    assert caplog.text.count("not written") == 1
    assert state.journal.stats.failures == 2


async def test_a_full_disk_is_reported_once_and_left_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SPARE_ROWS", 4)
    node = Node(tmp_path)
    await node.restart()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = node.state.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))  # less than a row
    try:
        for second in range(0, 600, 60):
            poll(node.table, T0 + 1000 * second, ONE.at(second + 1, second + 1, 0, 0))
            node.due(T0 + 1000 * second + IDLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.text.count("not written") == 1
    for second in range(600, 1200, 60):
        poll(node.table, T0 + 1000 * second, ONE.at(second + 1, second + 1, 0, 0))
        node.due(T0 + 1000 * second + IDLE)
    reported = node.state.journal.read()
    assert reported is not None
    assert reported.exported[:, 1].tolist() == [1141]


def left(path: Path) -> list[Path]:
    return list(path.iterdir())


async def test_what_a_full_disk_kept_from_the_file_is_in_it_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "AGAIN_S", 0.0)
    node = Node(tmp_path)
    await node.restart()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = node.state.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))  # less than a row
    try:
        for second in range(0, 300, 60):
            poll(node.table, T0 + 1000 * second, ONE.at(second + 1, second + 1, 0, 0))
            node.due(T0 + 1000 * second + IDLE)
        assert left(tmp_path) == [node.state.path]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert node.state.journal.stats.rewrites == 1
    poll(node.table, T0 + 300_000, ONE.at(301, 301, 0, 0))
    node.due(T0 + 300_000 + IDLE)
    reported = node.state.journal.read()
    assert reported is not None
    assert reported.exported[:, 1].tolist() == [301]


async def test_a_predecessor_that_lives_on_does_not_write_over_its_successor(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    first, first_state = await node.restart(), node.state
    second = await node.restart()
    poll(second, T0, ONE)
    assert len(second.due(T0 + IDLE)) == 1
    assert not len(first)
    await first_state.stop()
    reported = node.state.journal.read()
    assert reported is not None
    assert len(reported) == 1


async def test_two_exporters_of_one_node_do_not_fight_over_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SPARE_ROWS", 4)
    first, second = Node(tmp_path), Node(tmp_path)
    await first.restart()
    await second.restart()
    for node in (first, second):
        for second_ in range(0, 1200, 60):
            poll(node.table, T0 + 1000 * second_, ONE.at(second_ + 1, second_ + 1, 0, 0))
            node.due(T0 + 1000 * second_ + IDLE)
    assert caplog.text.count("another exporter has taken it over") == 1
    assert (first.state.journal.stats.rewrites, second.state.journal.stats.rewrites > 2) == (
        1,
        True,
    )
    reported = second.state.journal.read()
    assert reported is not None
    assert reported.exported[:, 1].tolist() == [1141]


def exported(count: int, like: Reported | None = None) -> Reported:
    """Rows of so many connections; each has exported its number."""
    like = table().reported() if like is None else like
    keys = np.zeros((count, like.keys.shape[1]), dtype=np.uint8)
    keys[:, 0] = np.arange(count)
    numbers = np.arange(count, dtype=np.uint64)
    return Reported(
        keys,
        numbers,
        numbers,
        numbers,
        np.repeat(numbers[:, None], like.exported.shape[1], axis=1),
        np.ones(count, dtype=np.uint8),
        np.zeros(count, dtype=bool),
    )
