"""Random lives of connections against a kernel in a few lines."""

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.kernel_entries import SECOND, Connection, entries
from flowvis.batch import Batch
from flowvis.conntrack.entries import DESTROY, NEW
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope

Step = tuple[str, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("open", "traffic", "traffic", "close", "end", "again", "wait"),
                *("poll", "poll", "due", "away"),
            ]
        ),
        st.integers(0, 2),
    ),
    max_size=60,
)


@dataclass
class Kernel:
    """Connections of few ports, so that tuples are used again, and their ids with them."""

    now_ms: int = 1_000_000
    live: dict[int, Connection] = field(default_factory=dict)
    final: dict[tuple[int, int], int] = field(default_factory=dict)
    events: list[Connection] = field(default_factory=list)
    born: int = 0

    def step(self, what: str, number: int) -> None:
        self.now_ms += 7
        one = self.live.get(number)
        if what == "again":
            self.step("end", number)
            self.step("open", number)
        elif what == "open" and one is None:
            self.born += 1
            self.live[number] = Connection(
                source_port=number, id=1, start_ns=self.now_ms * SECOND // 1000
            )
            self.events.append(self.live[number].at(0, 0, 0, 0, event=NEW, start_ns=0))
        elif what == "traffic" and one is not None:
            grown = [count + self.now_ms % 13 + 1 for count in one.counters]
            self.live[number] = one.at(*grown)
        elif what == "close" and one is not None:
            self.live[number] = one.at(tcp_state="TIME_WAIT")
        elif what == "end" and one is not None:
            del self.live[number]
            self.final[number, one.start_ns // 1_000_000] = one.counters[1]
            stop = self.now_ms * SECOND // 1000
            self.events.append(one.at(event=DESTROY, stop_ns=stop, status=512))
        elif what == "wait":
            self.now_ms += 20_000 * number


class Exporter:
    """A table that follows a kernel, and what it reported of each connection."""

    def __init__(self, kernel: Kernel, *, events: bool, max_connections: int) -> None:
        self.kernel = kernel
        self.events = events
        self.table = ConnectionTable(
            PlainHost(), Scope(), events=events, max_connections=max_connections
        )
        self.reported: dict[tuple[int, int], int] = defaultdict(int)
        self.ends: dict[tuple[int, int], int] = defaultdict(int)

    def step(self, what: str) -> None:
        if what == "poll":
            self.poll()
        elif what in {"due", "away"}:
            self.listen()
            self.note(self.table.due(self.kernel.now_ms, live=100 * (what == "due")))
        assert len(self.table) <= self.table.max_connections

    def poll(self) -> None:
        self.table.poll(entries(*self.kernel.live.values()), self.kernel.now_ms)
        self.listen()
        self.table.sweep()

    def listen(self) -> None:
        if self.events:
            self.table.event(entries(*self.kernel.events), self.kernel.now_ms)
        self.kernel.events.clear()

    def note(self, batch: Batch) -> None:
        names = ("sourceTransportPort", "flowStartMilliseconds",
                 "octetDeltaCount", "flowEndMilliseconds")  # fmt: skip
        columns = (batch[name].tolist() for name in names)
        for port, start, delta, end in zip(*columns, strict=True):
            self.reported[port, start] += delta
            assert end >= self.ends[port, start]
            self.ends[port, start] = end

    def finish(self) -> None:
        self.poll()
        self.poll()
        self.note(self.table.due(self.kernel.now_ms))
        assert len(self.table) == 0
        for stage in (self.table.entries, self.table.connections):
            assert (stage.imbalance, stage.missing) == (0, 0)


def run(steps: list[Step], *, events: bool, max_connections: int) -> tuple[Exporter, Kernel]:
    kernel = Kernel()
    exporter = Exporter(kernel, events=events, max_connections=max_connections)
    for what, number in steps:
        kernel.step(what, number)
        exporter.step(what)
    for number in list(kernel.live):
        kernel.step("end", number)
    exporter.finish()
    return exporter, kernel


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_deltas_add_up_to_the_kernels_last_counters(steps: list[Step]) -> None:
    exporter, kernel = run(steps, events=True, max_connections=100)
    assert exporter.reported == kernel.final


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_without_events_nothing_is_reported_twice(steps: list[Step]) -> None:
    exporter, kernel = run(steps, events=False, max_connections=100)
    # What a connection counts between the last poll and its end nobody hears.
    assert all(octets <= kernel.final[key] for key, octets in exporter.reported.items())


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_a_table_that_is_too_small_tells_nothing_twice_or_never(steps: list[Step]) -> None:
    exporter, kernel = run(steps, events=True, max_connections=2)
    assert exporter.reported == kernel.final
