"""The compiled LZ4 leaf: columns of wide values to one block of the LZ4 format.

The rules are in `flowvis.native.reference.lz4`; contract: `flowvis.native.contract.lz4`.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from flowvis.native.contract import lz4 as contract

cdef extern from *:
    """
    #include <endian.h>
    #include <string.h>

    /* Eight bytes, the first one lowest. */
    static inline uint64_t flowvis_word(const uint8_t *at) {
        uint64_t word;
        memcpy(&word, at, 8);
        return le64toh(word);
    }
    """
    uint64_t flowvis_word(const uint8_t *at) nogil
    int __builtin_ctzll(unsigned long long) nogil
    int __builtin_clzll(unsigned long long) nogil

cdef enum:
    MIN_MATCH = 4
    TAIL = 12  # literals at a block's end: no match begins in it
    SHORT = 15  # from here on a length goes on behind its half of the token
    WORD = 8


cdef struct Packed:
    uint8_t *out  # where the next sequence goes
    uint8_t *held  # literals of parts that are over, which come before those of the current one
    Py_ssize_t holding


cdef inline uint8_t *_rest(uint8_t *out, Py_ssize_t length) noexcept nogil:
    """Write what of a length does not fit into the token."""
    while length >= 255:
        out[0] = 255
        out += 1
        length -= 255
    out[0] = <uint8_t>length
    return out + 1


cdef inline void _literals(
    Packed *to, const uint8_t *literals, Py_ssize_t count, uint8_t match
) noexcept nogil:
    """Write a token, with the half that is the match's, and the literals: held ones, then these."""
    cdef uint8_t *out = to.out
    cdef Py_ssize_t length = to.holding + count
    if length < SHORT:
        out[0] = <uint8_t>(length << 4) | match
        out += 1
    else:
        out[0] = SHORT << 4 | match
        out = _rest(out + 1, length - SHORT)
    if to.holding:
        memcpy(out, to.held, to.holding)
        out += to.holding
        to.holding = 0
    if count <= WORD:
        memcpy(out, literals, WORD)  # a word is faster than what is asked; a part goes on so far
    else:
        memcpy(out, literals, count)
    to.out = out + count


cdef inline void _sequence(
    Packed *to, const uint8_t *literals, Py_ssize_t count, Py_ssize_t length, int distance
) noexcept nogil:
    """Write literals and the match behind them."""
    cdef Py_ssize_t more = length - MIN_MATCH
    _literals(to, literals, count, <uint8_t>(more if more < SHORT else SHORT))
    to.out[0] = <uint8_t>(distance & 0xFF)
    to.out[1] = <uint8_t>(distance >> 8)
    to.out += 2
    if more >= SHORT:
        to.out = _rest(to.out, more - SHORT)


cdef void _part(Packed *to, const uint8_t *data, Py_ssize_t n, int width) noexcept nogil:
    """Compress a part, all but its last literals, which are held."""
    cdef Py_ssize_t at = width, begins = width, written = 0, stop, end = n - TAIL - WORD
    cdef uint64_t differs
    while at <= end:
        differs = flowvis_word(data + at) ^ flowvis_word(data + at - width)
        if differs:
            stop = at + (__builtin_ctzll(differs) >> 3)
            if stop - begins >= MIN_MATCH:
                _sequence(to, data + written, begins - written, stop - begins, width)
                written = stop
            begins = at + WORD - (__builtin_clzll(differs) >> 3)
        at += WORD
    if at - begins >= MIN_MATCH:
        _sequence(to, data + written, begins - written, at - begins, width)
        written = at
    memcpy(to.held + to.holding, data + written, n - written)
    to.holding += n - written


def pack_columns(parts):
    """Return the LZ4 block of `parts`; see the reference."""
    cdef Py_ssize_t size = contract.check_parts(parts)
    cdef Packed to
    cdef uint8_t *block
    cdef const uint8_t[::1] data
    cdef int width
    cdef uint8_t nothing[8]
    cdef Py_ssize_t room = size + size // 255 + 3 * WORD  # a match of 4 takes 3, or 4, at most
    block = <uint8_t *>PyMem_RawMalloc(room)
    to.held = <uint8_t *>PyMem_RawMalloc(size + WORD)
    to.holding = 0
    to.out = block
    memset(nothing, 0, 8)
    try:
        if not block or not to.held:
            raise MemoryError(f"no room for an LZ4 block of {size} bytes")
        for piece, width in parts:
            data = piece
            if len(data):
                with nogil:
                    _part(&to, &data[0], len(data), width)
        _literals(&to, nothing, 0, 0)
        return PyBytes_FromStringAndSize(<char *>block, to.out - block)
    finally:
        PyMem_RawFree(block)
        PyMem_RawFree(to.held)
