"""The contract of the leaf that reads Open vSwitch's list of connections: its words.

What `dpctl/dump-conntrack` prints: lib/ct-dpif.c and lib/ct-dpif.h of Open vSwitch.
"""

import numpy as np

PROTOCOLS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "icmpv6": 58, "ipv6-icmp": 58,
    "sctp": 132, "udplite": 136,
}  # fmt: skip
"""By the names that lines begin with; others begin with the number."""

STATUS = (
    "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT", "DST_NAT", "SEQ_ADJUST",
    "SRC_NAT_DONE", "DST_NAT_DONE", "DYING", "FIXED_TIMEOUT", "TEMPLATE", "UNTRACKED",
)  # fmt: skip
"""Words of `status`, by the number of the bit, which is the kernel's."""

ENDPOINT_STATES = (
    "CLOSED", "LISTEN", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1",
    "CLOSING", "LAST_ACK", "FIN_WAIT_2", "TIME_WAIT",
)  # fmt: skip
"""Words of `protoinfo`: Open vSwitch has a state for each endpoint of a TCP connection."""

_NONE, _SYN_SENT, _SYN_RECV, _ESTABLISHED, _FIN_WAIT, _CLOSE_WAIT, _LAST_ACK, _TIME_WAIT = range(8)
"""The kernel's states (enum tcp_conntrack)."""

_OF_BOTH = {
    "SYN_SENT": _SYN_SENT, "SYN_RECV": _SYN_RECV, "FIN_WAIT_1": _FIN_WAIT,
    "CLOSE_WAIT": _CLOSE_WAIT,
}  # fmt: skip
"""What both endpoints have only where Open vSwitch shows a kernel's connections."""


def _state(source: int, destination: int) -> int:
    """The kernel's state of a connection with these of its endpoints.

    An endpoint is CLOSING when it has sent a FIN, and in FIN_WAIT_2 when that is acknowledged.
    """
    least, most = sorted((source, destination))
    sent_fin, over = ENDPOINT_STATES.index("CLOSING"), ENDPOINT_STATES.index("FIN_WAIT_2")
    established = ENDPOINT_STATES.index("ESTABLISHED")
    if least == most and ENDPOINT_STATES[most] in _OF_BOTH:
        return _OF_BOTH[ENDPOINT_STATES[most]]
    stages = (
        (least >= over, _TIME_WAIT),
        (least >= sent_fin, _LAST_ACK),
        (most > established, _FIN_WAIT),
        (least == established, _ESTABLISHED),
        (most >= ENDPOINT_STATES.index("SYN_RECV"), _SYN_RECV),
        (most == ENDPOINT_STATES.index("SYN_SENT"), _SYN_SENT),
    )
    return next((state for reached, state in stages if reached), _NONE)


TCP_STATE = np.array(
    [
        [_state(source, destination) for destination in range(len(ENDPOINT_STATES))]
        for source in range(len(ENDPOINT_STATES))
    ],
    np.uint8,
)
"""The kernel's state by those of both endpoints."""

MAX_LINE = 4096
"""Bytes of a line; one with all that there is takes 700."""

LAST_YEAR = 2261
"""The last whole one that 63 bits of nanoseconds since 1970 reach, as the kernel's own times."""
