from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef class StringTable:
    cdef uint8_t *text          # all strings, end to end
    cdef uint64_t *ends         # ends[code]: where code's text ends; it starts at ends[code - 1]
    cdef uint32_t *hashes       # hashes[code]: to rehash and to compare without touching the text
    cdef uint16_t *payers       # payers[code]: who pays for it
    cdef uint32_t *slots        # open addressing: code + 1, 0 where free
    cdef uint64_t *charges      # charges[payer]: what its strings cost
    cdef uint32_t mask
    cdef uint32_t count
    cdef uint32_t capacity
    cdef uint32_t charged_payers  # how many `charges` has room for
    cdef uint64_t used
    cdef uint64_t reserved
    cdef readonly uint64_t max_bytes
    cdef uint64_t kept          # of max_bytes, for who has brought little
    cdef uint64_t assured
    cdef uint64_t seed
    cdef public uint16_t payer
    cdef public int64_t refused
    cdef public int64_t shortened

    cdef int64_t intern_raw(self, const uint8_t *data, uint32_t length) noexcept nogil
    cdef int64_t look_up(self, const uint8_t *data, uint32_t length, uint32_t hashed) noexcept nogil
    cdef bint may_bring(self, uint64_t cost) noexcept nogil
    cdef int64_t insert(
        self, const uint8_t *data, uint32_t length, uint32_t hashed, uint16_t payer
    ) noexcept nogil
    cdef bint grow_codes(self) noexcept nogil
    cdef bint grow_text(self, uint64_t wanted) noexcept nogil
    cdef bint grow_charges(self, uint16_t payer) noexcept nogil
