"""Records and rows turned round: the same connection with client and server exchanged.

Who opened a connection is what the first packet that a node's conntrack saw says, and two nodes may
have seen different ones first: after a flush of one table, or where both endpoints speak at once.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.layout import COUNTED, HELD, SIDES, base, last
from flowvis.aggregator.correlation.rows import LiveRows
from flowvis.aggregator.correlation.verdicts import ENDING
from flowvis.batch import Column
from flowvis.fields import COUNTERPARTS, Field, FlowType, Side
from flowvis.native.contract.merge import FlowState, Sides

_PAIRS = tuple(
    (name, other) for name, other in COUNTERPARTS.items() if other is not None and name < other
)
_WITHOUT = tuple(name for name, other in COUNTERPARTS.items() if other is None)
_FLOW_TYPES = np.arange(256, dtype=np.uint8)
_FLOW_TYPES[[FlowType.TO_EXTERNAL, FlowType.FROM_EXTERNAL]] = (
    FlowType.FROM_EXTERNAL,
    FlowType.TO_EXTERNAL,
)


def reverse(columns: Mapping[str, Column], rows: NDArray[np.int64]) -> None:
    """Turn some records of the exporter's columns round, in place.

    Each field takes its counterpart's values (`flowvis.fields.COUNTERPARTS`); what has none is
    then not known. A policy stays with the endpoint that it decided at.
    """
    for name, other in _PAIRS:
        here, there = columns[name], columns[other]
        kept = here[rows]
        here[rows] = there[rows]
        there[rows] = kept
    for name in _WITHOUT:
        columns[name][rows] = 0
    columns["flowType"][rows] = _FLOW_TYPES[columns["flowType"][rows]]


def reverse_rows(live: LiveRows, slots: NDArray[np.int64]) -> None:
    """Turn live flows round: what either side counted, and which side it is, included."""
    columns = {name: live.rows[name] for name in live.rows.dtype.names or ()}
    for name, other in _ROW_PAIRS:
        kept = columns[name][slots]
        columns[name][slots] = columns[other][slots]
        columns[other][slots] = kept
    for name in _WITHOUT:
        columns[name][slots] = 0
    columns["flowType"][slots] = _FLOW_TYPES[columns["flowType"][slots]]
    for name in ("sideStart", "sideEnd", "exporters"):
        columns[name][slots] = columns[name][slots][:, ::-1]
    live.state[slots] = _reversed_state(live.state[slots])


def _reversed_state(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The state of the same flows with client and server exchanged."""
    turned = state ^ np.uint64(FlowState.REVERSED)
    for shift in (FlowState.SIDES, FlowState.ENDS, FlowState.LEANS, ENDING):
        both = np.uint64(Sides.BOTH << shift)
        one, other = (np.uint64(half << shift) for half in (Sides.SOURCE, Sides.DESTINATION))
        turned &= ~both
        turned |= np.where(state & one, other, np.uint64(0))
        turned |= np.where(state & other, one, np.uint64(0))
    return np.asarray(turned)


_OTHER_SIDE = {
    Side.COMMON: Side.COMMON,
    Side.SOURCE: Side.DESTINATION,
    Side.DESTINATION: Side.SOURCE,
}
_RATES = {"throughput": "reverseThroughput", "reverseThroughput": "throughput"}


def _in_row(field: Field) -> str | None:
    """The field of a row that has this one's value once the row is reversed."""
    plain = base(field)
    opposite = (COUNTERPARTS | _RATES)[plain]
    side = _OTHER_SIDE[field.side]
    suffix = "" if side is Side.COMMON else f"From{side.value.capitalize()}Node"
    return opposite and opposite + suffix


def _row_pairs() -> tuple[tuple[str, str], ...]:
    counterparts = {field.name: other for field in HELD if (other := _in_row(field))}
    for side in SIDES:
        for counter in COUNTED:
            opposite = COUNTERPARTS[counter] or counter
            counterparts[last(counter, side)] = last(opposite, _OTHER_SIDE[side])
    return tuple((name, other) for name, other in counterparts.items() if name < other)


_ROW_PAIRS = _row_pairs()
