"""The reference for intervals: of what time a side's throughput in both directions is of.

A rate (bits a second) is whole octets over an interval, rounded down. It tells the interval the
better the more octets there are. All arithmetic is modulo 2^64; what is divided by 0 is 0.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.native.contract.rates import (
    BITS_PER_OCTET_MS,
    LARGE_INTERVAL,
    LARGE_RATE,
    Numbers,
    check,
)


def explain(
    octets: Numbers,
    rates: Numbers,
    reply_octets: Numbers,
    reply_rates: Numbers,
    known: Numbers | None,
) -> tuple[Numbers, Numbers, Numbers]:
    """Return an interval (ms) for each row, and by how much both rates are more than it explains.

    That is the `known` interval where it explains both; else the busier direction tells it. Where
    that is not the very one that the rates were made with, it gives the same rate. Of large
    numbers, which no record has, the known one is not taken. ValueError for columns that do not
    fit each other.
    """
    check(octets, rates, reply_octets, reply_rates, known)
    bits, reply_bits = (
        counted * np.uint64(BITS_PER_OCTET_MS) for counted in (octets, reply_octets)
    )
    ahead = bits >= reply_bits
    interval = _over(np.where(ahead, bits, reply_bits), np.where(ahead, rates, reply_rates))
    if known is not None:
        explained = _explains(known, bits, rates) & _explains(known, reply_bits, reply_rates)
        interval = np.where(explained, known, interval)
    return interval, rates - _over(bits, interval), reply_rates - _over(reply_bits, interval)


def _explains(interval: Numbers, bits: Numbers, rates: Numbers) -> NDArray[np.bool_]:
    small = (rates < LARGE_RATE) & (interval < LARGE_INTERVAL)
    return np.asarray(small & (bits - rates * interval < interval))


def _over(dividend: Numbers, divisor: Numbers) -> Numbers:
    quotient = dividend // np.maximum(divisor, np.uint64(1))
    return np.where(divisor == 0, np.uint64(0), quotient)
