"""Connections that several exporters saw and none knows to be a half: hosts outside of clusters.

Where nothing else tells the halves apart (flowType 0, or from outside without the proxy's SNAT),
the exporter does. The first one to report a connection stands for both sides, as who tells alone
does; when another one reports it too, the first keeps the source's side and the other gets the
destination's. Without this the counters of two hosts, which never agree at one moment, would look
like one counter that starts again and again.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.rows import LiveRows
from flowvis.batch import Batch
from flowvis.fields import FIELDS, FlowType, Merge, Side
from flowvis.ipfix.buffer import DOMAIN
from flowvis.native.contract.merge import FlowState, Sides

_SEEN_BY_SEVERAL = (FlowType.UNSPECIFIED, FlowType.FROM_EXTERNAL)
_TOTALS = tuple(
    field.name for field in FIELDS if field.merge is Merge.TOTAL and field.side is Side.DESTINATION
)
_DESTINATION = np.uint64((1 << FlowState.SIDES | 1 << FlowState.ENDS) * Sides.DESTINATION)


def give_sides(
    batch: Batch, sides: NDArray[np.uint8], slots: NDArray[np.int64], live: LiveRows
) -> None:
    """Narrow records' `Half` bits, in place, to the side that their exporter has.

    An exporter is its observation domain (RFC 7011 section 3.1); 0 is nobody's in particular.
    """
    if DOMAIN not in batch.columns:
        return
    wanted = (sides == Sides.BOTH) & (slots >= 0) & (batch[DOMAIN] != 0)
    rows = np.flatnonzero(wanted & np.isin(batch["flowType"], _SEEN_BY_SEVERAL))
    if not len(rows):
        return
    domains, at = batch[DOMAIN][rows], slots[rows]
    observers = live.rows["observers"]
    fresh = observers[at, 0] == 0
    first, where = np.unique(at[fresh], return_index=True)
    observers[first] = domains[fresh][where][:, None]
    other = (observers[at] != domains[:, None]).all(axis=1)
    second, where = np.unique(at[other], return_index=True)
    observers[second, 1] = domains[other][where]
    live.state[second] &= ~_DESTINATION
    for name in _TOTALS:  # they were the first one's
        live.rows[name][second] = 0
    source, destination = observers[at].T
    side = np.where(domains == source, Sides.SOURCE, Sides.DESTINATION)
    sides[rows] = np.where(source == destination, Sides.BOTH, side)
