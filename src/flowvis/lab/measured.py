"""Checks of what only the run can tell: times, states, rates, and how columns agree with others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flowvis.conntrack.names import TCP_STATES
from flowvis.fields import EndReason
from flowvis.lab.expectation import SIDES
from flowvis.lab.scenarios import Outcome, Scenario

Row = Mapping[str, Any]
"""A stored record: the columns of `flows` by name, times in seconds."""

COUNTERS = ("packet", "octet", "reversePacket", "reverseOctet")
RATES = {"throughput": "octet", "reverseThroughput": "reverseOctet"}

INTERVAL = "monitoringIntervalStartMilliSeconds"
TIMES = (
    "timeInserted",
    "flowStartSeconds",
    "flowEndSeconds",
    *(f"flowEndSeconds{side}" for side in SIDES),
)

COUNTED = tuple(
    f"{counter}{kind}Count{side}"
    for counter in COUNTERS
    for kind in ("Delta", "Total")
    for side in ("", *SIDES)
)
RATED = tuple(f"{rate}{side}" for rate in RATES for side in ("", *SIDES))
STATES = ("flowEndReason", "tcpState")

MEASURED = (*TIMES, INTERVAL, *STATES, *COUNTED, *RATED)
"""The columns that are checked here, and by the verdict's own counting."""

CLOSED = {"TIME_WAIT", "CLOSE"}
UNANSWERED = {Outcome.SILENCE: "SYN_SENT", Outcome.REFUSED: "CLOSE"}

STEADY_S = 1.5  # an interval that has several exchanges in it
LENIENCY = 5  # of a rate over a part of such an interval, on a machine that may stall


@dataclass(frozen=True)
class Run:
    """When a run was, in seconds since the epoch, and what it was like."""

    began: int
    ended: int
    split: bool = False
    """The aggregator was restarted, so that the halves of a connection may have gone to the one
    before and the one after, and be stored side by side."""
    deaf: tuple[float, float] | None = None
    """When exporters were restarted, from and to: what one reported as it ended, the next one tells
    more of."""
    pauses: Sequence[tuple[float, float]] = ()
    """When clients made a pause, from and to."""


@dataclass(frozen=True)
class MeasuredConnection:
    """One connection: the records of its intervals in order, and what is known of it."""

    scenario: Scenario
    rows: Sequence[Row]
    tracked: bool
    """Whether conntrack had an entry of it."""


def problems(connection: MeasuredConnection, run: Run) -> Iterator[str]:
    """Go through what is wrong with a connection's records."""
    for check in _CHECKS:
        yield from check(connection, run)
    for check in () if run.split else _WHOLE:
        yield from check(connection, run)


def _times(connection: MeasuredConnection, run: Run) -> Iterator[str]:
    for row in connection.rows:
        start, end, inserted = (
            row[name] for name in ("flowStartSeconds", "flowEndSeconds", "timeInserted")
        )
        if not run.began - 1 <= start <= end <= inserted <= run.ended + 1:
            yield (
                f"start {start}, end {end}, inserted {inserted}: not in order within the run, "
                f"{run.began} to {run.ended}"
            )


def _node_ends(connection: MeasuredConnection, _: Run) -> Iterator[str]:
    for row in connection.rows:
        start, end = row["flowStartSeconds"], row["flowEndSeconds"]
        ends = [row[f"flowEndSeconds{side}"] for side in SIDES]
        if max(ends) != end or min(ends) < start:
            yield f"flowEndSeconds of the nodes are {ends}, in common {end}"


def _intervals(connection: MeasuredConnection, _: Run) -> Iterator[str]:
    for row in connection.rows:
        if not row["flowStartSeconds"] - 1 <= row[INTERVAL] / 1000 <= row["flowEndSeconds"] + 1:
            yield f"{INTERVAL} is {row[INTERVAL]}, the flow's start {row['flowStartSeconds']}"
    for before, after in pairwise(connection.rows):
        if after[INTERVAL] / 1000 < before["flowEndSeconds"] - 1:
            yield f"an interval from {after[INTERVAL]} overlaps one to {before['flowEndSeconds']}"


def _reasons(connection: MeasuredConnection, run: Run) -> Iterator[str]:
    """Active or idle, and once a node has said that it ended, nothing else."""
    reasons = [row["flowEndReason"] for row in connection.rows]
    going_on = {EndReason.ACTIVE, EndReason.IDLE}
    if not _closed(connection):
        going_on |= {EndReason.END, EndReason.FORCED}
    elif reasons[-1] != EndReason.END:
        yield f"flowEndReason is {reasons[-1]} at the end"
    if run.deaf:
        going_on |= {EndReason.FORCED}
    if connection.scenario.anew:
        going_on |= {EndReason.END}
    earlier = [reason for reason in reasons if reason != EndReason.END]
    if not going_on.issuperset(earlier) or (
        EndReason.END not in going_on and reasons[: len(earlier)] != earlier
    ):
        yield f"flowEndReason is {reasons}"


def _states(connection: MeasuredConnection, _: Run) -> Iterator[str]:
    states = [row["tcpState"] for row in connection.rows]
    if connection.scenario.protocol != "tcp" or not connection.tracked:
        allowed, last = {""}, {""}
    elif _closed(connection):
        allowed, last = set(TCP_STATES) - {"NONE"}, CLOSED
    else:
        allowed = last = {UNANSWERED[connection.scenario.outcome]}
    if not allowed.issuperset(states):
        yield f"tcpState is {states}"
    elif states[-1] not in last:
        yield f"tcpState is {states[-1]!r} at the end"


def _closed(connection: MeasuredConnection) -> bool:
    scenario = connection.scenario
    return scenario.protocol == "tcp" and scenario.outcome is Outcome.ANSWERED


def _rates(connection: MeasuredConnection, run: Run) -> Iterator[str]:
    *earlier, _last = connection.rows
    for row in connection.rows:
        for rate, counter in RATES.items():
            own, sides = row[rate], [row[rate + side] for side in SIDES]
            if own not in sides:
                yield f"{rate} is {own}, but {sides} on the nodes"
            if own > 8000 * row[f"{counter}TotalCount"]:
                yield f"{rate} is {own}: more than all bytes in a millisecond"
    # The last interval of a node may have little of the traffic, or nothing.
    for row in earlier if connection.scenario.steady else ():
        if any(_overlap(row, *gap) for gap in (*run.pauses, *([run.deaf] if run.deaf else ()))):
            continue  # the rate is that of the part after it, the delta that of both
        seconds = row["flowEndSeconds"] - row[INTERVAL] / 1000
        for rate, counter in RATES.items() if seconds > STEADY_S else ():
            delta, total = row[f"{counter}DeltaCount"], row[f"{counter}TotalCount"]
            if run.split and not row[rate] and delta < total:
                continue  # the next aggregator did not see its interval begin
            mean = 8 * delta / seconds
            if not mean / LENIENCY <= row[rate] <= mean * LENIENCY:
                yield f"{rate} is {row[rate]}, {mean:.0f} in the mean over {seconds:.1f} s"


def _overlap(row: Row, began_s: float, ended_s: float) -> bool:
    return bool(row[INTERVAL] / 1000 <= ended_s and row["flowEndSeconds"] + 1 >= began_s)


def _per_node(connection: MeasuredConnection, _: Run) -> Iterator[str]:
    """The deltas of each node add up to its totals."""
    if connection.scenario.anew:
        return
    last = {row["flowStartSeconds"]: row for row in connection.rows}
    for side in SIDES:
        for counter in COUNTERS:
            reported = sum(row[f"{counter}DeltaCount{side}"] for row in connection.rows)
            total = sum(row[f"{counter}TotalCount{side}"] for row in last.values())
            if reported != total:
                yield f"{counter}DeltaCount{side} sums up to {reported}, the total is {total}"


_Check = Callable[[MeasuredConnection, Run], Iterator[str]]

_CHECKS: tuple[_Check, ...] = (_times, _rates)
_WHOLE: tuple[_Check, ...] = (_node_ends, _intervals, _reasons, _states, _per_node)
"""What holds unless a connection's halves are stored side by side."""
