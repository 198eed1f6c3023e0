"""What denied a connection is said of what it denied, and not of what was let through later."""

from typing import Any

import numpy as np
import pytest

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.reversal import reverse_rows
from flowvis.batch import Batch
from flowvis.fields import EndReason, RuleAction

from .exported import DESTINATION_HALF, SOURCE_HALF, START_MS, counted, exported

Row = dict[str, Any]
Verdict = tuple[int, int, str]
CLIENT = {name: value for name, value in SOURCE_HALF.items() if "NetworkPolicy" not in name}
SERVER = {name: value for name, value in DESTINATION_HALF.items() if "NetworkPolicy" not in name}
REJECTED: Row = {
    "ingressNetworkPolicyName": "closed",
    "ingressNetworkPolicyNamespace": "back",
    "ingressNetworkPolicyType": 1,
    "ingressNetworkPolicyRuleAction": RuleAction.REJECT,
    "tcpState": "",
}
SIDES = ("Source", "Destination")
LET_THROUGH = {"flowStartMilliseconds": START_MS + 7000}


class Table:
    """A table, and what it has written: octets, the action at the server, and by what."""

    def __init__(self) -> None:
        self.flows = FlowTable(max_flows=64)

    def add(self, seconds: int, *rows: Row) -> None:
        end = {"flowEndMilliseconds": START_MS + 1000 * seconds}
        batch = exported(self.flows.strings, *(row | end for row in rows))
        self.flows.add(batch, START_MS + 1000 * seconds)
        assert self.flows.stats.imbalance == 0

    def due(self, seconds: int) -> list[Verdict]:
        return self._read(self.flows.due(START_MS + 1000 * seconds))

    def _read(self, batch: Batch) -> list[Verdict]:
        assert self.flows.stats.imbalance == 0
        octets = batch["octetDeltaCount"].tolist()
        actions = batch["ingressNetworkPolicyRuleAction"].tolist()
        names = batch.texts("ingressNetworkPolicyName")
        spaces = batch.texts("ingressNetworkPolicyNamespace")
        assert [bool(name) for name in spaces] == [bool(action) for action in actions]
        return list(zip(octets, actions, names, strict=True))


def denied(table: Table) -> None:
    """Three packets that the server's node rejects, as both nodes tell it."""
    table.add(18, SERVER | REJECTED | counted(300), CLIENT | counted(300))


def test_what_is_let_through_is_no_more_denied() -> None:
    """The server's node tells of its new connection before the client's goes on."""
    table = Table()
    denied(table)
    assert table.due(19) == [(300, RuleAction.REJECT, "closed")]
    table.add(60, SERVER | LET_THROUGH | counted(7100))
    table.add(61, CLIENT | counted(7400, 7100))
    assert table.due(122) == [(7100, 0, "")]
    again = counted(9100, 2000), counted(9400, 2000)
    table.add(130, SERVER | LET_THROUGH | again[0], CLIENT | again[1])
    assert table.due(191) == [(2000, 0, "")]


def test_it_is_so_where_the_client_tells_first() -> None:
    table = Table()
    denied(table)
    table.due(19)
    table.add(60, CLIENT | counted(7400, 7100))
    table.add(61, SERVER | LET_THROUGH | counted(7100))
    # What waits may have been denied: it is said of it, for the last time.
    assert table.due(122) == [(7100, RuleAction.REJECT, "closed")]
    table.add(130, SERVER | LET_THROUGH | counted(9100, 2000))
    assert table.due(191) == [(2000, 0, "")]


def test_a_denial_that_waits_is_written() -> None:
    """The halves meet only when it is over."""
    table = Table()
    table.add(18, SERVER | REJECTED | counted(300))
    table.add(60, SERVER | LET_THROUGH | counted(7100))
    table.add(61, CLIENT | counted(7400))
    assert table.due(62) == [(7400, RuleAction.REJECT, "closed")]
    ended = {"flowEndReason": EndReason.END}
    table.add(70, SERVER | LET_THROUGH | counted(7200, 100) | ended)
    table.add(71, CLIENT | counted(7500, 100) | ended)
    assert table.due(72) == [(100, 0, "")]


def test_it_stays_with_its_side_where_a_row_is_turned_round() -> None:
    table = Table()
    table.add(18, SERVER | REJECTED | counted(300))
    table.add(60, SERVER | LET_THROUGH | counted(7100))
    table.add(61, CLIENT | counted(7400))
    for _ in range(2):
        reverse_rows(table.flows._live, np.flatnonzero(table.flows._live.state))
    table.due(62)
    table.add(70, SERVER | LET_THROUGH | counted(7200, 100), CLIENT | counted(7500, 100))
    assert table.due(200) == [(100, 0, "")]


def test_what_is_denied_amid_a_connection_is_denied() -> None:
    table = Table()
    table.add(5, SERVER | counted(500), CLIENT | counted(500))
    assert table.due(6) == [(500, 0, "")]
    table.add(30, SERVER | REJECTED | LET_THROUGH | counted(200))
    table.add(31, CLIENT | counted(700, 200))
    assert table.due(92) == [(200, RuleAction.REJECT, "closed")]


def test_the_other_node_s_new_beginning_says_nothing_of_it() -> None:
    """The client's conntrack is flushed while the server's node goes on to deny."""
    table = Table()
    denied(table)
    table.due(19)
    table.add(40, SERVER | REJECTED | counted(500, 200))
    table.add(41, CLIENT | LET_THROUGH | counted(200))
    assert table.due(80) == [(200, RuleAction.REJECT, "closed")]
    table.add(90, SERVER | REJECTED | counted(600, 100))
    table.add(91, CLIENT | LET_THROUGH | counted(300, 100))
    assert table.due(200) == [(100, RuleAction.REJECT, "closed")]


def test_a_retry_that_is_let_through_may_be_over_at_once() -> None:
    """A request that takes 40 ms: whichever node tells of it first, it counts once."""
    ended = {"flowEndReason": EndReason.END, "flowEndMilliseconds": START_MS + 7040}
    tells = [SERVER | LET_THROUGH | counted(900) | ended, CLIENT | counted(1200) | ended]
    for order in (tells, tells[::-1]):
        table = Table()
        table.add(6, SERVER | REJECTED | counted(300))
        for record in order:
            batch = exported(table.flows.strings, record)
            table.flows.add(batch, START_MS + 9000)
        written = [*table.due(10), *table.due(200)]
        assert written == [(1200, RuleAction.REJECT, "closed")]


@pytest.mark.parametrize("turn", [False, True])
def test_what_an_aggregator_passes_on_is_denied_as_long_as_it_says_so(turn: bool) -> None:
    """The other one has made one record of both nodes', and knows when it is over."""
    table = Table()
    both: Row = {"bothNodesCounted": 1}
    if turn:  # so that the source is the second endpoint of the key
        both |= {"sourceIP": "10.0.1.1", "destinationIP": "10.0.0.1"}
    for seconds, octets, delta, verdict, said in (
        (18, 300, 300, REJECTED, RuleAction.REJECT),
        (80, 7400, 7100, {}, 0),
        (140, 9400, 2000, {}, 0),
        (200, 9500, 100, REJECTED, RuleAction.REJECT),
    ):
        counters = counted(octets, delta)
        nodes = {f"{name}From{node}Node": counters[name] for name in counters for node in SIDES}
        table.add(seconds, CLIENT | SERVER | both | counters | nodes | verdict)
        ((found, action, _),) = [*table.due(seconds), *table.due(seconds + 60)]
        assert (found, action) == (delta, said)
