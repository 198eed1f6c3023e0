from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from exporter.kernel_entries import SECOND, Connection, entries
from flowvis.batch import Batch, address_text
from flowvis.conntrack.entries import DESTROY, DUMP, NEW, UPDATE
from flowvis.conntrack.names import ConntrackStatus
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import EXPORTED

T0 = 1_000_000  # ms: when the connections begin

ACTIVE, IDLE = 60_000, 15_000


def table(**settings: Any) -> ConnectionTable:
    scope = settings.pop("scope", Scope())
    return ConnectionTable(PlainHost(), scope, **settings)


def poll(table: ConnectionTable, now_ms: int, *connections: Connection, sweep: bool = True) -> None:
    table.poll(entries(*connections), now_ms)
    if sweep:
        table.sweep()
    balanced(table)


def event(table: ConnectionTable, now_ms: int, *connections: Connection) -> None:
    table.event(entries(*connections), now_ms)
    balanced(table)


def balanced(table: ConnectionTable) -> None:
    for stage in (table.entries, table.connections):
        assert (stage.imbalance, stage.missing) == (0, 0), stage.as_dict()


def rows(batch: Batch, *names: str) -> list[tuple[Any, ...]]:
    columns = []
    for name in names:
        column = batch[name]
        if name.endswith("IP"):
            columns.append([address_text(bytes(row)) for row in column])
        elif name == "tcpState":
            columns.append(batch.texts(name))
        else:
            columns.append(column.tolist())
    return list(zip(*columns, strict=True))


def reported(batch: Batch) -> list[tuple[int, int, int]]:
    return rows(batch, "flowEndReason", "octetDeltaCount", "octetTotalCount")


def ended(connection: Connection, *counters: int, at_s: int = 1_009, **more: Any) -> Connection:
    return connection.at(*counters, event=DESTROY, stop_ns=at_s * SECOND, status=512, **more)


def test_batches_have_the_exporters_template() -> None:
    connections = table()
    poll(connections, T0 + 1000, Connection(counters=(3, 300, 2, 200)))
    batch = connections.due(T0 + 1000 + IDLE)
    assert list(batch.columns) == [field.name for field in EXPORTED]
    for field in EXPORTED:
        assert batch[field.name].dtype == field.kind.dtype, field.name
        assert batch[field.name].shape == (1, *field.kind.shape)
    assert list(connections.due(T0 + 1000 + IDLE).columns) == list(batch.columns)


def test_a_record_says_what_the_kernel_said() -> None:
    connections = table()
    poll(connections, T0 + 2500, Connection(counters=(3, 300, 2, 200)))
    (row,) = rows(
        connections.due(T0 + 2500 + IDLE),
        *("sourceIP", "sourceTransportPort", "destinationIP", "destinationTransportPort"),
        *("protocolIdentifier", "packetTotalCount", "octetTotalCount"),
        *("reversePacketTotalCount", "reverseOctetTotalCount", "packetDeltaCount"),
        *("reversePacketDeltaCount", "reverseOctetDeltaCount", "tcpState", "flowType"),
        *("flowStartSeconds", "flowStartMilliseconds", "flowEndSeconds", "flowEndMilliseconds"),
        *("proxySnatIP", "proxySnatPort", "destinationServiceIP", "destinationServicePort"),
    )
    assert row == (
        *("10.0.1.10", 40000, "10.0.2.20", 80),
        *(6, 3, 300),
        *(2, 200, 3),
        *(2, 200, "ESTABLISHED", 0),
        *(1000, T0, 1002, T0 + 2500),
        *("", 0, "", 0),
    )


def test_normal_form_looks_through_translation() -> None:
    connections = table()
    translated = Connection(
        destination="10.96.0.1", real="10.0.2.20", real_port=8080, snat="192.0.2.1", snat_port=6000
    )
    poll(connections, T0, translated.at(1, 100, 0, 0))
    (row,) = rows(
        connections.due(T0 + IDLE),
        *("sourceIP", "sourceTransportPort", "destinationIP", "destinationTransportPort"),
        *("proxySnatIP", "proxySnatPort"),
    )
    assert row == ("10.0.1.10", 40000, "10.0.2.20", 8080, "192.0.2.1", 6000)


def test_snat_of_the_port_alone_is_reported() -> None:
    connections = table()
    poll(connections, T0, Connection(snat_port=6000, counters=(1, 100, 0, 0)))
    batch = connections.due(T0 + IDLE)
    assert rows(batch, "proxySnatIP", "proxySnatPort") == [("10.0.1.10", 6000)]


def test_active_connections_are_reported_once_per_active_timeout() -> None:
    connections = table()
    one = Connection()
    for second in range(0, 130, 5):
        poll(connections, T0 + second * 1000, one.at(second + 1, 10 * second + 10, 0, 0))
        batch = connections.due(T0 + second * 1000)
        expected = {60: [(2, 610, 610)], 120: [(2, 600, 1210)]}.get(second, [])
        assert reported(batch) == expected
    assert connections.next_deadline() == T0 + 125_000 + IDLE


def test_idle_is_reported_once_and_then_silence_until_growth() -> None:
    connections = table()
    one = Connection(counters=(1, 100, 0, 0))
    for second in (0, 5, 10):
        poll(connections, T0 + second * 1000, one)
        assert not len(connections.due(T0 + second * 1000))
    assert reported(connections.due(T0 + IDLE)) == [(1, 100, 100)]
    assert connections.next_deadline() is None
    for second in (20, 40, 300):
        poll(connections, T0 + second * 1000, one)
        assert not len(connections.due(T0 + second * 1000))
    poll(connections, T0 + 305_000, one.at(2, 150, 0, 0))
    assert not len(connections.due(T0 + 305_000))
    assert reported(connections.due(T0 + 305_000 + IDLE)) == [(1, 50, 150)]


def test_an_active_connection_without_news_is_not_reported() -> None:
    connections = table(active_timeout_ms=5_000)
    one = Connection(counters=(1, 100, 0, 0))
    poll(connections, T0, one)
    assert reported(connections.due(T0 + 5_000)) == [(2, 100, 100)]
    poll(connections, T0 + 5_000, one)
    assert reported(connections.due(T0 + 10_000)) == []
    assert reported(connections.due(T0 + IDLE)) == [(1, 0, 100)]


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE"])
def test_a_closed_connection_has_ended_though_the_kernel_still_lists_it(state: str) -> None:
    connections = table()
    one = Connection(counters=(5, 500, 5, 500))
    poll(connections, T0, one)
    closed = one.at(9, 900, 9, 900, tcp_state=state)
    poll(connections, T0 + 5000, closed)
    batch = connections.due(T0 + 5000)
    assert reported(batch) == [(3, 900, 900)]
    assert batch.texts("tcpState") == [state]
    poll(connections, T0 + 10_000, closed)
    event(connections, T0 + 120_000, ended(closed))
    assert not len(connections.due(T0 + 200_000))
    assert len(connections) == 0


def test_what_a_closed_connection_still_counts_is_reported() -> None:
    connections = table()
    one = Connection(tcp_state="CLOSE", counters=(9, 900, 9, 900))
    poll(connections, T0, one)
    assert reported(connections.due(T0)) == [(3, 900, 900)]
    event(connections, T0 + 9000, ended(one, 10, 940, 9, 900))
    assert reported(connections.due(T0 + 9000)) == [(3, 40, 940)]


def test_the_end_brings_the_last_counters_and_the_time() -> None:
    connections = table()
    one = Connection(counters=(5, 500, 5, 500), protocol=17, tcp_state=None)
    poll(connections, T0, one)
    event(connections, T0 + 9_400, ended(one, 7, 700, 6, 600))
    assert connections.next_deadline() == 0
    batch = connections.due(T0 + 9_400)
    assert reported(batch) == [(3, 700, 700)]
    assert rows(batch, "flowEndMilliseconds", "tcpState") == [(T0 + 9_000, "")]
    assert len(connections) == 0
    assert connections.next_deadline() is None


def test_the_end_never_comes_before_what_was_reported() -> None:
    connections = table(active_timeout_ms=5000)
    one = Connection(counters=(5, 500, 5, 500))
    poll(connections, T0 + 9_500, one)
    assert len(connections.due(T0 + 14_500)) == 1
    event(connections, T0 + 14_600, ended(one, 7, 700, 6, 600, at_s=1_009))
    assert rows(connections.due(T0 + 14_600), "flowEndMilliseconds") == [(T0 + 9_500,)]


def test_a_connection_shorter_than_the_poll_interval_is_observed() -> None:
    connections = table()
    one = Connection()
    event(connections, T0 + 50, one.at(event=NEW, start_ns=0))
    event(connections, T0 + 150, ended(one, 4, 400, 3, 300))
    batch = connections.due(T0 + 150)
    assert reported(batch) == [(3, 400, 400)]
    assert rows(batch, "flowStartMilliseconds") == [(T0,)]


def test_an_end_without_a_beginning_is_a_connection() -> None:
    connections = table()
    event(connections, T0 + 150, ended(Connection(), 4, 400, 3, 300))
    assert reported(connections.due(T0 + 150)) == [(3, 400, 400)]
    assert connections.connections.sent == 1


def test_begin_and_end_in_one_batch_of_events() -> None:
    connections = table()
    one, two = Connection(id=1), Connection(id=2, start_ns=1_002 * SECOND)
    event(
        connections,
        T0 + 5000,
        one.at(event=NEW, start_ns=0),
        ended(one, 4, 400, 3, 300),
        two.at(event=NEW, start_ns=0),
        two.at(event=UPDATE),
    )
    assert reported(connections.due(T0 + 5000)) == [(3, 400, 400)]
    assert len(connections) == 1
    assert connections.entries.dropped == {"other-event": 1}


def test_the_same_key_ended_twice_in_one_batch_is_two_connections() -> None:
    connections = table()
    first = ended(Connection(), 4, 400, 3, 300, at_s=1_001)
    second = ended(Connection(start_ns=1_002 * SECOND), 1, 50, 0, 0, at_s=1_003)
    event(connections, T0 + 5000, first, second)
    batch = connections.due(T0 + 5000)
    assert rows(batch, "flowStartMilliseconds", "octetDeltaCount") == [
        (T0, 400),
        (T0 + 2000, 50),
    ]


def test_a_reused_tuple_is_a_new_connection() -> None:
    connections = table()
    old = Connection(tcp_state="TIME_WAIT", counters=(5, 500, 5, 500))
    new = Connection(id=2, start_ns=1_010 * SECOND, counters=(1, 60, 0, 0))
    poll(connections, T0, old)
    assert reported(connections.due(T0)) == [(3, 500, 500)]
    event(connections, T0 + 10_000, ended(old), new.at(0, 0, 0, 0, event=NEW, start_ns=0))
    poll(connections, T0 + 10_500, new)
    batch = connections.due(T0 + 60_000)
    assert reported(batch) == [(1, 60, 60)]
    assert rows(batch, "flowStartMilliseconds") == [(T0 + 10_000,)]


def test_the_same_key_with_another_start_is_a_new_connection() -> None:
    connections = table(events=False)
    poll(connections, T0, Connection(counters=(5, 500, 5, 500)))
    poll(connections, T0 + 5000, Connection(counters=(2, 80, 0, 0), start_ns=1_004 * SECOND))
    assert reported(connections.due(T0 + 5000)) == [(3, 500, 500)]
    assert connections.stats.vanished == 1
    assert reported(connections.due(T0 + 90_000)) == [(1, 80, 80)]


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE"])
def test_without_starts_one_that_is_open_after_the_end_is_another(state: str) -> None:
    """As Open vSwitch lists them, which keeps no number of them either."""
    connections = table(events=False)
    one = Connection(start_ns=0, id=0, uncounted=1)
    names = ("flowStartMilliseconds", "tcpState", "flowEndReason")
    found = []
    for second in range(0, 40, 5):
        known = ("ESTABLISHED", state, "SYN_SENT", "ESTABLISHED", state)[min(second // 5, 4)]
        poll(connections, T0 + 1000 * second, one.at(tcp_state=known))
        found += rows(connections.due(T0 + 1000 * second), *names)
    assert found == [(T0, state, 3), (T0 + 10_000, state, 3)]


def test_with_events_a_connection_waits_for_the_end_of_the_one_whose_key_it_has() -> None:
    connections = table()
    old = Connection(counters=(5, 500, 5, 500))
    new = Connection(counters=(1, 60, 0, 0), start_ns=1_004 * SECOND)
    poll(connections, T0, old)
    poll(connections, T0 + 5000, new, sweep=False)
    assert connections.entries.dropped == {"dying": 1}
    event(
        connections,
        T0 + 5000,
        ended(old, 8, 800, 5, 500, at_s=1_003),
        new.at(0, 0, 0, 0, event=NEW, start_ns=0),
    )
    connections.sweep()
    poll(connections, T0 + 10_000, new)
    assert reported(connections.due(T0 + 90_000)) == [(3, 800, 800), (1, 60, 60)]
    assert connections.stats.vanished == 0


def test_a_connection_whose_key_another_one_has_for_two_polls_has_lost_its_end() -> None:
    connections = table()
    new = Connection(counters=(2, 80, 0, 0), start_ns=1_004 * SECOND)
    poll(connections, T0, Connection(counters=(5, 500, 5, 500)))
    poll(connections, T0 + 5000, new)
    poll(connections, T0 + 10_000, new)
    assert connections.stats.vanished == 1
    assert reported(connections.due(T0 + 90_000)) == [(3, 500, 500), (1, 80, 80)]


def test_events_from_before_the_first_poll_end_nothing_that_it_showed() -> None:
    connections = table()
    old, new = Connection(), Connection(counters=(1, 60, 0, 0), start_ns=1_004 * SECOND)
    poll(connections, T0 + 5000, new, sweep=False)
    event(
        connections,
        T0 + 5000,
        old.at(event=NEW, start_ns=0),
        ended(old, 8, 800, 5, 500, at_s=1_003),
        new.at(0, 0, 0, 0, event=NEW, start_ns=0),
    )
    connections.sweep()
    poll(connections, T0 + 10_000, new)
    assert reported(connections.due(T0 + 90_000)) == [(3, 800, 800), (1, 60, 60)]
    assert connections.stats.vanished == 0


def test_the_end_of_an_evicted_connection_is_not_that_of_the_next_one_of_its_key() -> None:
    connections = table(max_connections=1)
    old, other = Connection(counters=(5, 500, 5, 500)), Connection(id=2, source_port=1)
    new = Connection(start_ns=1_004 * SECOND)
    poll(connections, T0, old)
    poll(connections, T0 + 1000, old)
    event(connections, T0 + 2000, other.at(event=NEW, start_ns=0))
    assert reported(connections.due(T0 + 2000)) == [(5, 500, 500)]
    event(
        connections,
        T0 + 5000,
        ended(other, 1, 70, 0, 0),
        ended(old, 5, 500, 5, 500, at_s=1_003),
        new.at(event=NEW, start_ns=0),
        ended(new, 1, 60, 0, 0),
    )
    assert sorted(reported(connections.due(T0 + 5000))) == [(3, 0, 500), (3, 60, 60), (3, 70, 70)]


def test_what_the_kernel_lists_no_more_has_ended() -> None:
    connections = table(events=False)
    poll(connections, T0, Connection(counters=(5, 500, 5, 500)))
    poll(connections, T0 + 5000)
    assert reported(connections.due(T0 + 5000)) == [(3, 500, 500)]
    assert connections.stats.vanished == 1


def test_with_events_a_missing_connection_gets_one_more_poll() -> None:
    connections = table()
    one = Connection(counters=(5, 500, 5, 500))
    poll(connections, T0, one)
    poll(connections, T0 + 5000)
    assert len(connections) == 1
    event(connections, T0 + 5000, ended(one, 6, 600, 5, 500))
    assert reported(connections.due(T0 + 5000)) == [(3, 600, 600)]
    assert connections.stats.vanished == 0


def test_a_lost_end_is_noticed_by_the_second_poll() -> None:
    connections = table()
    poll(connections, T0, Connection(counters=(5, 500, 5, 500)))
    poll(connections, T0 + 5000)
    poll(connections, T0 + 10_000)
    assert reported(connections.due(T0 + 10_000)) == [(3, 500, 500)]
    assert connections.stats.vanished == 1


@pytest.mark.parametrize(("state", "uncounted"), [("TIME_WAIT", 0), ("ESTABLISHED", 1)])
def test_nothing_is_missing_of_what_was_over_or_is_not_counted(state: str, uncounted: int) -> None:
    """Open vSwitch reports no ends, and counts nothing: each connection was said to be missed."""
    connections = table(events=False)
    one = Connection(tcp_state=state, uncounted=uncounted)
    poll(connections, T0, one if uncounted else one.at(5, 500, 5, 500))
    poll(connections, T0 + 5000)
    assert rows(connections.due(T0 + 5000), "flowEndReason") == [(3,)]
    assert connections.stats.vanished == 0


def test_a_dying_connection_waits_for_its_end() -> None:
    connections = table()
    dying = Connection(counters=(5, 500, 5, 500), status=ConntrackStatus.DYING)
    poll(connections, T0, dying)
    assert len(connections) == 0
    assert connections.entries.dropped == {"dying": 1}
    without = table(events=False)
    poll(without, T0, dying)
    assert len(without) == 1


def test_counters_that_begin_anew_lose_and_repeat_nothing() -> None:
    connections = table(active_timeout_ms=5000)
    one = Connection()
    poll(connections, T0, one.at(10, 1000, 0, 0))
    assert reported(connections.due(T0 + 5000)) == [(2, 1000, 1000)]
    poll(connections, T0 + 5000, one.at(15, 1500, 0, 0))
    poll(connections, T0 + 9000, one.at(2, 200, 0, 0))
    assert reported(connections.due(T0 + 10_000)) == [(2, 700, 200)]
    poll(connections, T0 + 14_000, one.at(3, 300, 0, 0))
    assert reported(connections.due(T0 + 20_000)) == [(2, 100, 300)]


def test_while_the_collector_is_away_the_living_only_catch_up() -> None:
    connections = table()
    poll(connections, T0, Connection(counters=(1, 100, 0, 0)))
    for minute in range(1, 4):
        poll(connections, T0 + minute * 60_000, Connection(counters=(1, 100 + minute, 0, 0)))
        assert not len(connections.due(T0 + minute * 60_000, live=0))
    short = Connection(id=9, source_port=9)
    event(connections, T0 + 180_000, ended(short, 1, 50, 0, 0))
    assert reported(connections.due(T0 + 180_000, live=0)) == [(3, 50, 50)]
    assert reported(connections.due(T0 + 180_000)) == [(2, 103, 103)]


def test_flush_tells_what_is_not_reported() -> None:
    connections = table(active_timeout_ms=5000)
    poll(connections, T0, Connection(counters=(1, 100, 0, 0)), Connection(id=2, source_port=2))
    assert len(connections.due(T0 + 5000)) == 1
    poll(connections, T0 + 6000, Connection(counters=(1, 150, 0, 0)))
    event(connections, T0 + 6000, ended(Connection(id=3, source_port=3), 1, 10, 0, 0))
    assert sorted(reported(connections.flush())) == [(3, 10, 10), (4, 0, 0), (4, 50, 150)]
    assert not len(connections.flush())


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE"])
def test_what_is_over_at_a_stop_has_ended(state: str) -> None:
    """The kernel lists it for a while; what took so long to ask for the record does not matter."""
    connections = table()
    one = Connection(counters=(1, 100, 0, 0))
    poll(connections, T0, one)
    assert len(connections.due(T0 + 60_000)) == 1
    over = replace(one, tcp_state=state)
    poll(connections, T0 + 61_000, over.at(3, 300, 2, 200), Connection(id=2, source_port=2))
    assert sorted(reported(connections.flush())) == [(3, 200, 300), (4, 0, 0)]
    assert not len(connections.flush())


def test_what_has_only_begun_is_left_to_the_next_exporter() -> None:
    connections = table()
    event(connections, T0 + 300, Connection(event=NEW, start_ns=0))
    assert not len(connections.flush())
    assert len(connections) == 1


def test_a_start_that_the_kernel_tells_later_is_taken_until_a_record_is_made() -> None:
    connections = table(active_timeout_ms=5000)
    one = Connection(counters=(1, 100, 0, 0))
    event(connections, T0 + 300, one.at(0, 0, 0, 0, event=NEW, start_ns=0))
    assert rows(connections.due(T0 + 5300), "flowStartMilliseconds") == []
    poll(connections, T0 + 5400, one)
    batch = connections.due(T0 + 10_400)
    assert rows(batch, "flowStartMilliseconds") == [(T0,)]


def test_out_of_scope() -> None:
    connections = table(scope=Scope(("tcp",)))
    udp = Connection(protocol=17, tcp_state=None)
    poll(connections, T0, udp, Connection())
    event(connections, T0, ended(udp))
    assert len(connections) == 1
    assert connections.entries.dropped == {"out-of-scope": 2}


def full(size: int) -> tuple[ConnectionTable, list[Connection]]:
    connections = table(max_connections=size)
    several = [Connection(id=i, source_port=1000 + i) for i in range(size)]
    for at in range(size):
        poll(connections, T0 + at, *(c.at(1, 100, 0, 0) for c in several[: at + 1]))
        assert len(connections) == at + 1
    return connections, [c.at(1, 100, 0, 0) for c in several]


def test_a_full_table_evicts_what_is_idle_longest() -> None:
    connections, several = full(3)
    newcomer = Connection(id=99, source_port=99, counters=(1, 70, 0, 0))
    poll(connections, T0 + 5000, *several, newcomer)
    assert len(connections) == 3
    batch = connections.due(T0 + 5000)
    assert rows(batch, "flowEndReason", "sourceTransportPort", "octetDeltaCount") == [
        (5, 1000, 100)
    ]
    assert connections.stats.evicted == 1


def test_an_evicted_connection_is_not_reported_again() -> None:
    connections, several = full(3)
    newcomer = Connection(id=99, source_port=99, counters=(1, 70, 0, 0))
    poll(connections, T0 + 5000, *several, newcomer)
    connections.due(T0 + 5000)
    poll(connections, T0 + 10_000, *several, newcomer)
    assert not len(connections.due(T0 + 10_000))
    assert connections.entries.dropped == {"reported-before": 1}
    poll(connections, T0 + 15_000, several[0].at(3, 130, 0, 0), *several[1:], newcomer)
    batch = connections.flush()
    deltas = rows(batch, "sourceTransportPort", "octetDeltaCount")
    assert (1000, 30) in deltas
    assert sum(delta for _, delta in deltas) == 30 + 100 + 100 + 70


def test_a_full_table_of_busy_connections_refuses() -> None:
    connections, several = full(2)
    busy = [c.at(2, 200, 0, 0) for c in several]
    poll(connections, T0 + 5000, *busy, Connection(id=99, counters=(1, 70, 0, 0)))
    assert connections.entries.dropped == {"table-full": 1}
    assert connections.stats.evicted == 0
    event(connections, T0 + 6000, ended(Connection(id=99), 2, 90, 0, 0))
    assert reported(connections.due(T0 + 6000)) == [(3, 90, 90)]


def test_the_end_of_an_evicted_connection() -> None:
    connections, several = full(2)
    poll(connections, T0 + 5000, *several, Connection(id=99, counters=(1, 70, 0, 0)))
    assert reported(connections.due(T0 + 5000)) == [(5, 100, 100)]
    event(connections, T0 + 6000, ended(several[0], 2, 180, 0, 0))
    assert reported(connections.due(T0 + 6000)) == [(3, 80, 180)]


def test_many_connections_end_at_once() -> None:
    connections = table(max_connections=10)
    many = [ended(Connection(id=i, source_port=i % 50_000), 1, 100, 0, 0) for i in range(5000)]
    event(connections, T0, *many)
    batch = connections.due(T0)
    assert len(batch) == 5000
    assert batch["octetDeltaCount"].sum() == 500_000


def test_the_string_table_does_not_grow_for_ever() -> None:
    connections = table()
    first = connections.due(T0)
    for text in range(5000):
        first.strings.intern(f"pod-{text}".encode())
    poll(connections, T0, Connection(counters=(1, 1, 1, 1)))
    connections.due(T0)
    batch = connections.due(T0 + IDLE)
    assert len(batch.strings) < 100
    assert batch.texts("tcpState") == ["ESTABLISHED"]


@pytest.mark.parametrize(("active", "idle"), [(10_000, IDLE), (ACTIVE, 2_000), (ACTIVE, IDLE * 3)])
def test_other_timeouts_are_those_of_connections_that_are_known(active: int, idle: int) -> None:
    """As if the table had had them from the beginning."""

    def play(connections: ConnectionTable, change: bool) -> list[tuple[int, Any]]:
        observed: list[tuple[int, Any]] = []
        busy, quiet = Connection(counters=(1, 100, 0, 0)), Connection(id=9, source_port=9)
        for second in range(100):
            now = T0 + second * 1000
            grown = (second, 100 * second, 0, 0)
            poll(connections, now, busy.at(*grown), quiet.at(1, 50, 0, 0))
            if change and second == 1:
                connections.retime(active, idle)
            observed += [(second, row) for row in reported(connections.due(now))]
        return observed

    changed = play(table(), change=True)
    assert changed == play(table(active_timeout_ms=active, idle_timeout_ms=idle), change=False)
    assert changed != play(table(), change=False)


def test_a_connection_that_is_over_is_reported_at_once_whatever_the_timeouts() -> None:
    connections = table()
    over = Connection(counters=(1, 100, 0, 0), tcp_state="TIME_WAIT")
    poll(connections, T0, over)
    connections.retime(ACTIVE * 10, IDLE * 10)
    assert reported(connections.due(T0)) == [(3, 100, 100)]
    assert connections.next_deadline() is None


def test_what_is_not_wanted_any_more_is_reported_of_and_forgotten() -> None:
    scope = Scope()
    connections = table(scope=scope)
    tcp, udp = Connection(), Connection(id=9, protocol=17, tcp_state=None)
    poll(connections, T0, tcp.at(1, 100, 0, 0), udp.at(2, 200, 0, 0))
    scope.choose(("tcp",))
    connections.narrow()
    balanced(connections)
    assert len(connections) == 1
    assert reported(connections.due(T0)) == [(4, 200, 200)]
    for second in (1, 2, 3):
        poll(connections, T0 + second * 1000, tcp.at(1, 100, 0, 0), udp.at(3, 300, 0, 0))
    assert len(connections) == 1
    assert (connections.stats.vanished, connections.stats.ended_unobserved) == (0, 0)
    scope.choose(None)
    poll(connections, T0 + 4000, tcp.at(1, 100, 0, 0), udp.at(3, 300, 0, 0))
    connections.retime(1, 1)
    assert (300, 300) in {row[1:] for row in reported(connections.due(T0 + 5000))}


@pytest.mark.parametrize("flag", [ConntrackStatus.OFFLOAD, ConntrackStatus.HW_OFFLOAD])
@pytest.mark.parametrize("seen_before", [True, False])
def test_an_offloaded_connection_keeps_its_state(flag: ConntrackStatus, seen_before: bool) -> None:
    connections = table()
    one = Connection()
    fast = one.at(tcp_state=None, status=int(flag))
    poll(connections, T0, (one if seen_before else fast).at(1, 100, 1, 100))
    poll(connections, T0 + 5000, fast.at(9, 900, 9, 900))
    assert rows(connections.due(T0 + ACTIVE), "tcpState") == [("ESTABLISHED",)]
    # It leaves the flowtable when a FIN or RST comes.
    poll(connections, T0 + ACTIVE, one.at(12, 990, 12, 990, tcp_state="TIME_WAIT"))
    assert rows(connections.due(T0 + ACTIVE), "tcpState", "flowEndReason") == [("TIME_WAIT", 3)]


def test_an_end_without_a_state_keeps_the_last_one() -> None:
    connections = table()
    closing = Connection(counters=(9, 900, 9, 900), tcp_state="LAST_ACK")
    poll(connections, T0, closing)
    event(connections, T0 + 9000, ended(closing, 9, 900, 9, 900, tcp_state=None))
    assert rows(connections.due(T0 + 9000), "tcpState", "flowEndReason") == [("LAST_ACK", 3)]


def test_what_is_not_tcp_has_no_state_even_if_it_is_offloaded() -> None:
    connections = table()
    udp = Connection(protocol=17, tcp_state=None, status=int(ConntrackStatus.OFFLOAD))
    poll(connections, T0, udp.at(1, 100, 0, 0))
    assert rows(connections.due(T0 + IDLE), "tcpState") == [("",)]


HOUR = 3_600_000


@pytest.mark.parametrize(
    "leaps",
    [{24: -HOUR}, {24: HOUR}, {24: HOUR, 50: -2 * HOUR, 51: HOUR}, {13: 9 * HOUR, 70: -10 * HOUR}],
)
def test_a_clock_that_is_set_neither_stops_nor_hurries_anything(leaps: dict[int, int]) -> None:
    connections = table()
    wall, reported, moments = 1000 * T0, [], []
    for number in range(1, 121):
        wall += 5000 + leaps.get(number, 0)
        busy = Connection(counters=(10 * number, 1000 * number, 5 * number, 500 * number))
        quiet = Connection(id=2, source_port=2, counters=(1, 100, 1, 100))
        poll(connections, wall, busy, quiet)
        batch = connections.due(wall)
        for port, reason, end in rows(
            batch, "sourceTransportPort", "flowEndReason", "flowEndMilliseconds"
        ):
            reported.append((5 * number, port, reason))
            moments += [end] if port == busy.source_port else []
    assert reported == [(20, 2, 1), *((5 + 60 * at, 40000, 2) for at in range(1, 10))]
    # Neither does a record of one connection lie before the one before.
    assert all(later - earlier >= 60_000 for earlier, later in pairwise(moments))


@pytest.mark.parametrize("how", ["poll", "begin", "end"])
def test_none_ends_before_it_began_though_the_clock_was_set_back(how: str) -> None:
    """The kernel stamped the start before that, and it is first seen after it."""
    connections = table()
    one = Connection(protocol=17, tcp_state=None)  # began at T0
    if how == "begin":
        event(connections, T0 - 595_000, one.at(event=NEW, start_ns=0))
    if how != "end":
        poll(connections, T0 - 595_000, one.at(5, 500, 5, 500))
        poll(connections, T0 - 590_000, one.at(6, 600, 5, 500))
        times = rows(connections.due(T0 - 590_000 + IDLE), "flowStartSeconds", "flowEndSeconds")
        assert times == [(1000, 1005)]
        poll(connections, T0 - 570_000, one.at(6, 600, 5, 500))
    event(connections, T0 - 569_000, ended(one, 7, 700, 5, 500, at_s=431))
    times = rows(connections.due(T0 - 569_000), "flowStartSeconds", "flowEndSeconds")
    assert times == [(1000, 1000 if how == "end" else 1025)]


def test_a_wait_ends_in_time_though_the_clock_was_set() -> None:
    connections = table()
    poll(connections, (100 * T0), Connection(counters=(1, 100, 0, 0)))
    poll(connections, (100 * T0) - HOUR, Connection(counters=(1, 100, 0, 0)))
    assert connections.next_deadline() == (100 * T0) - HOUR + IDLE


def test_what_an_old_connection_had_is_of_the_moment_it_was_first_seen() -> None:
    """Without the kernel's timestamps nobody knows the interval."""
    connections = table()
    old = Connection(start_ns=0, counters=(10**9, 10**12, 10**6, 10**9))
    known = Connection(id=2, source_port=2, counters=(7, 700, 7, 700))
    poll(connections, T0 + 7000, old, known)
    names = (
        "sourceTransportPort",
        "octetDeltaCount",
        "flowStartMilliseconds",
        "flowEndMilliseconds",
    )
    (first,) = rows(connections.due(T0 + 7000), *names, "flowEndReason")
    assert first == (40000, 10**12, T0 + 7000, T0 + 7000, 2)
    poll(connections, T0 + 12_000, old.at(10**9 + 1, 10**12 + 100, 10**6, 10**9), known)
    assert not len(connections.due(T0 + 12_000))
    batch = connections.due(T0 + 12_000 + IDLE)
    assert (40000, 100, T0 + 7000, T0 + 12_000) in rows(batch, *names)


def test_a_connection_whose_beginning_was_observed_has_a_start_without_timestamps_too() -> None:
    connections = table()
    one = Connection(start_ns=0)
    event(connections, T0, one.at(0, 0, 0, 0, event=NEW))
    poll(connections, T0 + 3000, one.at(5, 500, 5, 500))
    assert not len(connections.due(T0 + 3000))
    assert rows(connections.due(T0 + 3000 + IDLE), "flowStartMilliseconds") == [(T0,)]


@pytest.mark.parametrize(("state", "kept_s"), [("TIME_WAIT", 120), ("CLOSE", 10)])
@pytest.mark.parametrize("since_s", [0, 1, 3, 4])
def test_the_end_of_a_closed_connection_is_when_its_timeout_began(
    state: str, kept_s: int, since_s: int
) -> None:
    connections = table()
    poll(connections, T0 + 60_000, Connection(counters=(5, 500, 5, 500)))
    closed = Connection(tcp_state=state, timeout=kept_s - since_s, counters=(9, 900, 9, 900))
    poll(connections, T0 + 65_000, closed)
    batch = connections.due(T0 + 65_000)
    ((end, seconds),) = rows(batch, "flowEndMilliseconds", "flowEndSeconds")
    assert 0 <= end - (T0 + 65_000 - 1000 * since_s) <= 1000 * min(since_s, 1)
    assert seconds == (T0 + 65_000) // 1000 - since_s
    # Of that end, not of its own time, is what comes of it later.
    event(connections, T0 + 65_000 + 1000 * kept_s, ended(closed, 9, 900, 9, 900))
    assert not len(connections.due(T0 + 300_000))


def test_the_timeouts_of_closed_connections_are_what_the_kernel_says() -> None:
    connections = table()
    connections.closed_after({"TIME_WAIT": 30, "CLOSE": 5})
    closed = Connection(tcp_state="TIME_WAIT", timeout=23, counters=(9, 900, 9, 900))
    poll(connections, T0 + 60_000, closed)
    assert rows(connections.due(T0 + 60_000), "flowEndSeconds") == [((T0 + 53_000) // 1000,)]


def test_a_short_connection_lasts_as_long_as_it_did() -> None:
    """It began 100 ms before its last packet, 4.9 s before the poll."""
    connections = table()
    closed = Connection(tcp_state="TIME_WAIT", timeout=115, counters=(9, 900, 9, 900))
    poll(connections, T0 + 5000, closed)
    ((start, end),) = rows(
        connections.due(T0 + 5000), "flowStartMilliseconds", "flowEndMilliseconds"
    )
    assert start < end <= start + 1000


def test_a_timeout_that_cannot_be_moves_no_end() -> None:
    """nft gives single connections timeouts of their own; and the last second reads as 0."""
    connections = table()
    long = Connection(tcp_state="TIME_WAIT", timeout=500, counters=(9, 900, 9, 900))
    brief = Connection(id=2, source_port=2, tcp_state="CLOSE", timeout=1)
    last = Connection(id=3, source_port=3, tcp_state="CLOSE", timeout=0)
    poll(connections, T0 + 5000, long, brief.at(1, 60, 1, 40), last.at(1, 60, 1, 40))
    batch = connections.due(T0 + 5000)
    ends = dict(rows(batch, "sourceTransportPort", "flowEndMilliseconds"))
    assert ends[40000] == ends[3] == T0 + 5000
    assert T0 <= ends[2] <= T0 + 1000  # a start later than that end


def test_a_connection_that_nobody_saw_close_ended_before_its_timeout() -> None:
    connections = table()
    alone = Connection(tcp_state="TIME_WAIT")
    event(connections, T0 + 123_000, ended(alone, 9, 900, 9, 900, at_s=1_123))
    polled = Connection(id=2, source_port=2)
    poll(connections, T0 + 4000, polled.at(5, 500, 5, 500), sweep=False)
    event(connections, T0 + 15_000, ended(polled.at(tcp_state="CLOSE"), 9, 900, 9, 900, at_s=1_015))
    again = Connection(id=3, source_port=3)  # its ports were wanted for another one
    poll(connections, T0 + 16_000, again.at(5, 500, 5, 500), sweep=False)
    event(
        connections, T0 + 19_000, ended(again.at(tcp_state="TIME_WAIT"), 9, 900, 9, 900, at_s=1_019)
    )
    batch = connections.due(T0 + 123_000)
    ends = dict(rows(batch, "sourceTransportPort", "flowEndMilliseconds"))
    assert ends == {40000: T0 + 3000, 2: T0 + 5000, 3: T0 + 19_000}


def test_connections_that_the_kernel_does_not_count_are_counted() -> None:
    connections = table()
    older = [Connection(id=at, source_port=at, uncounted=1) for at in (1, 2)]
    newer = Connection(id=3, source_port=3, uncounted=1, event=NEW)  # as of every new one
    event(connections, T0, newer)
    poll(connections, T0, *older, newer.at(1, 60, 1, 60, uncounted=0, event=DUMP))
    assert connections.stats.uncounted == 2
    names = ("packetTotalCount", "octetTotalCount")
    assert sorted(rows(connections.due(T0 + IDLE), *names)) == [(0, 0), (0, 0), (1, 60)]
    event(connections, T0 + 9000, ended(older[0], 0, 0, 0, 0))
    poll(connections, T0 + 10_000, older[1])
    assert connections.stats.uncounted == 1


def test_what_began_and_ended_while_events_were_lost_is_bounded() -> None:
    """Of 1 the end was lost, of 2 the beginning, of 3 that too but for its end, of the rest all."""
    connections = table()
    one, two, three, four = (Connection(id=at, source_port=at) for at in range(1, 5))
    event(connections, T0, one.at(0, 0, 0, 0, event=NEW))
    connections.lost(3 + 2 * 20)
    poll(connections, T0 + 1000, two.at(1, 60, 0, 0), four.at(1, 60, 0, 0))
    event(connections, T0 + 1000, four.at(0, 0, 0, 0, event=NEW), ended(three, 5, 500, 0, 0))
    for second in (2, 3):
        assert connections.stats.unseen == 0
        poll(connections, T0 + 1000 * second, two.at(1, 60, 0, 0), four.at(1, 60, 0, 0))
    assert connections.stats.unseen == 20
    assert connections.stats.vanished == 1
    assert connections.entries.dropped["lost"] == 43
    for second in (5, 6, 7, 8):  # and that is that
        poll(connections, T0 + 1000 * second, two.at(1, 60, 0, 0))
    assert connections.stats.unseen == 20


def test_what_is_unseen_is_counted_while_more_is_lost() -> None:
    """An overload may last for hours."""
    connections = table()
    for second in range(20):
        poll(connections, T0 + 1000 * second)
        connections.lost(7)
    assert 55 <= connections.stats.unseen <= 63
    for second in range(20, 25):
        poll(connections, T0 + 1000 * second)
    assert connections.stats.unseen == 70


def test_what_an_old_connection_had_has_no_interval_though_nobody_takes_its_record() -> None:
    """The collector is away for the first minutes; one of the two ends meanwhile."""
    connections = table()
    old = Connection(start_ns=0)
    over = Connection(id=2, source_port=2, start_ns=0, counters=(9, 9 * 10**9, 0, 0))
    for second in range(0, 120, 5):
        now = T0 + 1000 * second
        more = [over] if second < 60 else []
        poll(connections, now, old.at(10 + second, 10**12 + 100 * second, 0, 0), *more)
    names = ("octetDeltaCount", "flowStartMilliseconds", "flowEndMilliseconds")
    records = rows(connections.due(T0 + 115_000), *names)
    assert sorted(records) == [
        (9 * 10**9, T0 + 55_000, T0 + 55_000),
        (10**12 + 11_500, T0 + 115_000, T0 + 115_000),
    ]
    for second in range(120, 180, 5):
        now = T0 + 1000 * second
        poll(connections, now, old.at(10 + second, 10**12 + 100 * second, 0, 0))
    (record,) = rows(connections.due(T0 + 175_000), *names)
    assert record == (6000, T0 + 115_000, T0 + 175_000)


def test_counters_that_are_not_reported_for_a_while_stay() -> None:
    connections = table()
    one = Connection()
    poll(connections, T0, one.at(10, 1000, 5, 500))
    assert reported(connections.due(T0 + ACTIVE)) == [(1, 1000, 1000)]
    poll(connections, T0 + 65_000, one.at(0, 0, 0, 0, uncounted=1))
    poll(connections, T0 + 70_000, one.at(15, 1500, 5, 500))
    assert reported(connections.due(T0 + 130_000)) == [(1, 500, 1500)]
    event(connections, T0 + 131_000, ended(one, 0, 0, 0, 0))
    assert reported(connections.due(T0 + 131_000)) == [(3, 0, 1500)]


def test_counters_that_somebody_else_set_to_zero_go_on() -> None:
    """As `conntrack -L -z` does."""
    connections = table()
    one = Connection()
    poll(connections, T0, one.at(10, 1000, 5, 500))
    poll(connections, T0 + 5000, one.at(0, 0, 0, 0))
    poll(connections, T0 + 10_000, one.at(2, 200, 0, 0))
    assert reported(connections.due(T0 + 25_000)) == [(1, 1200, 200)]


def test_counters_begin_anew_together() -> None:
    """One that has passed its last value by the next poll had that from zero as well."""
    connections = table()
    one = Connection()
    poll(connections, T0, one.at(10, 1000, 5, 500))
    assert reported(connections.due(T0 + IDLE)) == [(1, 1000, 1000)]
    poll(connections, T0 + 20_000, one.at(9, 1500, 6, 501))
    names = ("packetDeltaCount", "octetDeltaCount", "reversePacketDeltaCount")
    batch = connections.due(T0 + 20_000 + ACTIVE)
    assert rows(batch, *names, "reverseOctetDeltaCount") == [(9, 1500, 6, 501)]
