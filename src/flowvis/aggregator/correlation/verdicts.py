"""What denied a connection, where its node lets it through later.

A client goes on trying what is denied, in one connection of its kernel's. When a policy is changed
amid that, the node that denied has a connection of its own from then on, and no record of it says
that nothing denies it any more. So a row forgets it: at once, or, where packets that were denied
are still to be written, with that record.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.layout import HELD
from flowvis.aggregator.correlation.relayed import STOPPED
from flowvis.aggregator.correlation.rows import LiveRows
from flowvis.batch import Column
from flowvis.fields import Source
from flowvis.ipfix.origin import AGGREGATED
from flowvis.native.contract.merge import FlowState

ENDING = 16
"""Shift of two bits of a row's state, beside those of `FlowState`: sides that denied what is still
to be written, and deny no more."""

_DIRECTIONS = ("egress", "ingress")  # decided at the source, at the destination
_FIELDS = tuple(
    tuple(f.name for f in HELD if f.source is Source.VERDICT and f.name.startswith(direction))
    for direction in _DIRECTIONS
)


def is_denied(live: LiveRows, slot: int, sides: int) -> bool:
    """Whether some sides of a row (`Half` bits) say that they denied it."""
    return any(
        live.rows[f"{direction}NetworkPolicyRuleAction"][slot] in STOPPED
        for side, direction in enumerate(_DIRECTIONS)
        if sides >> side & 1
    )


def end_verdicts(live: LiveRows, slot: int, sides: Sequence[int]) -> None:
    """Let a row forget, when it is written, that some sides (0 or 1) denied it."""
    for side in sides:
        if is_denied(live, slot, 1 << side):
            if live.state[slot] & FlowState.UNWRITTEN:
                live.state[slot] |= np.uint64(1 << ENDING << side)
            else:
                _forget(live, np.array([slot]), side)


def end_relayed_verdicts(
    live: LiveRows,
    columns: Mapping[str, Column],
    slots: NDArray[np.int64],
    turned: NDArray[np.bool_],
) -> None:
    """Let rows forget what another aggregator's records of both nodes say no more.

    `turned`: which of the records have their source as the second endpoint of their key.
    """
    if AGGREGATED not in columns:
        return
    whole = (columns[AGGREGATED] != 0) & (slots >= 0)
    whole[whole] = ((live.state[slots[whole]] & FlowState.REVERSED) != 0) == turned[whole]
    for side, direction in enumerate(_DIRECTIONS):
        action = f"{direction}NetworkPolicyRuleAction"
        silent = np.unique(slots[whole & (columns[action] == 0)])
        for slot in silent[np.isin(live.rows[action][silent], STOPPED)].tolist():
            end_verdicts(live, slot, [side])


def join_verdicts(live: LiveRows, slot: int, later: np.void, sides: Sequence[int]) -> None:
    """Have a row say what some sides decided in a later one of the same connection."""
    end_verdicts(live, slot, sides)
    for side in sides:
        decided = {name: later[name] for name in _FIELDS[side] if later[name]}
        if decided:
            _forget(live, np.array([slot]), side)
            live.state[slot] &= ~np.uint64(1 << ENDING << side)
            for name, value in decided.items():
                live.rows[name][slot] = value


def forget_verdicts(live: LiveRows, slots: NDArray[np.int64], state: NDArray[np.uint64]) -> None:
    """Let rows that are written, in some states until then, forget what denied them before."""
    for side in (0, 1):
        ended = slots[(state >> np.uint64(ENDING + side) & np.uint64(1)) != 0]
        if len(ended):
            _forget(live, ended, side)
            live.state[ended] &= ~np.uint64(1 << ENDING << side)


def _forget(live: LiveRows, slots: NDArray[np.int64], side: int) -> None:
    for name in _FIELDS[side]:
        live.rows[name][slots] = 0
