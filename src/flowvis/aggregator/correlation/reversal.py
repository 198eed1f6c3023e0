"""Records turned round: the same connection with client and server exchanged.

Who opened a connection is what the first packet that a node's conntrack saw says, and two nodes may
have seen different ones first: after a flush of one table, or where both endpoints speak at once.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.fields import COUNTERPARTS, FlowType

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
