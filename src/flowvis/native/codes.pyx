"""The compiled codes leaf; see the reference."""

from libc.stdint cimport uint32_t

import numpy as np


def distinct(codes, scratch):
    """See the reference."""
    cdef const uint32_t[:] wanted = codes
    cdef uint32_t[::1] numbers = scratch
    cdef Py_ssize_t rows = wanted.shape[0], size = numbers.shape[0], row, first
    cdef uint32_t code, number, found = 0
    places_of = np.empty(rows, np.uint32)
    used_of = np.empty(min(rows, size), np.uint32)
    cdef uint32_t[::1] places = places_of, used = used_of
    with nogil:
        for row in range(rows):
            code = wanted[row]
            if code >= size:
                break
            number = numbers[code]
            if number == 0:  # not seen yet
                used[found] = code
                found += 1
                number = numbers[code] = found
            places[row] = number - 1
        else:
            row = rows
        for first in range(found):
            numbers[used[first]] = 0
    if row < rows:
        raise IndexError(f"code {code} of a table of {size}")
    return used_of[:found], places_of
