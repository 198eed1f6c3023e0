"""The compiled rates leaf; see the reference."""

from libc.stdint cimport uint64_t

import numpy as np

from flowvis.native.contract import rates as contract

cdef uint64_t BITS = contract.BITS_PER_OCTET_MS
cdef uint64_t LARGE_RATE = contract.LARGE_RATE
cdef uint64_t LARGE_INTERVAL = contract.LARGE_INTERVAL


cdef inline uint64_t _over(uint64_t dividend, uint64_t divisor) noexcept nogil:
    return dividend // divisor if divisor else 0


cdef inline bint _explains(uint64_t interval, uint64_t bits, uint64_t rate) noexcept nogil:
    return (
        (bits - rate * interval < interval) & (rate < LARGE_RATE) & (interval < LARGE_INTERVAL)
    )


def explain(octets, rates, reply_octets, reply_rates, known):
    """See the reference."""
    contract.check(octets, rates, reply_octets, reply_rates, known)
    cdef const uint64_t[:] counted = octets, found = rates
    cdef const uint64_t[:] replies = reply_octets, reply_found = reply_rates
    cdef const uint64_t[:] guesses = counted if known is None else known
    cdef bint guessed = known is not None
    cdef Py_ssize_t row, rows = counted.shape[0]
    cdef uint64_t bits, rate, reply_bits, reply_rate, interval
    made = np.zeros((3, rows), np.uint64)
    cdef uint64_t[::1] intervals = made[0], residuals = made[1], reply_residuals = made[2]
    with nogil:
        for row in range(rows):
            bits, rate = counted[row] * BITS, found[row]
            reply_bits, reply_rate = replies[row] * BITS, reply_found[row]
            if guessed:
                interval = guesses[row]
                if _explains(interval, bits, rate) and _explains(interval, reply_bits, reply_rate):
                    intervals[row] = interval
                    continue
            if bits >= reply_bits:
                interval = _over(bits, rate)
            else:
                interval = _over(reply_bits, reply_rate)
            intervals[row] = interval
            residuals[row] = rate - _over(bits, interval)
            reply_residuals[row] = reply_rate - _over(reply_bits, interval)
    return made[0], made[1], made[2]
