"""TCP keep-alive: IPFIX has none of its own, and a node that lost its power says nothing."""

import socket

NOTICED_S = 120  # a peer that answers nothing for so long is gone
PROBES = 4  # in the second half of it


def keep_alive(sock: socket.socket, noticed_s: int = NOTICED_S) -> None:
    """Let the kernel find out whether a silent peer is still there.

    It does not ask one that something is on its way to: see `give_up`.
    """
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, noticed_s // 2),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(noticed_s // 2 // PROBES, 1)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
    ):
        sock.setsockopt(level, option, value)


def give_up(sock: socket.socket, after_s: float = NOTICED_S) -> None:
    """End a connection whose peer takes nothing of what it is sent for so long.

    The kernel would try again for a quarter of an hour where the peer is gone, and for ever where
    it is there and does not read.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(after_s * 1000))
