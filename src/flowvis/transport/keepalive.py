"""TCP keep-alive: IPFIX has none of its own, and a node that lost its power says nothing."""

import socket

_OPTIONS = (  # noticed after two minutes
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out whether a silent peer is still there."""
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)
