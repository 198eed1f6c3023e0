"""The compiled flow leaf: an index of fixed-size keys.

Reference and contract: `flowvis.native.reference.flows`.
"""

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from flowvis.native.hashing cimport flowvis_hash

import os

import numpy as np

from flowvis.native.contract.flows import check_columns, check_index, check_keys, width

cnp.import_array()

cdef extern from *:
    """
    #include <string.h>
    #define flowvis_prefetch(address) __builtin_prefetch((address), 1)
    #define flowvis_lowest_bit(word) __builtin_ctzll(word)

    /* Copy items of one column to where they go in each row: sizes that the compiler knows are a
       move or two, and not a call. */
    static inline void flowvis_spread(uint8_t *rows, int64_t row_size, const uint8_t *items,
                                      int64_t stride, int64_t size, int64_t n) {
    #define FLOWVIS_SPREAD(SIZE) \
        for (int64_t at = 0; at < n; at++) memcpy(rows + at * row_size, items + at * stride, SIZE)
        switch (size) {
            case 1: FLOWVIS_SPREAD(1); break;
            case 2: FLOWVIS_SPREAD(2); break;
            case 4: FLOWVIS_SPREAD(4); break;
            case 8: FLOWVIS_SPREAD(8); break;
            case 16: FLOWVIS_SPREAD(16); break;
            default: FLOWVIS_SPREAD(size);
        }
    }
    """
    void flowvis_spread(uint8_t *rows, int64_t row_size, const uint8_t *items, int64_t stride,
                        int64_t size, int64_t n) nogil
    void flowvis_prefetch(const void *address) nogil
    int flowvis_lowest_bit(uint64_t word) nogil

cdef enum:
    AHEAD = 16  # keys hashed before the first is looked up: enough to hide a cache miss


cdef class FlowIndex:
    """Open addressing, linear probing, deletion by shifting back: no tombstones to clean up.

    A cell is hash << 32 | slot + 1, 0 where free. The keys' array is zeroed lazily by the system:
    what no slot has touched is not resident. A set bit in `vacant` is a free slot; a set bit in
    `vacant_words` is a word of `vacant` that has one.
    """

    cdef uint64_t *cells
    cdef uint64_t *vacant
    cdef uint64_t *vacant_words
    cdef uint8_t *key_bytes
    cdef uint32_t mask
    cdef uint32_t key_size
    cdef int64_t capacity
    cdef int64_t count
    cdef int64_t lowest  # no word of `vacant_words` before this one has a bit set
    cdef uint64_t seed

    def __cinit__(self, int64_t key_size, int64_t capacity):
        check_index(key_size, capacity)
        # Peers choose the keys: without a secret they could choose ones that collide.
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.key_size = <uint32_t>key_size
        self.capacity = capacity
        self.allocate()

    def __dealloc__(self):
        free(self.cells)
        free(self.vacant)
        free(self.vacant_words)
        free(self.key_bytes)

    cdef int allocate(self) except -1:
        cdef int64_t words = (self.capacity + 63) // 64, summary = (words + 63) // 64, at
        self.count = 0
        self.lowest = 0
        self.mask = 1023
        self.cells = <uint64_t *>calloc(self.mask + 1, sizeof(uint64_t))
        self.vacant = <uint64_t *>calloc(words, sizeof(uint64_t))
        self.vacant_words = <uint64_t *>calloc(summary, sizeof(uint64_t))
        # 8 spare bytes: the last key may be read as whole words.
        self.key_bytes = <uint8_t *>calloc(self.capacity + 8, self.key_size)
        if not (self.cells and self.vacant and self.vacant_words and self.key_bytes):
            raise MemoryError
        for at in range(words):
            self.vacant[at] = ~<uint64_t>0
        if self.capacity % 64:
            self.vacant[words - 1] = (<uint64_t>1 << (self.capacity % 64)) - 1
        for at in range(words):
            self.vacant_words[at >> 6] |= <uint64_t>1 << (at & 63)
        return 0

    def __len__(self):
        return self.count

    def clear(self):
        # What is held goes when there is something in its place: without memory all stays.
        cdef FlowIndex fresh = FlowIndex(self.key_size, self.capacity)
        self.cells, fresh.cells = fresh.cells, self.cells
        self.vacant, fresh.vacant = fresh.vacant, self.vacant
        self.vacant_words, fresh.vacant_words = fresh.vacant_words, self.vacant_words
        self.key_bytes, fresh.key_bytes = fresh.key_bytes, self.key_bytes
        self.mask, self.seed = fresh.mask, fresh.seed
        self.count = self.lowest = 0

    def upsert(self, keys not None):
        """Find or add each key; return its slot (-1 where full) and whether it is new."""
        cdef const uint8_t[:, ::1] rows = self.rows(keys)
        cdef int64_t n = rows.shape[0], first, last, row
        slots_array = np.empty(n, dtype=np.int64)
        new_array = np.zeros(n, dtype=bool)
        cdef int64_t[::1] slots = slots_array
        cdef uint8_t[::1] new = new_array.view(np.uint8)
        cdef uint32_t hashes[AHEAD]
        for first in range(0, n, AHEAD):
            last = min(first + AHEAD, n)
            self.grow(last - first)
            self.look_ahead(&rows[first, 0], last - first, hashes)
            for row in range(first, last):
                slots[row] = self.place(&rows[row, 0], hashes[row - first], &new[row])
        return slots_array, new_array

    def find(self, keys not None):
        """Return the slot of each key, -1 where absent."""
        cdef const uint8_t[:, ::1] rows = self.rows(keys)
        cdef int64_t n = rows.shape[0], first, last, row
        slots_array = np.empty(n, dtype=np.int64)
        cdef int64_t[::1] slots = slots_array
        cdef uint32_t hashes[AHEAD]
        for first in range(0, n, AHEAD):
            last = min(first + AHEAD, n)
            self.look_ahead(&rows[first, 0], last - first, hashes)
            for row in range(first, last):
                slots[row] = self.slot_of(&rows[row, 0], hashes[row - first])
        return slots_array

    def remove(self, slots not None):
        """Free slots; ValueError at the first that holds no key (those before it are freed)."""
        cdef const int64_t[::1] wanted = np.ascontiguousarray(slots, dtype=np.int64)
        cdef int64_t at
        for at in range(wanted.shape[0]):
            self.check_slot(wanted[at])
            self.unlink(<uint32_t>wanted[at])

    def keys(self, slots not None):
        """Return the keys of slots; ValueError at the first that holds none."""
        cdef const int64_t[::1] wanted = np.ascontiguousarray(slots, dtype=np.int64)
        cdef int64_t n = wanted.shape[0], at
        array = np.empty((n, self.key_size), dtype=np.uint8)
        cdef uint8_t[:, ::1] rows = array
        for at in range(n):
            self.check_slot(wanted[at])
            memcpy(&rows[at, 0], self.key_bytes + wanted[at] * self.key_size, self.key_size)
        return array

    cdef object rows(self, keys):
        check_keys(keys, self.key_size)
        return np.ascontiguousarray(keys)

    cdef int check_slot(self, int64_t slot) except -1:
        if not 0 <= slot < self.capacity or self.vacant[slot >> 6] >> (slot & 63) & 1:
            raise ValueError(f"slot {slot} holds no key")
        return 0

    cdef void look_ahead(self, const uint8_t *keys, int64_t n, uint32_t *hashes) noexcept nogil:
        """Hash `n` keys and start loading the cells, then the keys, that they will be compared with."""
        cdef int64_t at
        cdef uint64_t cell
        for at in range(n):
            hashes[at] = flowvis_hash(keys + at * self.key_size, self.key_size, self.seed)
            flowvis_prefetch(&self.cells[hashes[at] & self.mask])
        for at in range(n):
            cell = self.cells[hashes[at] & self.mask]
            if cell:
                flowvis_prefetch(self.key_bytes + <uint64_t>(<uint32_t>cell - 1) * self.key_size)

    cdef int64_t slot_of(self, const uint8_t *key, uint32_t hashed) noexcept nogil:
        cdef uint32_t at = hashed & self.mask
        cdef uint64_t cell = self.cells[at], slot
        while cell:
            if cell >> 32 == hashed:
                slot = <uint32_t>cell - 1
                if memcmp(self.key_bytes + slot * self.key_size, key, self.key_size) == 0:
                    return <int64_t>slot
            at = (at + 1) & self.mask
            cell = self.cells[at]
        return -1

    cdef int64_t place(self, const uint8_t *key, uint32_t hashed, uint8_t *new) noexcept nogil:
        cdef int64_t slot = self.slot_of(key, hashed)
        if slot >= 0 or self.count == self.capacity:
            return slot
        slot = self.occupy()
        memcpy(self.key_bytes + slot * self.key_size, key, self.key_size)
        put(self.cells, self.mask, <uint64_t>hashed << 32 | <uint64_t>(slot + 1))
        new[0] = 1
        return slot

    cdef int64_t occupy(self) noexcept nogil:
        """Take the lowest free slot; there is one."""
        cdef int64_t word
        cdef int bit
        while not self.vacant_words[self.lowest]:
            self.lowest += 1
        word = self.lowest * 64 + flowvis_lowest_bit(self.vacant_words[self.lowest])
        bit = flowvis_lowest_bit(self.vacant[word])
        self.vacant[word] &= ~(<uint64_t>1 << bit)
        if not self.vacant[word]:
            self.vacant_words[self.lowest] &= ~(<uint64_t>1 << (word & 63))
        self.count += 1
        return word * 64 + bit

    cdef void unlink(self, uint32_t slot) noexcept nogil:
        """Free a slot and close the gap that its cell leaves in the probe sequence."""
        cdef uint32_t gap, at, home
        gap = flowvis_hash(self.key_bytes + <uint64_t>slot * self.key_size, self.key_size, self.seed)
        gap &= self.mask
        while <uint32_t>self.cells[gap] != slot + 1:
            gap = (gap + 1) & self.mask
        at = gap
        while True:
            at = (at + 1) & self.mask
            if not self.cells[at]:
                break
            home = <uint32_t>(self.cells[at] >> 32) & self.mask
            if ((at - home) & self.mask) >= ((at - gap) & self.mask):
                self.cells[gap] = self.cells[at]
                gap = at
        self.cells[gap] = 0
        self.vacant[slot >> 6] |= <uint64_t>1 << (slot & 63)
        self.vacant_words[slot >> 12] |= <uint64_t>1 << ((slot >> 6) & 63)
        self.lowest = min(self.lowest, <int64_t>(slot >> 12))
        self.count -= 1

    cdef int grow(self, int64_t more) except -1:
        """Make room for `more` keys with the cells at most half full."""
        cdef uint64_t *cells
        cdef uint64_t wanted = min(self.count + more, self.capacity) * 2, size = <uint64_t>self.mask + 1, at
        if wanted <= size:
            return 0
        while size < wanted:
            size *= 2
        cells = <uint64_t *>calloc(size, sizeof(uint64_t))
        if cells == NULL:
            raise MemoryError
        for at in range(<uint64_t>self.mask + 1):
            if self.cells[at]:
                put(cells, <uint32_t>(size - 1), self.cells[at])
        free(self.cells)
        self.cells = cells
        self.mask = <uint32_t>(size - 1)
        return 0


cdef inline void put(uint64_t *cells, uint32_t mask, uint64_t cell) noexcept nogil:
    cdef uint32_t at = <uint32_t>(cell >> 32) & mask
    while cells[at]:
        at = (at + 1) & mask
    cells[at] = cell


def pack_keys(*columns):
    """The bytes of several columns side by side, as they are in memory: (n, sum of widths)."""
    check_columns(columns)
    widths = [width(column) for column in columns]
    cdef int64_t n = len(columns[0]), total = sum(widths), at = 0, size, stride
    cdef const uint8_t *source
    cdef uint8_t *target
    array = np.empty((n, total), dtype=np.uint8)
    for column, size in zip(columns, widths):
        if column.ndim > 1 and not column[:1].flags.c_contiguous:
            column = np.ascontiguousarray(column)
        source = <const uint8_t *>cnp.PyArray_DATA(column)
        stride = cnp.PyArray_STRIDE(column, 0)
        target = <uint8_t *>cnp.PyArray_DATA(array) + at
        flowvis_spread(target, total, source, stride, size, n)
        at += size
    return array
