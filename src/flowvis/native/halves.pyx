"""The compiled halves leaf: what records are, and the keys under which they meet.

The rules are in `flowvis.native.reference.halves`; contract: `flowvis.native.contract.halves`.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from flowvis import fields
from flowvis.native.contract import halves as contract
from flowvis.native.contract.merge import Sides

cnp.import_array()

cdef extern from *:
    """
    #include <endian.h>
    #include <string.h>

    /* Exchange two endpoints of 18 bytes if the first is the larger. Without branches, since which
       one is larger is as good as random. */
    static inline uint8_t flowvis_order(uint8_t *key) {
        uint64_t a[2], b[2], larger, mask, moved;
        uint16_t c, d, port;
        memcpy(a, key, 16);
        memcpy(&c, key + 16, 2);
        memcpy(b, key + 18, 16);
        memcpy(&d, key + 34, 2);
        larger = (be64toh(a[0]) > be64toh(b[0])) | ((a[0] == b[0]) & ((be64toh(a[1]) > be64toh(b[1]))
            | ((a[1] == b[1]) & (be16toh(c) > be16toh(d)))));
        mask = -larger;
        moved = (a[0] ^ b[0]) & mask;
        a[0] ^= moved;
        b[0] ^= moved;
        moved = (a[1] ^ b[1]) & mask;
        a[1] ^= moved;
        b[1] ^= moved;
        port = (c ^ d) & mask;
        c ^= port;
        d ^= port;
        memcpy(key, a, 16);
        memcpy(key + 16, &c, 2);
        memcpy(key + 18, b, 16);
        memcpy(key + 34, &d, 2);
        return larger;
    }
    """
    uint8_t flowvis_order(uint8_t *key) nogil
    uint64_t be64toh(uint64_t value) nogil

cdef enum:
    ENDPOINT = 18
    PROTOCOL = 36
    FLOW_ID = 37
    KEY_SIZE = 46
    NEITHER = 1

    SOURCE = 1
    DESTINATION = 2
    BOTH = 3
    CLIENT = 4
    CORRELATE = 8
    SERVER = 16
    LEANS = 5

    INTER_NODE = 2
    TO_EXTERNAL = 3
    FROM_EXTERNAL = 4
    DROP = 2
    REJECT = 3
    ICMP4 = 1
    ICMP6 = 58
    INGRESS = 0
    EGRESS = 1

    UNSET4 = 0xFFFF00000000  # the low half of ::ffff:0.0.0.0

for _owner, _constants in (
    (contract, {
        "ENDPOINT": ENDPOINT, "FLOW_ID": FLOW_ID, "KEY_SIZE": KEY_SIZE, "NEITHER": NEITHER,
        "INGRESS": INGRESS, "EGRESS": EGRESS,
    }),
    (Sides, {
        "SOURCE": SOURCE, "DESTINATION": DESTINATION, "BOTH": BOTH, "CLIENT": CLIENT,
        "CORRELATE": CORRELATE, "SERVER": SERVER, "LEANS": LEANS,
    }),
    (fields.FlowType, {
        "INTER_NODE": INTER_NODE, "TO_EXTERNAL": TO_EXTERNAL, "FROM_EXTERNAL": FROM_EXTERNAL,
    }),
    (fields.RuleAction, {"DROP": DROP, "REJECT": REJECT}),
    (fields, {"ICMP": (ICMP4, ICMP6)}),
):
    for _name, _value in _constants.items():
        if getattr(_owner, _name) != _value:
            raise ImportError(f"{_name} differs from the contract's")


cdef struct Column:
    const uint8_t *data
    int64_t stride


cdef dict WIDTHS = contract.WIDTHS | contract.RELAYED


cdef Column column(columns, str name, int64_t n) except *:
    """Where the values of a column of `n` are."""
    cdef cnp.ndarray array = columns[name]
    cdef int64_t width = WIDTHS[name]
    cdef bint fits = cnp.PyArray_NDIM(array) >= 1 and cnp.PyArray_DIM(array, 0) == n
    fits = fits and cnp.PyArray_NBYTES(array) == n * width
    if fits and cnp.PyArray_NDIM(array) == 2:
        fits = cnp.PyArray_STRIDE(array, 1) == 1 or n == 0
    if not fits:
        contract.check_columns(columns)  # which says what is wrong
        raise ValueError(name)
    return Column(<const uint8_t *>cnp.PyArray_DATA(array), cnp.PyArray_STRIDE(array, 0))


cdef inline uint8_t byte(Column column, int64_t at) noexcept nogil:
    return column.data[at * column.stride]


cdef inline uint16_t half_word(Column column, int64_t at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, column.data + at * column.stride, 2)
    return value


cdef inline uint32_t word(Column column, int64_t at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, column.data + at * column.stride, 4)
    return value


cdef inline bint is_set(Column column, int64_t at) noexcept nogil:
    """Whether an address is neither :: nor ::ffff:0.0.0.0."""
    cdef uint64_t[2] words
    memcpy(words, column.data + at * column.stride, 16)
    return words[0] != 0 or (words[1] != 0 and be64toh(words[1]) != UNSET4)


cdef inline bint has_no_ports(uint8_t protocol) noexcept nogil:
    return protocol == ICMP4 or protocol == ICMP6


def sides(columns):
    """Return each record's bits of `Sides`."""
    cdef int64_t n = len(columns["flowType"]), at
    cdef Column types = column(columns, "flowType", n)
    cdef Column source_pods = column(columns, "sourcePodName", n)
    cdef Column source_nodes = column(columns, "sourceNodeName", n)
    cdef Column destination_pods = column(columns, "destinationPodName", n)
    cdef Column destination_nodes = column(columns, "destinationNodeName", n)
    cdef Column snat_ports = column(columns, "proxySnatPort", n)
    cdef Column snat_addresses = column(columns, "proxySnatIP", n)
    cdef Column service_ports = column(columns, "destinationServicePort", n)
    cdef Column service_addresses = column(columns, "destinationServiceIP", n)
    cdef Column protocols = column(columns, "protocolIdentifier", n)
    cdef Column actions = column(columns, "egressNetworkPolicyRuleAction", n)
    cdef Column domains = types, directions = types
    cdef bint may_be_relayed = contract.RELAYED.keys() <= columns.keys()
    if may_be_relayed:
        domains = column(columns, "originalObservationDomainId", n)
        directions = column(columns, "flowDirection", n)
    array = np.empty(n, dtype=np.uint8)
    cdef uint8_t[::1] bits = array
    cdef uint8_t kind, known
    cdef bint inter_node, entering, source_pod, destination_pod, source, destination
    cdef bint client_only, server_only, client, server, correlate
    for at in range(n):
        kind = byte(types, at)
        inter_node = kind == INTER_NODE
        entering = kind == FROM_EXTERNAL
        source_pod = word(source_pods, at) != 0
        destination_pod = word(destination_pods, at) != 0
        source = source_pod or word(source_nodes, at) != 0
        destination = destination_pod or word(destination_nodes, at) != 0
        if may_be_relayed and inter_node and word(domains, at):
            if byte(directions, at) == EGRESS:
                source_pod = source = True
                destination_pod = destination = False
            elif byte(directions, at) == INGRESS:
                source_pod = source = False
                destination_pod = destination = True
        client_only = source_pod and not destination_pod
        server_only = destination_pod and not source_pod
        client = (inter_node or kind == TO_EXTERNAL) and client_only and (
            half_word(snat_ports, at) != 0 or has_no_ports(byte(protocols, at))
        )
        client = (client or (entering and not destination_pod)) and is_set(snat_addresses, at)
        server = (
            server_only
            and (entering or inter_node)
            and half_word(service_ports, at) != 0
            and is_set(service_addresses, at)
        )
        correlate = inter_node and (source != destination or server) or (client and entering)
        known = CLIENT * client | SERVER * server
        if correlate and byte(actions, at) != DROP and byte(actions, at) != REJECT:
            known |= CORRELATE
            known |= DESTINATION if server_only or (destination and not client_only) else SOURCE
        else:
            known |= BOTH | (SOURCE * client_only | DESTINATION * server_only) << LEANS
        bits[at] = known
    return array


def correlation_keys(columns, bits):
    """Return the keys under which the halves of a connection meet, and which were turned."""
    cdef int64_t n = len(columns["flowType"]), at
    contract.check_bits(bits, n)
    cdef const uint8_t[:] sides = bits
    cdef Column sources = column(columns, "sourceIP", n)
    cdef Column source_ports = column(columns, "sourceTransportPort", n)
    cdef Column destinations = column(columns, "destinationIP", n)
    cdef Column destination_ports = column(columns, "destinationTransportPort", n)
    cdef Column snat_addresses = column(columns, "proxySnatIP", n)
    cdef Column snat_ports = column(columns, "proxySnatPort", n)
    cdef Column service_addresses = column(columns, "destinationServiceIP", n)
    cdef Column service_ports = column(columns, "destinationServicePort", n)
    cdef Column protocols = column(columns, "protocolIdentifier", n)
    cdef Column flow_ids = column(columns, "flowId", n)
    keys_array = np.empty((n, KEY_SIZE), dtype=np.uint8)
    turned_array = np.empty(n, dtype=bool)
    cdef uint8_t[::1] turned = turned_array.view(np.uint8)
    cdef uint8_t *key = <uint8_t *>cnp.PyArray_DATA(keys_array)
    cdef uint8_t protocol
    for at in range(n):
        if sides[at] & CLIENT:
            put_endpoint(key, snat_addresses, snat_ports, at)
        else:
            put_endpoint(key, sources, source_ports, at)
        if sides[at] & SERVER:
            put_endpoint(key + ENDPOINT, service_addresses, service_ports, at)
        else:
            put_endpoint(key + ENDPOINT, destinations, destination_ports, at)
        turned[at] = flowvis_order(key)
        protocol = byte(protocols, at)
        key[PROTOCOL] = protocol
        memset(key + FLOW_ID, 0, KEY_SIZE - FLOW_ID)
        if has_no_ports(protocol):
            put_flow_id(key, flow_ids, at)
        key += KEY_SIZE
    return keys_array, turned_array


def made_of(columns, keys, turned):
    """Return by which endpoints keys were made: see the reference."""
    contract.check_made(columns, keys, turned)
    cdef int64_t n = len(keys), at
    cdef const uint8_t *key = <const uint8_t *>cnp.PyArray_DATA(keys)
    cdef const uint8_t[:] reversed_ = turned.view(np.uint8)
    cdef Column[2][4] parts
    cdef int side, part
    for side in range(2):
        for part in range(4):
            parts[side][part] = column(columns, contract.ENDPOINTS[side][part], n)
    array = np.zeros(n, dtype=np.uint8)
    cdef uint8_t[::1] made = array
    for at in range(n):
        for side in range(2):
            made[at] |= made_of_one(
                parts[side], at, key + ENDPOINT * (side ^ (reversed_[at] != 0)), CLIENT << 2 * side
            )
        key += KEY_SIZE
    return array


cdef inline uint8_t made_of_one(
    const Column *parts, int64_t at, const uint8_t *end, uint8_t better
) noexcept nogil:
    """The bit of one endpoint of a key; `better`: that of what is between the nodes."""
    cdef uint64_t[2] between
    memcpy(between, parts[2].data + at * parts[2].stride, 16)
    if not (between[0] or between[1] or half_word(parts[3], at)):
        return 0
    if is_endpoint(parts[0], parts[1], at, end):
        return 0
    return better if is_endpoint(parts[2], parts[3], at, end) else NEITHER


cdef inline bint is_endpoint(
    Column addresses, Column ports, int64_t at, const uint8_t *end
) noexcept nogil:
    return (
        memcmp(addresses.data + at * addresses.stride, end, 16) == 0
        and memcmp(ports.data + at * ports.stride, end + 16, 2) == 0
    )


def order_endpoints(keys):
    """Bring the two endpoints that keys begin with in order; return which keys were turned."""
    contract.check_endpoints(keys)
    cdef uint8_t[:, ::1] rows = keys
    cdef int64_t n = rows.shape[0], row
    turned_array = np.empty(n, dtype=bool)
    cdef uint8_t[::1] turned = turned_array.view(np.uint8)
    for row in range(n):
        turned[row] = flowvis_order(&rows[row, 0])
    return turned_array


cdef inline void put_endpoint(
    uint8_t *key, Column addresses, Column ports, int64_t at
) noexcept nogil:
    memcpy(key, addresses.data + at * addresses.stride, 16)
    memcpy(key + 16, ports.data + at * ports.stride, 2)


cdef inline void put_flow_id(uint8_t *key, Column flow_ids, int64_t at) noexcept nogil:
    """The lower half of a number of 8 bytes."""
    cdef uint64_t number
    cdef uint32_t low
    memcpy(&number, flow_ids.data + at * flow_ids.stride, 8)
    low = <uint32_t>number
    memcpy(key + FLOW_ID, &low, 4)
