from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef class StringTable:
    cdef uint8_t *text          # all strings, end to end
    cdef uint64_t *ends         # ends[code]: where code's text ends; it starts at ends[code - 1]
    cdef uint32_t *hashes       # hashes[code]: to rehash and to compare without touching the text
    cdef uint32_t *slots        # open addressing: code + 1, 0 where free
    cdef uint32_t mask
    cdef uint32_t count
    cdef uint32_t capacity
    cdef uint64_t used
    cdef uint64_t reserved
    cdef uint64_t max_bytes
    cdef uint64_t seed

    cdef int64_t intern_raw(self, const uint8_t *data, uint32_t length) except -1 nogil
    cdef int64_t insert(self, const uint8_t *data, uint32_t length, uint32_t hashed) except -1 nogil
    cdef int grow_codes(self) except -1 nogil
    cdef int grow_text(self, uint64_t wanted) except -1 nogil
