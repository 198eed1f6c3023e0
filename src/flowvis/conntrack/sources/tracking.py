"""Whether the kernel tracks connections here at all.

It does so in a network namespace only while a rule there needs it (NAT, or a match on the
connection's state): a plain host without a firewall tracks nothing.
"""

import socket
from collections.abc import Callable

RULE = (
    "table inet flowvis { chain track { type filter hook prerouting priority 0; ct state new; }; }"
)
"""nftables: the least that makes a namespace track IPv4 and IPv6; it neither drops nor changes."""

REMEDY = f"nft '{RULE}'"

_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def is_tracked(count: Callable[[], int]) -> bool:
    """Whether connections of this namespace are tracked; `count` tells how many there are now.

    An empty table may just be idle, so then one datagram to ourselves over loopback must show up.
    """
    return count() > 0 or any(_appears(count, family, host) for family, host in _LOOPBACK)


def _appears(count: Callable[[], int], family: int, host: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
            probe.sendto(b"", probe.getsockname())
            return count() > 0
    except OSError:  # this family is off, or loopback is down
        return False
