"""The compiled decoder of the kernel's connections: one pass over the bytes, one struct an entry.

Reference and contract: `flowvis.native.reference.conntrack.EntryDecoder`.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from flowvis.native.contract.conntrack import MAX_ENTRIES, RECORD

cdef extern from "<endian.h>" nogil:
    uint16_t be16toh(uint16_t)
    uint32_t be32toh(uint32_t)
    uint64_t be64toh(uint64_t)


if sizeof(Entry) != RECORD.itemsize:
    raise ImportError(f"Entry has {sizeof(Entry)} bytes and RECORD {RECORD.itemsize}")


cdef struct Attribute:
    const uint8_t *payload
    uint32_t size
    uint16_t kind


cdef int64_t MORE = <int64_t>1 << 40  # no error number


cdef enum:
    NLMSG_ERROR = 2
    NLMSG_DONE = 3
    CT_NEW = 0x100  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW
    CT_DELETE = 0x102
    F_MULTI = 0x2
    F_DUMP_INTR = 0x10
    F_CREATE = 0x400
    DUMP = 0
    NEW = 1
    UPDATE = 2
    DESTROY = 3
    NO_TCP_STATE = 255
    # The required attributes, as bits.
    SOURCE = 1
    DESTINATION = 2
    REPLY_SOURCE = 4
    REPLY_DESTINATION = 8
    PROTOCOL = 16
    REQUIRED = 31
    COUNTED = 32  # not required: a connection that began without nf_conntrack_acct has no counters
    MALFORMED = -1


cdef inline int advance(const uint8_t **at, const uint8_t *end, Attribute *found) noexcept nogil:
    """Step to the next attribute: 1 found, 0 the end, MALFORMED a length that cannot be."""
    cdef uint16_t head[2]
    cdef uint32_t left = <uint32_t>(end - at[0])
    if left < 4:
        return 0
    memcpy(head, at[0], 4)
    if head[0] < 4 or head[0] > left:
        return MALFORMED
    found.payload = at[0] + 4
    found.size = head[0] - 4
    found.kind = head[1] & 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
    left = min(left, (<uint32_t>head[0] + 3) & ~<uint32_t>3)
    at[0] += left
    return 1


cdef inline int read8(Attribute *attribute, uint8_t *value) noexcept nogil:
    if attribute.size < 1:
        return MALFORMED
    value[0] = attribute.payload[0]
    return 0


cdef inline int read16(Attribute *attribute, uint16_t *value) noexcept nogil:
    cdef uint16_t raw
    if attribute.size < 2:
        return MALFORMED
    memcpy(&raw, attribute.payload, 2)
    value[0] = be16toh(raw)
    return 0


cdef inline int read32(Attribute *attribute, uint32_t *value) noexcept nogil:
    cdef uint32_t raw
    if attribute.size < 4:
        return MALFORMED
    memcpy(&raw, attribute.payload, 4)
    value[0] = be32toh(raw)
    return 0


cdef inline int read64(Attribute *attribute, uint64_t *value) noexcept nogil:
    cdef uint64_t raw
    if attribute.size < 8:
        return MALFORMED
    memcpy(&raw, attribute.payload, 8)
    value[0] = be64toh(raw)
    return 0


cdef inline int read_ipv4(Attribute *attribute, uint8_t *address) noexcept nogil:
    if attribute.size != 4:
        return MALFORMED
    memset(address, 0, 10)
    memset(address + 10, 0xFF, 2)
    memcpy(address + 12, attribute.payload, 4)
    return 0


cdef inline int read_ipv6(Attribute *attribute, uint8_t *address) noexcept nogil:
    if attribute.size != 16:
        return MALFORMED
    memcpy(address, attribute.payload, 16)
    return 0


cdef inline int read_labels(Attribute *attribute, uint8_t *labels) noexcept nogil:
    memset(labels, 0, 16)
    memcpy(labels, attribute.payload, min(attribute.size, <uint32_t>16))
    return 0


cdef int read_addresses(
    Attribute *nest, uint8_t *source, uint8_t *destination, int *found
) noexcept nogil:
    """CTA_TUPLE_IP; `found` gets SOURCE and DESTINATION."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute), bad = 0
    while more > 0:
        if attribute.kind == 1:
            bad = read_ipv4(&attribute, source)
            found[0] |= SOURCE
        elif attribute.kind == 2:
            bad = read_ipv4(&attribute, destination)
            found[0] |= DESTINATION
        elif attribute.kind == 3:
            bad = read_ipv6(&attribute, source)
            found[0] |= SOURCE
        elif attribute.kind == 4:
            bad = read_ipv6(&attribute, destination)
            found[0] |= DESTINATION
        if bad:
            return bad
        more = advance(&at, end, &attribute)
    return more


cdef int read_protocol(Attribute *nest, Entry *entry, int *found) noexcept nogil:
    """CTA_TUPLE_PROTO of the original direction; `found` gets PROTOCOL."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute), bad = 0
    while more > 0:
        if attribute.kind == 1:
            bad = read8(&attribute, &entry.protocol)
            found[0] |= PROTOCOL
        elif attribute.kind == 2:
            bad = read16(&attribute, &entry.source_port)
        elif attribute.kind == 3:
            bad = read16(&attribute, &entry.destination_port)
        elif attribute.kind == 4 or attribute.kind == 7:  # ICMP, ICMPv6
            bad = read16(&attribute, &entry.icmp_id)
        elif attribute.kind == 5 or attribute.kind == 8:
            bad = read8(&attribute, &entry.icmp_type)
        elif attribute.kind == 6 or attribute.kind == 9:
            bad = read8(&attribute, &entry.icmp_code)
        if bad:
            return bad
        more = advance(&at, end, &attribute)
    return more


cdef int read_reply_ports(Attribute *nest, Entry *entry) noexcept nogil:
    """CTA_TUPLE_PROTO of the reply direction: all that it can add are the ports."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute), bad = 0
    while more > 0:
        if attribute.kind == 2:
            bad = read16(&attribute, &entry.reply_source_port)
        elif attribute.kind == 3:
            bad = read16(&attribute, &entry.reply_destination_port)
        if bad:
            return bad
        more = advance(&at, end, &attribute)
    return more


cdef int read_tuple(Attribute *nest, Entry *entry, bint reply, int *found) noexcept nogil:
    """CTA_TUPLE_ORIG or CTA_TUPLE_REPLY."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute), bad = 0, addresses = 0
    while more > 0:
        if attribute.kind == 1:
            if reply:
                bad = read_addresses(
                    &attribute, entry.reply_source, entry.reply_destination, &addresses
                )
                found[0] |= addresses * REPLY_SOURCE
            else:
                bad = read_addresses(&attribute, entry.source, entry.destination, &addresses)
                found[0] |= addresses
        elif attribute.kind == 2:
            if reply:
                bad = read_reply_ports(&attribute, entry)
            else:
                bad = read_protocol(&attribute, entry, found)
        elif attribute.kind == 3:
            bad = read16(&attribute, &entry.zone)
        if bad:
            return bad
        more = advance(&at, end, &attribute)
    return more


cdef int read_tcp(Attribute *nest, Entry *entry) noexcept nogil:
    """CTA_PROTOINFO_TCP."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute)
    while more > 0:
        if attribute.kind == 1 and read8(&attribute, &entry.tcp_state):
            return MALFORMED
        more = advance(&at, end, &attribute)
    return more


cdef int read_protocol_state(Attribute *nest, Entry *entry) noexcept nogil:
    """CTA_PROTOINFO."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute)
    while more > 0:
        if attribute.kind == 1 and read_tcp(&attribute, entry):
            return MALFORMED
        more = advance(&at, end, &attribute)
    return more


cdef int read_pair(Attribute *nest, uint64_t *first, uint64_t *second) noexcept nogil:
    """CTA_COUNTERS_... (packets, bytes) and CTA_TIMESTAMP (start, stop): two 64-bit numbers."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute), bad = 0
    while more > 0:
        if attribute.kind == 1:
            bad = read64(&attribute, first)
        elif attribute.kind == 2:
            bad = read64(&attribute, second)
        if bad:
            return bad
        more = advance(&at, end, &attribute)
    return more


cdef int read_counters(Attribute *nest, Entry *entry, int *found) noexcept nogil:
    """CTA_COUNTERS_ORIG; `found` gets COUNTED with its number of packets."""
    cdef Attribute attribute
    cdef const uint8_t *at = nest.payload
    cdef const uint8_t *end = at + nest.size
    cdef int more = advance(&at, end, &attribute), bad = 0
    while more > 0:
        if attribute.kind == 1:
            bad = read64(&attribute, &entry.packets)
            found[0] |= COUNTED
        elif attribute.kind == 2:
            bad = read64(&attribute, &entry.octets)
        if bad:
            return bad
        more = advance(&at, end, &attribute)
    return more


cdef int read_entry(const uint8_t *at, const uint8_t *end, Entry *entry) noexcept nogil:
    """nfgenmsg and the attributes of one connection; 0 if it has all that it must have."""
    cdef Attribute attribute
    cdef int more, bad = 0, found = 0
    if end - at < 4 or (at[0] != 2 and at[0] != 10):  # AF_INET, AF_INET6
        return MALFORMED
    memset(entry, 0, sizeof(Entry))
    entry.family = at[0]
    entry.tcp_state = NO_TCP_STATE
    at += 4
    more = advance(&at, end, &attribute)
    while more > 0:
        if attribute.kind == 1:
            bad = read_tuple(&attribute, entry, False, &found)
        elif attribute.kind == 2:
            bad = read_tuple(&attribute, entry, True, &found)
        elif attribute.kind == 3:
            bad = read32(&attribute, &entry.status)
        elif attribute.kind == 4:
            bad = read_protocol_state(&attribute, entry)
        elif attribute.kind == 7:
            bad = read32(&attribute, &entry.timeout)
        elif attribute.kind == 8:
            bad = read32(&attribute, &entry.mark)
        elif attribute.kind == 9:
            bad = read_counters(&attribute, entry, &found)
        elif attribute.kind == 10:
            bad = read_pair(&attribute, &entry.reverse_packets, &entry.reverse_octets)
        elif attribute.kind == 12:
            bad = read32(&attribute, &entry.id)
        elif attribute.kind == 18:
            bad = read16(&attribute, &entry.zone)
        elif attribute.kind == 20:
            bad = read_pair(&attribute, &entry.start_ns, &entry.stop_ns)
        elif attribute.kind == 22:
            bad = read_labels(&attribute, entry.labels)
        if bad:
            return bad
        more = advance(&at, end, &attribute)
    entry.uncounted = not found & COUNTED
    return MALFORMED if more or found & REQUIRED != REQUIRED else 0


cdef inline uint8_t event_of(Header *header) noexcept nogil:
    if header.kind == CT_DELETE:
        return DESTROY
    if header.flags & F_MULTI:
        return DUMP
    return NEW if header.flags & F_CREATE else UPDATE


cdef class EntryDecoder:
    """The compiled decoder."""

    def __cinit__(self):
        self.limit = MAX_ENTRIES

    def __dealloc__(self):
        free(self.entries)

    def __len__(self):
        return self.count

    def feed(self, const uint8_t[::1] data not None, sequence=None):
        cdef int64_t wanted = -1 if sequence is None else sequence
        cdef int64_t outcome
        if data.shape[0] == 0:
            return None
        with nogil:
            outcome = self.walk(&data[0], &data[0] + data.shape[0], wanted)
        return None if outcome == MORE else -outcome

    def take(self):
        cdef uint64_t count = self.count
        if count == 0:
            records = np.empty(0, dtype=RECORD)
        else:
            records = np.frombuffer(<uint8_t[:count * sizeof(Entry)]><uint8_t *>self.entries, RECORD)
        columns = {name: records[name].copy() for name in RECORD.names}
        del records  # it looks into the memory that goes now
        free(self.entries)
        self.entries = NULL
        self.count = self.capacity = 0
        return columns

    cdef int64_t walk(
        self, const uint8_t *at, const uint8_t *end, int64_t wanted
    ) except? -2 nogil:
        """The error number of the end (0 or below), or MORE while more is to come."""
        cdef Header header
        cdef int32_t error = 0
        cdef uint64_t left
        while end - at >= <int64_t>sizeof(Header):
            left = end - at
            memcpy(&header, at, sizeof(Header))
            if header.length < sizeof(Header) or header.length > left:
                self.malformed += 1
                break
            if wanted < 0 or header.sequence == wanted:
                if header.flags & F_DUMP_INTR:
                    self.interrupted = True
                if header.kind == NLMSG_ERROR or header.kind == NLMSG_DONE:
                    if header.length >= sizeof(Header) + 4:
                        memcpy(&error, at + sizeof(Header), 4)
                    return error
                if header.kind == CT_NEW or header.kind == CT_DELETE:
                    self.add(at, &header)
            at += min(left, (<uint64_t>header.length + 3) & ~<uint64_t>3)
        return MORE

    cdef int add(self, const uint8_t *message, Header *header) except -1 nogil:
        cdef Entry *entry
        if self.count == self.capacity:
            self.grow()
        entry = &self.entries[self.count]
        if read_entry(message + sizeof(Header), message + header.length, entry):
            self.malformed += 1
            return 0
        entry.event = event_of(header)
        self.count += 1
        return 0

    cdef int grow(self) except -1 nogil:
        cdef uint64_t capacity = min(max(<uint64_t>64, self.capacity * 2), self.limit)
        cdef Entry *entries
        if self.count >= self.limit:
            with gil:
                raise MemoryError(f"more than {self.limit} conntrack entries")
        entries = <Entry *>realloc(self.entries, capacity * sizeof(Entry))
        if entries == NULL:
            with gil:
                raise MemoryError
        self.entries = entries
        self.capacity = capacity
        return 0
