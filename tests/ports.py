"""Ports of loopback for servers that are started, killed and started again.

Out of those that the kernel gives to connections: in the pause such a port may go to a client of
anybody's, and the server does not come back.
"""

import random
import socket
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 10_000
_KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
_given: set[int] = set()
_choice = random.Random()  # not the tests' seed: processes side by side choose apart


def free_port() -> int:
    """Return a port that nothing listens on, another one each time."""
    ephemeral = int(_EPHEMERAL.read_text().split()[0])
    for _ in range(100):
        port = _choice.randrange(_FIRST, max(ephemeral, _FIRST + 10_000))
        if port not in _given and all(_is_free(kind, port) for kind in _KINDS):
            _given.add(port)
            return port
    raise RuntimeError("no port of loopback is free")


def _is_free(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(type=kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
