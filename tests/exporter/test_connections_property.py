"""Random lives of connections against a kernel in a few lines."""

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.kernel_entries import SECOND, Connection, entries
from flowvis.batch import Batch
from flowvis.conntrack.entries import DESTROY, NEW
from flowvis.exporter.connections import ConnectionTable
from flowvis.exporter.enrich import PlainHost
from flowvis.exporter.scope import Scope

Step = tuple[str, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["open", "traffic", "traffic", "close", "end", "wait", "poll", "poll", "due", "away"]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


@dataclass
class Kernel:
    """Connections of few ports, so that tuples are used again; events unless they get lost."""

    now_ms: int = 1_000_000
    live: dict[int, Connection] = field(default_factory=dict)
    final: dict[tuple[int, int], int] = field(default_factory=dict)
    events: list[Connection] = field(default_factory=list)
    born: int = 0

    def step(self, what: str, number: int) -> None:
        self.now_ms += 7
        one = self.live.get(number)
        if what == "open" and one is None:
            self.born += 1
            self.live[number] = Connection(
                source_port=number, id=self.born % 3, start_ns=self.now_ms * SECOND // 1000
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


def run(steps: list[Step], *, events: bool, max_connections: int) -> None:
    kernel = Kernel()
    table = ConnectionTable(PlainHost(), Scope(), events=events, max_connections=max_connections)
    told: dict[tuple[int, int], int] = defaultdict(int)
    ends: dict[tuple[int, int], int] = defaultdict(int)

    def note(batch: Batch) -> None:
        names = ("sourceTransportPort", "flowStartMilliseconds", "octetDeltaCount")
        for port, start, delta in zip(*(batch[name].tolist() for name in names), strict=True):
            told[port, start] += delta
        for port, start, end in zip(
            *(batch[name].tolist() for name in (*names[:2], "flowEndMilliseconds")), strict=True
        ):
            assert end >= ends[port, start]
            ends[port, start] = end

    def drain() -> None:
        if events:
            table.event(entries(*kernel.events), kernel.now_ms)
        kernel.events.clear()

    def poll() -> None:
        table.poll(entries(*kernel.live.values()), kernel.now_ms)
        drain()
        table.sweep()

    for what, number in steps:
        kernel.step(what, number)
        if what == "poll":
            poll()
        elif what in {"due", "away"}:
            drain()
            note(table.due(kernel.now_ms, live=what == "due"))
        assert len(table) <= max_connections
    for number in list(kernel.live):
        kernel.step("end", number)
    poll()
    poll()
    note(table.due(kernel.now_ms))
    assert len(table) == 0
    stats = table.stats
    assert stats.received == stats.updated + stats.admitted + sum(stats.dropped.values())
    if events:
        assert dict(told) == kernel.final
    else:
        # What a connection counts after the last poll before its end nobody hears.
        assert all(told[key] <= kernel.final[key] for key in told)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_deltas_add_up_to_the_kernels_last_counters(steps: list[Step]) -> None:
    run(steps, events=True, max_connections=100)


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_without_events_nothing_is_told_twice(steps: list[Step]) -> None:
    run(steps, events=False, max_connections=100)


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_a_table_that_is_too_small_tells_nothing_wrong(steps: list[Step]) -> None:
    run(steps, events=True, max_connections=2)
