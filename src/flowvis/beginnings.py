"""When connections began, by what their records say of time."""

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch

_WHEN = (
    *(("flowStartMilliseconds", 1), ("flowStartSeconds", 1000)),
    *(("flowEndMilliseconds", 1), ("flowEndSeconds", 1000)),
)
"""What says when a connection began, or was seen, the best first, and how many ms its unit has."""


def began_ms(batch: Batch, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.uint64]:
    """Return when connections began, or were seen where their record does not say."""
    times = np.zeros(len(batch), dtype=np.uint64)[rows]
    for name, ms in _WHEN:
        unreported = times == 0
        if not unreported.any():
            break
        if name in batch:
            found = batch[name][rows].astype(np.uint64) * np.uint64(ms)
            times = np.where(unreported, found, times)
    return times
