"""The compiled string table: one arena of text and one open-addressing index, no Python object a string.

Reference and contract: `flowvis.strings.StringTable`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from flowvis.native.hashing cimport flowvis_hash

import os

import numpy as np

from flowvis.strings import MAX_TABLE_BYTES, check_room

cdef uint32_t MAX_LENGTH = 65535


cdef class StringTable:
    """The compiled table; see `flowvis.strings.Strings` for what it can do."""

    def __cinit__(self, max_bytes=MAX_TABLE_BYTES):
        self.max_bytes = max_bytes
        # Peers choose the strings: without a secret they could choose ones that collide.
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.capacity = 256
        self.mask = 1023
        self.reserved = 4096
        self.text = <uint8_t *>malloc(self.reserved)
        self.ends = <uint64_t *>malloc(self.capacity * sizeof(uint64_t))
        self.hashes = <uint32_t *>malloc(self.capacity * sizeof(uint32_t))
        self.slots = <uint32_t *>malloc((self.mask + 1) * sizeof(uint32_t))
        if self.text == NULL or self.ends == NULL or self.hashes == NULL or self.slots == NULL:
            raise MemoryError
        memset(self.slots, 0, (self.mask + 1) * sizeof(uint32_t))
        self.ends[0] = 0
        self.hashes[0] = 0
        self.count = 1

    def __dealloc__(self):
        free(self.text)
        free(self.ends)
        free(self.hashes)
        free(self.slots)

    def __len__(self):
        return self.count

    @property
    def size_bytes(self):
        return self.used

    cdef int64_t intern_raw(self, const uint8_t *data, uint32_t length) except -1 nogil:
        cdef uint32_t hashed, at, code
        cdef uint64_t start
        if length == 0:
            return 0
        hashed = flowvis_hash(data, length, self.seed)
        at = hashed & self.mask
        while self.slots[at]:
            code = self.slots[at] - 1
            if self.hashes[code] == hashed:
                start = self.ends[code - 1]
                if self.ends[code] - start == length and memcmp(self.text + start, data, length) == 0:
                    return code
            at = (at + 1) & self.mask
        return self.insert(data, length, hashed)

    cdef int64_t insert(self, const uint8_t *data, uint32_t length, uint32_t hashed) except -1 nogil:
        cdef uint32_t at, code = self.count
        if length > MAX_LENGTH or self.used + length > self.max_bytes:
            with gil:
                check_room(length, self.used, self.max_bytes)
        if self.used + length > self.reserved:
            self.grow_text(self.used + length)
        if code == self.capacity:
            self.grow_codes()
        memcpy(self.text + self.used, data, length)
        self.used += length
        self.ends[code] = self.used
        self.hashes[code] = hashed
        self.count += 1
        at = hashed & self.mask
        while self.slots[at]:
            at = (at + 1) & self.mask
        self.slots[at] = code + 1
        return code

    cdef int grow_text(self, uint64_t wanted) except -1 nogil:
        cdef uint64_t reserved = self.reserved
        cdef uint8_t *text
        while reserved < wanted:
            reserved *= 2
        text = <uint8_t *>realloc(self.text, reserved)
        if text == NULL:
            with gil:
                raise MemoryError
        self.text = text
        self.reserved = reserved
        return 0

    cdef int grow_codes(self) except -1 nogil:
        """Double the codes; keep the index at most half full."""
        cdef uint32_t capacity = self.capacity * 2, mask = capacity * 4 - 1, code, at
        cdef uint64_t *ends = <uint64_t *>realloc(self.ends, capacity * sizeof(uint64_t))
        cdef uint32_t *hashes
        cdef uint32_t *slots
        if ends != NULL:
            self.ends = ends
        hashes = <uint32_t *>realloc(self.hashes, capacity * sizeof(uint32_t))
        if hashes != NULL:
            self.hashes = hashes
        slots = <uint32_t *>malloc((<uint64_t>mask + 1) * sizeof(uint32_t))
        if ends == NULL or hashes == NULL or slots == NULL:
            free(slots)
            with gil:
                raise MemoryError
        memset(slots, 0, (<uint64_t>mask + 1) * sizeof(uint32_t))
        for code in range(1, self.count):
            at = self.hashes[code] & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = code + 1
        free(self.slots)
        self.slots = slots
        self.mask = mask
        self.capacity = capacity
        return 0

    def intern(self, bytes value not None):
        cdef Py_ssize_t length = PyBytes_GET_SIZE(value)
        if length > MAX_LENGTH:
            check_room(length, self.used, self.max_bytes)
        return self.intern_raw(<const uint8_t *>PyBytes_AS_STRING(value), <uint32_t>length)

    def encode(self, texts):
        return np.array([self.intern(text.encode()) for text in texts], dtype=np.uint32)

    def value(self, int64_t code):
        cdef uint64_t start
        if not 0 <= code < self.count:
            raise IndexError(code)
        start = self.ends[code - 1] if code else 0
        return PyBytes_FromStringAndSize(<const char *>self.text + start, self.ends[code] - start)

    def texts(self, codes):
        known = {}
        texts = []
        for code in codes.tolist():
            text = known.get(code)
            if text is None:
                text = known[code] = self.value(code).decode(errors="replace")
            texts.append(text)
        return texts

    def packed(self):
        cdef uint64_t[::1] offsets
        array = np.zeros(self.count + 1, dtype=np.uint64)
        offsets = array
        memcpy(&offsets[1], self.ends, self.count * sizeof(uint64_t))
        return PyBytes_FromStringAndSize(<const char *>self.text, self.used), array
