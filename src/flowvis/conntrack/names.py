"""What the kernel calls the states of a connection, and how long it usually keeps them."""

from enum import IntFlag

TCP_STATES = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)
"""By number: enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h."""


CLOSED_S = {"TIME_WAIT": 120, "CLOSE": 10}
"""How many seconds the kernel keeps TCP connections after their last packet, by state: tcp_timeouts
of nf_conntrack_proto_tcp.c, where nf_conntrack_tcp_timeout_<state> does not say otherwise."""

UNANSWERED_S = {1: 30, 6: 120, 17: 30, 58: 30, 132: 3}
"""By protocol: for how many seconds after a packet the kernel keeps what was never answered
(nf_conntrack_proto_*.c), where the protocol's setting does not say otherwise."""


class ConntrackStatus(IntFlag):
    """Status bits: enum ip_conntrack_status of linux/netfilter/nf_conntrack_common.h."""

    EXPECTED = 1 << 0
    SEEN_REPLY = 1 << 1
    ASSURED = 1 << 2
    CONFIRMED = 1 << 3
    SRC_NAT = 1 << 4
    DST_NAT = 1 << 5
    SEQ_ADJUST = 1 << 6
    SRC_NAT_DONE = 1 << 7
    DST_NAT_DONE = 1 << 8
    DYING = 1 << 9
    FIXED_TIMEOUT = 1 << 10
    TEMPLATE = 1 << 11
    UNTRACKED = 1 << 12
    HELPER = 1 << 13
    OFFLOAD = 1 << 14
    HW_OFFLOAD = 1 << 15
