from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Entry:  # RECORD, field by field
    uint8_t source[16]
    uint8_t destination[16]
    uint8_t reply_source[16]
    uint8_t reply_destination[16]
    uint8_t labels[16]
    uint64_t packets
    uint64_t octets
    uint64_t reverse_packets
    uint64_t reverse_octets
    uint64_t start_ns
    uint64_t stop_ns
    uint32_t mark
    uint32_t status
    uint32_t id
    uint32_t timeout
    uint16_t source_port
    uint16_t destination_port
    uint16_t reply_source_port
    uint16_t reply_destination_port
    uint16_t icmp_id
    uint16_t zone
    uint8_t icmp_type
    uint8_t icmp_code
    uint8_t protocol
    uint8_t family
    uint8_t tcp_state
    uint8_t event
    uint8_t uncounted


cdef struct Header:  # nlmsghdr
    uint32_t length
    uint16_t kind
    uint16_t flags
    uint32_t sequence
    uint32_t port


cdef class EntryDecoder:
    cdef readonly uint64_t malformed
    cdef public bint interrupted
    cdef Entry *entries
    cdef uint64_t count
    cdef uint64_t capacity
    cdef uint64_t limit

    cdef int64_t walk(
        self, const uint8_t *at, const uint8_t *end, int64_t wanted
    ) except? -2 nogil
    cdef int add(self, const uint8_t *message, Header *header) except -1 nogil
    cdef int grow(self) except -1 nogil
