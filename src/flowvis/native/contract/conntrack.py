"""The contract of the conntrack leaf: what an entry is."""

import numpy as np

RECORD = np.dtype(
    [
        ("source", np.uint8, (16,)),
        ("destination", np.uint8, (16,)),
        ("reply_source", np.uint8, (16,)),
        ("reply_destination", np.uint8, (16,)),
        ("labels", np.uint8, (16,)),
        ("packets", np.uint64),
        ("octets", np.uint64),
        ("reverse_packets", np.uint64),
        ("reverse_octets", np.uint64),
        ("start_ns", np.uint64),
        ("stop_ns", np.uint64),
        ("mark", np.uint32),
        ("status", np.uint32),
        ("id", np.uint32),
        ("timeout", np.uint32),
        ("source_port", np.uint16),
        ("destination_port", np.uint16),
        ("reply_source_port", np.uint16),
        ("reply_destination_port", np.uint16),
        ("icmp_id", np.uint16),
        ("zone", np.uint16),
        ("icmp_type", np.uint8),
        ("icmp_code", np.uint8),
        ("protocol", np.uint8),
        ("family", np.uint8),
        ("tcp_state", np.uint8),
        ("event", np.uint8),
        ("uncounted", np.uint8),
    ],
    align=True,
)
"""One entry, as the compiled leaf's struct. `flowvis.conntrack.entries` says what is what."""

NO_TCP_STATE = 255

MAX_ENTRIES = 1 << 24
"""Entries held at most; sixty times the kernel's usual nf_conntrack_max, 2.8 GB."""

DUMP, NEW, UPDATE, DESTROY = range(4)
