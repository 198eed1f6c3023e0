"""Polls and events of real kernels' tables."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest

from flowvis.conntrack.entries import DESTROY, NEW, Entries
from flowvis.conntrack.names import ConntrackStatus
from flowvis.conntrack.sources import sockets
from flowvis.conntrack.sources.source import Conntrack
from flowvis.errors import SystemRefused
from flowvis.native import EntryDecoder
from namespaces import run
from waiting import PATIENCE_S

from . import traffic

pytestmark = pytest.mark.kernel

PORTS = range(20_000, 20_200)


@contextmanager
def opened(**options: Any) -> Iterator[Conntrack]:
    source = Conntrack(**options)
    source.open()
    with closing(source):
        yield source


@contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def many_connections(ports: range = PORTS) -> None:
    for port in ports:
        traffic.udp(("127.0.0.1", port), b"")


def gather(source: Conntrack, enough: Callable[[Entries], object]) -> Entries:
    """Read events until there are enough, or patience is at its end."""
    parts, end = [Entries.none()], time.monotonic() + PATIENCE_S
    while not enough(Entries.concat(parts)) and time.monotonic() < end:
        select.select([source.event_fileno()], [], [], 0.5)
        parts.append(source.read_events())
    return Entries.concat(parts)


def test_poll_of_both_families(kernel: Conntrack) -> None:
    many_connections()
    traffic.udp(("::1", 53))
    entries = kernel.poll()
    assert set(PORTS) <= set(entries.destination_port.tolist())
    assert set(entries.family.tolist()) == {2, 10}
    assert kernel.stats.polls == 1
    assert kernel.stats.entries == len(entries) == kernel.count()
    assert kernel.maximum() > len(entries)


def test_poll_tells_start_times_and_counters(kernel: Conntrack) -> None:
    before = time.time_ns()
    traffic.udp(("127.0.0.1", 53), bytes(1000))
    entries = kernel.poll()
    row = entries.take(entries.destination_port == 53)
    assert row.octets.tolist() == [1028]
    assert before - 10_000_000 <= row.start_ns[0] <= time.time_ns()
    assert row.stop_ns.tolist() == [0]


def test_polls_do_not_disturb_each_other(kernel: Conntrack) -> None:
    many_connections()
    first, second = kernel.poll(), kernel.poll()
    assert sorted(first.id.tolist()) == sorted(second.id.tolist())
    assert len(set(first.id.tolist())) == len(first)


def test_a_table_that_changes_under_the_poll(kernel: Conntrack) -> None:
    many_connections()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for _ in range(200):
                traffic.udp(("127.0.0.1", 53))
            run("conntrack", "-D", "-p", "udp", "--dport", "53")

    with ThreadPoolExecutor(1) as other:  # a thread starts in the namespace of its maker
        busy = other.submit(churn)
        try:
            for _ in range(20):
                assert set(PORTS) <= set(kernel.poll().destination_port.tolist())
        finally:
            stop.set()
        busy.result()
    assert kernel.stats.malformed_entries == 0
    assert kernel.stats.entries > 20 * len(PORTS)


def test_zones_in_the_kernel(kernel: Conntrack) -> None:
    traffic.make_mixed_table()
    for zones in ([7], [9], [7, 9], [9, 7, 9], [0], [0, 7, 9], [4]):
        with opened(zones=zones, events=False) as source:
            entries = source.poll()
            assert set(entries.zone.tolist()) == set(zones) - {4}
            assert source.stats.entries == len(entries)  # nothing was read in vain
    assert len(entries) == 0


@pytest.mark.parametrize("zones", [[7], [7, 9], [4, 9], [0, 7]])
def test_zones_where_the_kernel_does_not_heed_them(
    kernel: Conntrack, monkeypatch: pytest.MonkeyPatch, zones: list[int]
) -> None:
    traffic.make_mixed_table()
    everything = kernel.poll()
    request = sockets._dump_request
    asked = []

    def without_zone(sequence: int, zone: int | None) -> bytes:
        asked.append(zone)
        return request(sequence, None)

    monkeypatch.setattr(sockets, "_dump_request", without_zone)
    with opened(zones=zones, events=False) as source:
        for _ in range(2):
            entries = source.poll()
            expected = everything.take(np.isin(everything.zone, zones))
            assert sorted(entries.id.tolist()) == sorted(expected.id.tolist())
    assert asked[-1] is None  # it learned


def test_events_of_a_connection_that_no_poll_sees(kernel: Conntrack) -> None:
    traffic.udp(("127.0.0.1", 53), bytes(100))
    run("conntrack", "-D", "-p", "udp", "--dport", "53")
    events = gather(kernel, lambda events: DESTROY in events.event)
    of_it = events.take(events.destination_port == 53)
    assert of_it.event.tolist() == [NEW, DESTROY]
    assert of_it.octets.tolist() == [0, 128]
    assert of_it.id[0] == of_it.id[1]
    assert of_it.stop_ns[1] > of_it.start_ns[1] > 0
    assert int(of_it.status[1]) & ConntrackStatus.DYING
    assert kernel.stats.events == len(events)
    assert 53 not in kernel.poll().destination_port


def test_events_of_a_tcp_connection_end_with_its_final_counters(kernel: Conntrack) -> None:
    traffic.tcp(("127.0.0.1", 8080), ("127.0.0.1", 8080))
    last = kernel.poll()
    run("conntrack", "-D", "-p", "tcp", "--dport", "8080")
    events = gather(kernel, lambda events: DESTROY in events.event)
    ended = events.take(events.event == DESTROY)
    polled = last.take(last.protocol == 6)
    for name in ("octets", "reverse_octets", "packets", "start_ns", "id", "tcp_state"):
        assert getattr(ended, name).tolist() == getattr(polled, name).tolist(), name


def test_events_of_other_zones_are_left_out(kernel: Conntrack) -> None:
    with opened(zones=[7]) as source:
        traffic.make_mixed_table()
        events = gather(source, lambda events: len(events) > 0)
        assert events.zone.tolist() == [7]
        assert source.stats.events > 1


def test_reading_without_events_does_not_block(kernel: Conntrack) -> None:
    kernel.read_events()
    assert len(kernel.read_events()) == 0


def test_more_events_than_fit_at_once(kernel: Conntrack) -> None:
    many_connections(range(10_000, 14_000))
    events = gather(kernel, lambda events: len(events) >= 4000)
    ports = [port for port in events.destination_port.tolist() if port in range(10_000, 14_000)]
    assert ports == list(range(10_000, 14_000))
    assert kernel.stats.overruns == 0
    assert not kernel.needs_resync


def test_lost_events_ask_for_a_poll(kernel: Conntrack) -> None:
    with opened(event_buffer_bytes=2048) as source:
        many_connections()
        got = source.read_events()
        assert len(got) < len(PORTS)
        assert source.stats.overruns > 0
        assert (source.needs_resync, source.stats.lost_events) == (True, len(PORTS) - len(got))
        assert set(PORTS) <= set(source.poll().destination_port.tolist())
        assert not source.needs_resync
        many_connections(range(30_000, 30_001))
        assert 30_000 in gather(source, len).destination_port


def test_a_malformed_event_asks_for_a_poll(
    kernel: Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged:
        def read(self, decoder: EntryDecoder) -> tuple[int, bool]:
            decoder.feed(b"\3" + bytes(19))
            return 0, False

        def dropped(self) -> int:
            return 0

        def close(self) -> None:
            pass

    with monkeypatch.context() as patch:  # undone before the fixture closes its own socket
        patch.setattr(kernel, "_events", Damaged())
        assert len(kernel.read_events()) == 0
    assert kernel.needs_resync
    assert kernel.stats.malformed_events == 1


def test_without_events(kernel: Conntrack) -> None:
    with opened(events=False) as source:
        assert source.prepare() == []
        for call in (source.event_fileno, source.read_events):
            with pytest.raises(ValueError, match="without events"):
                call()


def test_not_open() -> None:
    source = Conntrack()
    with pytest.raises(ValueError, match="not open"):
        source.poll()
    source.close()


def test_a_dump_that_broke_off_does_not_stand_in_the_way(kernel: Conntrack) -> None:
    many_connections(range(10_000, 11_000))

    class Full:
        def feed(self, data: memoryview, sequence: int | None = None) -> int | None:
            raise MemoryError(len(data), sequence)

    with closing(sockets.DumpSocket()) as dumps:
        with pytest.raises(MemoryError):
            dumps.dump(Full())
        decoder = EntryDecoder()
        dumps.dump(decoder)
        assert len(decoder) >= 1000


def test_the_kernel_refuses_a_poll(tracked: None) -> None:
    with opened(events=False) as source:
        with nobody(), pytest.raises(SystemRefused, match="CAP_NET_ADMIN"):
            source.poll()
        assert len(source.poll()) == source.count()


def test_the_kernel_refuses_events(tracked: None) -> None:
    source = Conntrack()
    with nobody(), pytest.raises(SystemRefused, match=r"events .* CAP_NET_ADMIN"):
        source.open()
    assert source._dumps is None


def test_an_answer_that_does_not_come(kernel: Conntrack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "DUMP_TIMEOUT_S", 0)
    silent, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    dumps = sockets.DumpSocket()
    with silent, peer, closing(dumps):
        dumps._socket.close()
        silent.settimeout(0.05)
        dumps._socket = silent
        with pytest.raises(SystemRefused, match="cannot be read"):
            dumps.dump(EntryDecoder())
        assert dumps._socket.family == socket.AF_NETLINK


def test_closing_under_a_dump_opens_no_other_socket(kernel: Conntrack) -> None:
    dumps = sockets.DumpSocket()

    class Closing:
        def feed(self, data: memoryview, sequence: int | None = None) -> int | None:  # noqa: ARG002  the interface
            dumps.close()
            return None

    with pytest.raises(SystemRefused, match="cannot be read"):
        dumps.dump(Closing())
    assert dumps._socket.fileno() == -1
