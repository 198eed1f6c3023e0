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
_choice = random.Random()  # not the tests' seed: processes side by side choose apart
_given: list[socket.socket] = []
"""A name for each port that was given: until this process ends no other one gives that port."""


def free_port() -> int:
    """Return a port that nothing listens on, another one each time, in whichever process."""
    ephemeral = int(_EPHEMERAL.read_text().split()[0])
    for _ in range(100):
        port = _choice.randrange(_FIRST, max(ephemeral, _FIRST + 10_000))
        if all(_is_free(kind, port) for kind in _KINDS) and _is_ours(port):
            return port
    raise RuntimeError("no port of loopback is free")


def _is_free(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(type=kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_ours(port: int) -> bool:
    """Take a name of the kernel's that goes with the process, and is in no directory."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0flowvis tests, port {port}")
    except OSError:
        name.close()
        return False
    _given.append(name)
    return True
