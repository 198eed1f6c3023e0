"""Two rows of one connection: a node's conntrack was flushed amid it, which showed only later."""

from collections.abc import Sequence

import numpy as np

from flowvis.aggregator.correlation.layout import COUNTED, HELD, SIDES, last
from flowvis.fields import EndReason, Merge
from flowvis.native.contract.merge import MAX_U64

_GREATEST = tuple(f.name for f in HELD if f.merge in (Merge.END, Merge.RATE))
_LATEST = tuple(f.name for f in HELD if f.merge is Merge.LATEST)


def join_rows(row: np.void, later: np.void, sides: Sequence[int]) -> None:
    """Bring what some sides (0 or 1) counted from 0 again, in a row of its own, into the first.

    As in the merge leaf, numbers stay at the largest rather than start again from zero.
    """
    for counter in COUNTED:
        delta = counter.replace("Total", "Delta")
        counted = sum(int(one[counter]) - int(one[delta]) for one in (row, later))
        for side in sides:
            node = f"From{SIDES[side].value.capitalize()}Node"
            for name in (f"{counter}{node}", f"{delta}{node}"):
                row[name] = min(int(row[name]) + int(later[name]), MAX_U64)
            row[last(counter, SIDES[side])] = later[last(counter, SIDES[side])]
        totals = [int(row[f"{counter}From{side.value.capitalize()}Node"]) for side in SIDES]
        row[counter] = min(max(counted, *totals), MAX_U64)
        row[delta] = max(int(row[counter]) - counted, 0)
    latest = later["flowEndMilliseconds"] >= row["flowEndMilliseconds"]
    if latest and row["flowEndReason"] != EndReason.END:
        row["flowEndReason"] = later["flowEndReason"]
    for side in sides:
        for name in ("sideStart", "sideEnd", "exporters"):
            row[name][side] = later[name][side]
    for name in _GREATEST:
        row[name] = max(row[name], later[name])
    for name in _LATEST:
        row[name] = later[name] if latest and later[name] else row[name]
    row["written"] = max(row["written"], later["written"])
