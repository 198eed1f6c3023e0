"""Any history of one connection: what is written is what the rules of docs/design.md say.

The model is made of those rules alone: it knows what was reported, no row, key or timeout. It says
nothing of when a flow is written, and all that is in it then.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.batch import Batch
from flowvis.fields import EndReason

from .exported import DESTINATION_HALF, INTRA_NODE, PLAIN, SOURCE_HALF, START_MS, exported
from .test_flows import _leaf  # noqa: F401  both leaves

COUNTERS = ("octet", "packet", "reverseOctet", "reversePacket")
Four = tuple[int, int, int, int]
"""A number for each of `COUNTERS`."""

CLIENT, SERVER, BOTH = 0, 1, 2
NAMES = {CLIENT: "Source", SERVER: "Destination"}
NONE: Four = (0, 0, 0, 0)
SERVICE = {name for name in SOURCE_HALF if "Service" in name or "ClusterIP" in name}


def four(values: Iterable[int]) -> Four:
    a, b, c, d = values
    return a, b, c, d


def less(left: Four, right: Four) -> Four:
    return four(a - b for a, b in zip(left, right, strict=True))


def larger(left: Four, right: Four) -> Four:
    return four(map(max, left, right))


def plus(left: Four, right: Four) -> Four:
    return four(a + b for a, b in zip(left, right, strict=True))


@dataclass(frozen=True)
class Report:
    """What a record says, in the direction of the client."""

    node: int
    start_ms: int
    end_ms: int
    ended: bool
    totals: Four
    deltas: Four


@dataclass
class Count:
    """What one side counted, or both together."""

    totals: Four = NONE
    counter: Four = NONE
    """The kernel's, as it was reported last."""
    before: Four = NONE
    """What an aggregator of before may have written already."""

    @property
    def deltas(self) -> Four:
        """The sum of all deltas."""
        return less(self.totals, self.before)

    def observe(self, counter: Four) -> None:
        """When a counter is less than it was, all began anew; that all are 0 tells nothing."""
        pairs = zip(counter, self.counter, strict=True)
        if any(0 < now < before for now, before in pairs):
            self.counter = NONE
        counter = larger(counter, self.counter)
        self.totals = plus(self.totals, less(counter, self.counter))
        self.counter = counter


@dataclass
class Rules:
    """One connection as docs/design.md has it, under "Correlation"."""

    sides: dict[int, Count] = field(default_factory=dict)
    common: Count = field(default_factory=Count)
    ends: dict[int, int] = field(default_factory=dict)
    start_ms: int = 2**63
    ended: bool = False
    written: bool = False
    end_written: bool = False

    def observe(self, report: Report) -> None:
        if report.node not in self.sides:
            before = less(report.totals, report.deltas)
            self.sides[report.node] = Count(before=before)
            if not self.written:
                self.common.before = larger(self.common.before, before)
        if report.end_ms > self.ends.get(report.node, 0):  # not repeated, not late
            side = self.sides[report.node]
            side.observe(report.totals)
            self.common.totals = larger(self.common.totals, side.totals)
        self.ends[report.node] = max(self.ends.get(report.node, 0), report.end_ms)
        self.start_ms = min(self.start_ms, report.start_ms)
        self.ended |= report.ended

    def counts(self) -> dict[str, Count]:
        """By the suffix of the fields' names; a node that has both Pods is both sides."""
        whole = self.sides.get(BOTH)
        return {"": self.common} | {
            f"From{name}Node": whole or self.sides.get(node, Count())
            for node, name in NAMES.items()
        }


@dataclass
class Node:
    """A node's kernel and the exporter there."""

    start_ms: int
    counted: Four
    reported: Four
    end_ms: int = 0
    ended: bool = False

    def report(self, node: int, now_ms: int, *, ended: bool) -> Report:
        deltas = less(self.counted, self.reported)
        self.reported = self.counted
        self.end_ms = max(now_ms, self.end_ms + 1)
        self.ended |= ended
        return Report(node, self.start_ms, self.end_ms, ended, self.counted, deltas)


class History:
    """What happens to a connection, the table that it is reported to, and the rules."""

    def __init__(
        self, nodes: dict[int, Node], timeouts: dict[str, Any], way: dict[str, bool]
    ) -> None:
        self.nodes = nodes
        self.way = way
        # Whoever is forgotten begins anew, which is another rule: nothing is forgotten here.
        self.table = FlowTable(inactive_timeout_ms=3_600_000, **timeouts)
        self.now_ms = START_MS + 60_000
        self.rules = Rules()
        self.sent: list[Report] = []
        self.summed: dict[str, Four] = {}
        self.flipped: bool | None = None  # the row has the server as its client

    def step(self, kind: str, node: int, number: int, counts: Four) -> None:
        node %= len(self.nodes)
        who, there = sorted(self.nodes.items())[node]
        self.now_ms += number
        if kind == "recounts" and not there.ended:  # `conntrack -L -z`
            there.counted, there.reported = counts, NONE
        elif kind == "restarts":  # it sends all again
            there.reported = NONE
        elif kind in {"due", "flush"}:
            self.write(flush=kind == "flush")
        elif kind == "again" and self.sent:  # repeated, or late
            self.add(self.sent[number % len(self.sent)])
        elif not there.ended:
            there.counted = plus(there.counted, counts)
            if kind == "counts":
                return
            report = there.report(who, self.now_ms, ended=kind == "ends")
            self.sent.append(report)
            if kind != "lost":
                self.add(report)

    def add(self, report: Report) -> None:
        self.table.add(exported(self.table.strings, self.record(report)), self.now_ms)
        turned = report.node == SERVER and self.way["turned"]
        if self.flipped is None:
            self.flipped = turned
        elif report.node == CLIENT and self.way["service"] and not self.rules.written:
            self.flipped = False  # who is translated is the client
        self.rules.observe(report)

    def record(self, report: Report) -> dict[str, Any]:
        half = (SOURCE_HALF, DESTINATION_HALF, INTRA_NODE)[report.node]
        if not self.way["service"]:
            half = {name: value for name, value in half.items() if name not in SERVICE}
        row = {
            **half,
            "flowStartMilliseconds": report.start_ms,
            "flowEndMilliseconds": report.end_ms,
            "flowEndReason": EndReason.END if report.ended else EndReason.ACTIVE,
        }
        for kind, values in (("Total", report.totals), ("Delta", report.deltas)):
            row |= {
                f"{name}{kind}Count": value for name, value in zip(COUNTERS, values, strict=True)
            }
        if report.node == SERVER and self.way["turned"]:
            row = PLAIN | row
            row = {reverse(name): value for name, value in row.items()}
        return row

    def write(self, *, flush: bool) -> None:
        batch = (self.table.flush if flush else self.table.due)(self.now_ms)
        assert len(batch) <= 1, "one connection is one record"
        if len(batch):
            self.written(batch)

    def written(self, batch: Batch) -> None:
        rules = self.rules
        assert rules.sides, "something of nothing"
        values = {name: int(batch[name][0]) for name in batch.columns if batch[name].ndim == 1}
        if self.flipped:
            values = {reverse(name): value for name, value in values.items()}
        grown = False
        for suffix, count in self.rules.counts().items():
            totals = four(values[f"{name}TotalCount{suffix}"] for name in COUNTERS)
            deltas = four(values[f"{name}DeltaCount{suffix}"] for name in COUNTERS)
            self.summed[suffix] = plus(self.summed.get(suffix, NONE), deltas)
            assert (suffix, totals) == (suffix, count.totals)
            assert (suffix, self.summed[suffix]) == (suffix, count.deltas)
            grown |= any(deltas)
        for node, name in NAMES.items():
            end = rules.ends.get(BOTH, rules.ends.get(node, 0))
            assert values[f"flowEndSecondsFrom{name}Node"] == end // 1000
        assert values["originalFlowsPresent"] == len(rules.sides)
        assert values["flowStartSeconds"] == rules.start_ms // 1000
        assert values["flowEndSeconds"] == max(rules.ends.values()) // 1000
        ended = values["flowEndReason"] == EndReason.END
        assert ended == rules.ended, "the end of a flow stays"
        idle = values["flowEndReason"] == EndReason.IDLE
        assert grown or not rules.written or ((ended or idle) and not rules.end_written)
        rules.written = True
        rules.end_written |= ended or idle

    def finish(self) -> None:
        """What was reported is written in the end."""
        self.write(flush=True)
        for suffix, count in self.rules.counts().items():
            assert (suffix, self.summed.get(suffix, NONE)) == (suffix, count.deltas)


def reverse(name: str) -> str:
    """The name that a field has in the same record with client and server exchanged."""
    for one, other in (("source", "destination"), ("Source", "Destination"), ("ingress", "egress")):
        if one in name or other in name:
            name = name.replace(one, "*").replace(other, one).replace("*", other)
    if name.startswith("reverse"):
        name = name.removeprefix("reverse")
        return name[0].lower() + name[1:]
    return f"reverse{name[0].upper()}{name[1:]}" if name.startswith(("octet", "packet")) else name


SMALL = st.integers(0, 3)
FOUR = st.tuples(SMALL, SMALL, SMALL, SMALL)
NODE = st.builds(
    lambda start, before, since: Node(START_MS + start, plus(before, since), before),
    st.integers(0, 900),
    FOUR,  # reported to an aggregator of before
    FOUR,
)
KINDS = ["counts", "reports", "reports", "lost", "again", "again", "due", "due", "flush"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, "restarts", "recounts", "ends"]),
        st.integers(0, 1),
        st.integers(0, 40_000),
        FOUR,
    ),
    max_size=25,
)


@given(
    nodes=st.one_of(
        st.fixed_dictionaries({CLIENT: NODE, SERVER: NODE}), st.fixed_dictionaries({BOTH: NODE})
    ),
    timeouts=st.fixed_dictionaries(
        {
            "active_timeout_ms": st.sampled_from([1000, 60_000]),
            "correlation_wait_ms": st.sampled_from([0, 5000, 90_000]),
        }
    ),
    way=st.fixed_dictionaries({"turned": st.booleans(), "service": st.booleans()}),
    steps=STEPS,
)
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_history_is_written_by_the_rules(
    nodes: dict[int, Node],
    timeouts: dict[str, Any],
    way: dict[str, bool],
    steps: list[tuple[str, int, int, Four]],
) -> None:
    history = History(nodes, timeouts, way)
    for step in steps:
        history.step(*step)
    history.finish()
