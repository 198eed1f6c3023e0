"""What holds for the flow table whatever comes in, in whatever order."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.aggregator.correlation import flows as flows_module
from flowvis.aggregator.correlation import rows as rows_module
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.batch import Batch
from flowvis.native import flows as index_leaf
from flowvis.native import merge as merge_leaf
from flowvis.native.contract.merge import FlowState
from flowvis.native.reference import flows as index_reference
from flowvis.native.reference import merge as merge_reference

from .exported import (
    DESTINATION_HALF,
    INTRA_NODE,
    SOURCE_HALF,
    START_MS,
    counted,
    exported,
)

Row = dict[str, Any]
LEAVES = {
    "reference": (index_reference, merge_reference),
    "compiled": (index_leaf, merge_leaf),
}


def flow_table(name: str, **options: Any) -> FlowTable:
    """A table on one of the leaves."""
    index, merge = LEAVES[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "FlowIndex", index.FlowIndex)
        patch.setattr(flows_module, "Merger", merge.Merger)
        return FlowTable(**options)


def check_books(table: FlowTable) -> None:
    assert table.stats.imbalance == 0, table.stats
    assert table.stats.held == np.count_nonzero(table._live.state & FlowState.UNWRITTEN)


counts = st.sampled_from([0, 1, 90, 100, 5000, 1 << 40, (1 << 64) - 1])
names = st.sampled_from(["", "a", "b"])
addresses = st.sampled_from(["::", "0.0.0.0", "10.0.0.1", "10.0.0.2", "fd00::1"])
any_record = st.fixed_dictionaries(
    {
        "flowStartMilliseconds": st.sampled_from(
            [0, START_MS - 123, START_MS, START_MS + 300, START_MS + 5000, START_MS + 90_000]
        ),
        "flowEndMilliseconds": st.integers(START_MS - 2, START_MS + 8),
        "flowEndReason": st.sampled_from([0, 1, 2, 2, 3]),
        "flowType": st.sampled_from([0, 1, 2, 2, 2, 3, 4, 4]),
        "observationDomainId": st.sampled_from([0, 1, 1, 2, 3]),
        "sourceTransportPort": st.sampled_from([40_000, 40_000, 80, 50_000]),
        "destinationTransportPort": st.sampled_from([80, 80, 40_000]),
        "protocolIdentifier": st.sampled_from([6, 6, 6, 1]),
        "flowId": st.sampled_from([0, 0, 8 << 24 | 7]),
        "proxySnatPort": st.sampled_from([0, 40_000]),
        "sourceIP": st.sampled_from(["10.0.0.1", "10.0.1.1", "fd00::1"]),
        "destinationIP": st.sampled_from(["10.0.1.1", "10.0.1.1", "10.0.0.1"]),
        "proxySnatIP": addresses,
        "destinationServiceIP": addresses,
        "destinationServicePort": st.sampled_from([0, 80]),
        "sourcePodName": names,
        "destinationPodName": names,
        "egressNetworkPolicyRuleAction": st.sampled_from([0, 0, 1, 2]),
        "ingressNetworkPolicyRuleAction": st.sampled_from([0, 0, 1, 3]),
        "tcpState": names,
        "octetTotalCount": counts,
        "octetDeltaCount": counts,
        "packetTotalCount": counts,
        "reverseOctetTotalCount": counts,
    },
    optional={
        "originalObservationDomainId": st.sampled_from([0, 7]),
        "flowDirection": st.sampled_from([0, 1, 255]),
        "bothNodesCounted": st.sampled_from([0, 1, 1]),
        "octetTotalCountFromSourceNode": counts,
        "octetDeltaCountFromSourceNode": counts,
        "packetTotalCountFromSourceNode": counts,
        "octetTotalCountFromDestinationNode": counts,
        "packetTotalCountFromDestinationNode": counts,
    },
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(st.lists(any_record, max_size=8), st.sampled_from([0, 1000, 70_000]))))
def test_compiled_and_reference_agree(steps: list[tuple[list[Row], int]]) -> None:
    tables = [flow_table(name, max_flows=6, compact_bytes=500) for name in LEAVES]
    now = START_MS
    for rows, pause in steps:
        outgoing = []
        for table in tables:
            table.add(exported(table.strings, *rows), now)
            check_books(table)
            outgoing.append(table.due(now))
            check_books(table)
        expected, found = (table._live for table in tables)
        assert (expected.bytes == found.bytes).all()
        assert (expected.state == found.state).all()
        assert (expected.due == found.due).all()
        assert (expected.seen == found.seen).all()
        assert tables[0].stats == tables[1].stats
        for name, column in outgoing[0].columns.items():
            assert (column == outgoing[1][name]).all(), name
        now += pause


@dataclass
class Life:
    """One connection: what each exporter will have counted at its reports."""

    base: Row
    kind: str
    halves: list[list[Row]]  # each exporter's records, in order

    @property
    def total(self) -> int:
        """The octets of the exporter that counted most."""
        return max(int(half[-1]["octets"]) for half in self.halves)


SERVER_PORT = 80
CALLED = {"destinationIP": "192.0.2.2", "destinationTransportPort": 30_080}
ON_ITS_NODE = {"destinationServiceIP": "192.0.2.2", "destinationServicePort": 30_080}
MASQUERADED = {"proxySnatIP": "192.0.2.1", "proxySnatPort": 61_000}
OF_THE_NODE = {"sourceIP": "192.0.2.1", "sourceTransportPort": 61_000}
NO_SERVICE = {"destinationServiceIP": "::", "destinationServicePort": 0}
HOST = {"flowType": 0}
KINDS: dict[str, list[Row]] = {
    "within a node": [INTRA_NODE],
    "halves": [SOURCE_HALF, DESTINATION_HALF],
    "opposite": [SOURCE_HALF | NO_SERVICE, DESTINATION_HALF | {"opposite": True}],
    "node port": [SOURCE_HALF | NO_SERVICE | CALLED, DESTINATION_HALF | ON_ITS_NODE],
    "masqueraded": [
        SOURCE_HALF | NO_SERVICE | CALLED | MASQUERADED,
        DESTINATION_HALF | ON_ITS_NODE | OF_THE_NODE,
    ],
    "hosts": [HOST | {"observationDomainId": number} for number in (1, 2, 3, 4, 5)],
}


OPPOSITES = (
    ("source", "destination"),
    ("octet", "reverseOctet"),
    ("packet", "reversePacket"),
    ("ingress", "egress"),
)


def turned(record: Row) -> Row:
    """The same connection as a node reports it that saw the server's packet first."""
    other = {}
    for name, value in record.items():
        opposite = name
        for pair in OPPOSITES:
            for one, two in (pair, pair[::-1]):
                if name.startswith(one):
                    opposite = two + name.removeprefix(one)
        other[opposite] = value
    return other


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    """Connections, some of them on one tuple after the other."""
    made = []
    for port in range(1, draw(st.integers(1, 3)) + 1):
        begin, kind = 0, draw(st.sampled_from(sorted(KINDS)))
        for _ in range(draw(st.integers(1, 2))):
            base = {
                "sourceIP": "10.0.0.1",
                "destinationIP": "10.0.1.1",
                "sourceTransportPort": port,
                "destinationTransportPort": SERVER_PORT,
                "flowStartMilliseconds": START_MS + begin,
            }
            exporters = KINDS[kind][: draw(st.integers(2, 5))]
            halves = []
            for skew, side in enumerate(exporters):
                octets, end, records = 0, begin, []
                for delta in draw(st.lists(st.integers(0, 5000), min_size=1, max_size=4)):
                    octets, end = octets + delta, end + draw(st.integers(1, 9000))
                    record = base | counted(octets, delta)
                    record |= {name: value for name, value in side.items() if name != "opposite"}
                    if side.get("sourceTransportPort") or side.get("proxySnatPort"):
                        name = "proxySnatPort" if "proxySnatPort" in side else "sourceTransportPort"
                        record[name] = 61_000 + port
                    record |= {
                        "flowStartMilliseconds": START_MS + begin + skew,
                        "flowEndMilliseconds": START_MS + max(end, begin + skew),
                    }
                    record = turned(record) if side.get("opposite") else record
                    records.append(record | {"life": port, "octets": octets})
                records[-1] |= {"flowEndReason": 3}
                halves.append(records)
            made.append(Life(base, kind, halves))
            begin += 60_000
    return made


def in_some_order(draw: st.DrawFn, made: list[Life]) -> list[Row]:
    """All records, nodes interleaved at will, some of them twice, some again out of order.

    A node's first record of a connection comes before its others: sessions keep their order, and
    what is repeated after a lost one has been observed before.
    """
    queues = [list(half) for life in made for half in life.halves]
    seen: list[Row] = []
    while any(queues):
        at = draw(st.sampled_from([at for at, queue in enumerate(queues) if queue]))
        record = queues[at][0]
        blocked = any(
            queue
            and other < at
            and queue[0]["life"] == record["life"]
            and queue[0]["flowStartMilliseconds"] < record["flowStartMilliseconds"] - 1000
            for other, queue in enumerate(queues)
        )
        if blocked:
            continue
        seen.append(queues[at].pop(0))
        if draw(st.booleans()):
            recent = [old for old in seen if old["life"] == record["life"]]
            seen.append(draw(st.sampled_from(recent)))
    return seen


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(list(LEAVES)))
def test_the_sum_of_the_deltas_is_the_final_total(data: st.DataObject, leaf: str) -> None:
    made = data.draw(lives())
    records = data.draw(st.composite(lambda draw: in_some_order(draw, made))())
    # Remembering for long: what is repeated after it was forgotten is new.
    table = flow_table(leaf, max_flows=40, inactive_timeout_ms=1 << 40, correlation_wait_ms=20_000)
    written: list[Batch] = []
    now = START_MS + 100_000
    while records:
        size = data.draw(st.integers(1, 6))
        table.add(exported(table.strings, *records[:size]), now)
        records = records[size:]
        check_books(table)
        now += data.draw(st.sampled_from([0, 500, 61_000]))
        written.append(table.due(now))
        check_books(table)
    written.append(table.flush(now))
    check_books(table)
    assert table.stats.held == 0
    _check_sums(made, written)


def _check_sums(made: list[Life], written: list[Batch]) -> None:
    """Per connection and side: totals never go back; deltas add up to the last of them."""
    stories: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for batch in written:
        for at in range(len(batch)):
            row = {name: column[at] for name, column in batch.columns.items()}
            start = int(row["flowStartMilliseconds"]) - START_MS
            ports = int(row["sourceTransportPort"]), int(row["destinationTransportPort"])
            if ports[0] == SERVER_PORT:
                ports, row = ports[::-1], _of_the_client(row)
            port = ports[0] - 61_000 if ports[0] > 61_000 else ports[0]
            stories[port, start // 1000].append(row)
    assert len(stories) == len(made)
    for life in made:
        first = life.base["flowStartMilliseconds"] - START_MS
        story = stories[life.base["sourceTransportPort"], first // 1000]
        totals = [int(row["octetTotalCount"]) for row in story]
        assert totals == sorted(totals)
        assert totals[-1] == life.total
        assert sum(int(row["octetDeltaCount"]) for row in story) == life.total
        if life.kind == "hosts":
            continue  # what one of them reports alone stands for both sides
        sides = ("FromSourceNode", "FromDestinationNode")
        for side, half in zip(sides, (life.halves * 2)[:2], strict=True):
            final = half[-1]["octets"]
            assert story[-1][f"octetTotalCount{side}"] == final
            assert sum(int(row[f"octetDeltaCount{side}"]) for row in story) == final


def _of_the_client(row: Row) -> Row:
    """The counters of a record that has the server for its source, seen from the client's side."""
    sides = {
        "": "",
        "FromSourceNode": "FromDestinationNode",
        "FromDestinationNode": "FromSourceNode",
    }
    turned_row = dict(row)
    for what in ("TotalCount", "DeltaCount"):
        for side, other in sides.items():
            turned_row[f"octet{what}{side}"] = row[f"reverseOctet{what}{other}"]
    return turned_row
