"""The compiled string table: one arena of text and one open-addressing index, no Python object a string.

Reference and contract: `flowvis.strings.Strings`.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from flowvis.native.hashing cimport flowvis_hash

import os

import numpy as np

from flowvis import strings as contract

cnp.import_array()

cdef uint32_t MAX_LENGTH = contract.MAX_TEXT_BYTES
cdef uint64_t STRING_BYTES = contract.STRING_BYTES
cdef int64_t REFUSED = -1


cdef class StringTable:
    """The compiled table; see `flowvis.strings.Strings` for what it can do."""

    def __cinit__(self, max_bytes=contract.MAX_TABLE_BYTES):
        contract.check_bound(max_bytes)
        self.max_bytes = max_bytes
        self.kept = max_bytes // contract.RESERVED
        self.assured = contract.assured(max_bytes)
        # Peers choose the strings: without a secret they could choose ones that collide.
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.capacity = 256
        self.mask = 1023
        self.reserved = 4096
        self.charged_payers = 16
        self.text = <uint8_t *>malloc(self.reserved)
        self.ends = <uint64_t *>malloc(self.capacity * sizeof(uint64_t))
        self.hashes = <uint32_t *>malloc(self.capacity * sizeof(uint32_t))
        self.payers = <uint16_t *>malloc(self.capacity * sizeof(uint16_t))
        self.slots = <uint32_t *>calloc(self.mask + 1, sizeof(uint32_t))
        self.charges = <uint64_t *>calloc(self.charged_payers, sizeof(uint64_t))
        if (
            self.text == NULL or self.ends == NULL or self.hashes == NULL or self.payers == NULL
            or self.slots == NULL or self.charges == NULL
        ):
            raise MemoryError
        self.ends[0] = 0
        self.hashes[0] = 0
        self.payers[0] = 0
        self.count = 1

    def __dealloc__(self):
        free(self.text)
        free(self.ends)
        free(self.hashes)
        free(self.payers)
        free(self.slots)
        free(self.charges)

    def __len__(self):
        return self.count

    @property
    def size_bytes(self):
        return self.used

    @property
    def memory_bytes(self):
        return self.used + STRING_BYTES * (self.count - 1)

    def charged(self, payer):
        return self.charges[<uint32_t>payer] if 0 <= payer < self.charged_payers else 0

    cdef int64_t intern_raw(self, const uint8_t *data, uint32_t length) noexcept nogil:
        """The code of a text of at most MAX_LENGTH bytes, REFUSED where there is no room for it."""
        cdef uint32_t hashed
        cdef int64_t code
        if length == 0:
            return 0
        hashed = flowvis_hash(data, length, self.seed)
        code = self.look_up(data, length, hashed)
        if code:
            return code
        if not self.may_bring(length + STRING_BYTES):
            self.refused += 1
            return REFUSED
        return self.insert(data, length, hashed, self.payer)

    cdef int64_t look_up(self, const uint8_t *data, uint32_t length, uint32_t hashed) noexcept nogil:
        """The code of a text that is not empty; 0 where it is not known."""
        cdef uint32_t at = hashed & self.mask, code
        cdef uint64_t start
        while self.slots[at]:
            code = self.slots[at] - 1
            if self.hashes[code] == hashed:
                start = self.ends[code - 1]
                if self.ends[code] - start == length and memcmp(self.text + start, data, length) == 0:
                    return code
            at = (at + 1) & self.mask
        return 0

    cdef bint may_bring(self, uint64_t cost) noexcept nogil:
        """Whether there is room, and the payer has not brought more than its share."""
        cdef uint64_t held = self.used + STRING_BYTES * (self.count - 1), left, share
        if held + cost > self.max_bytes:
            return False
        if self.payer == 0:
            return True
        left = self.max_bytes - held
        share = left - self.kept if left > self.kept else 0
        if share < self.assured:
            share = self.assured
        if self.payer < self.charged_payers:
            cost += self.charges[self.payer]
        return cost <= share

    cdef int64_t insert(
        self, const uint8_t *data, uint32_t length, uint32_t hashed, uint16_t payer
    ) noexcept nogil:
        """Add a text that is not known; REFUSED where the system has no memory."""
        cdef uint32_t at, code = self.count
        if (
            (self.used + length > self.reserved and not self.grow_text(self.used + length))
            or (code == self.capacity and not self.grow_codes())
            or (payer >= self.charged_payers and not self.grow_charges(payer))
        ):
            self.refused += 1
            return REFUSED
        memcpy(self.text + self.used, data, length)
        self.used += length
        self.ends[code] = self.used
        self.hashes[code] = hashed
        self.payers[code] = payer
        self.charges[payer] += length + STRING_BYTES
        self.count += 1
        at = hashed & self.mask
        while self.slots[at]:
            at = (at + 1) & self.mask
        self.slots[at] = code + 1
        return code

    cdef bint grow_text(self, uint64_t wanted) noexcept nogil:
        cdef uint64_t reserved = self.reserved
        cdef uint8_t *text
        while reserved < wanted:
            reserved *= 2
        text = <uint8_t *>realloc(self.text, reserved)
        if text == NULL:
            return False
        self.text = text
        self.reserved = reserved
        return True

    cdef bint grow_charges(self, uint16_t payer) noexcept nogil:
        cdef uint32_t room = self.charged_payers
        cdef uint64_t *charges
        while room <= payer:
            room *= 2
        charges = <uint64_t *>realloc(self.charges, room * sizeof(uint64_t))
        if charges == NULL:
            return False
        memset(charges + self.charged_payers, 0, (room - self.charged_payers) * sizeof(uint64_t))
        self.charges = charges
        self.charged_payers = room
        return True

    cdef bint grow_codes(self) noexcept nogil:
        """Double the codes; keep the index at most a quarter full."""
        cdef uint64_t capacity = <uint64_t>self.capacity * 2, size = capacity * 4
        cdef uint32_t mask = <uint32_t>(size - 1), code, at
        cdef uint64_t *ends = <uint64_t *>realloc(self.ends, capacity * sizeof(uint64_t))
        cdef uint32_t *hashes = NULL
        cdef uint16_t *payers = NULL
        cdef uint32_t *slots = NULL
        if ends != NULL:
            self.ends = ends
            hashes = <uint32_t *>realloc(self.hashes, capacity * sizeof(uint32_t))
        if hashes != NULL:
            self.hashes = hashes
            payers = <uint16_t *>realloc(self.payers, capacity * sizeof(uint16_t))
        if payers != NULL:
            self.payers = payers
            slots = <uint32_t *>calloc(size, sizeof(uint32_t))
        if slots == NULL:
            return False
        for code in range(1, self.count):
            at = self.hashes[code] & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = code + 1
        free(self.slots)
        self.slots = slots
        self.mask = mask
        self.capacity = <uint32_t>capacity
        return True

    def intern(self, bytes value not None):
        cdef int64_t code
        if PyBytes_GET_SIZE(value) > MAX_LENGTH:
            value = contract.shortened(value, MAX_LENGTH)
            self.shortened += 1
        code = self.intern_raw(
            <const uint8_t *>PyBytes_AS_STRING(value), <uint32_t>PyBytes_GET_SIZE(value)
        )
        return 0 if code == REFUSED else code

    def encode(self, texts):
        return np.array([self.intern(contract.utf8(text)) for text in texts], dtype=np.uint32)

    def carry(self, StringTable source not None, codes):
        cdef const int64_t[::1] wanted = np.ascontiguousarray(codes, dtype=np.int64)
        cdef uint32_t[::1] made
        cdef int64_t place, code
        cdef uint32_t length, hashed
        cdef const uint8_t *text
        carried = np.zeros(len(wanted), dtype=np.uint32)
        made = carried
        for place in range(wanted.shape[0]):
            code = wanted[place]
            if not 0 <= code < source.count:
                raise IndexError(code)
            if code == 0:
                continue
            text = source.text + source.ends[code - 1]
            length = <uint32_t>(source.ends[code] - source.ends[code - 1])
            hashed = flowvis_hash(text, length, self.seed)
            made[place] = <uint32_t>self.look_up(text, length, hashed)
            if made[place]:
                continue
            if self.memory_bytes + length + STRING_BYTES > self.max_bytes:
                self.refused += 1
                continue
            code = self.insert(text, length, hashed, source.payers[code])
            made[place] = <uint32_t>(0 if code == REFUSED else code)
        return carried

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
