"""What the netlink sockets of conntrack and of the packet log have in common."""

import errno
import socket
from contextlib import suppress

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python has no name for it
_ALIGNED = 4  # NLMSG_ALIGNTO


def set_receive_bytes(netlink: socket.socket, size: int) -> None:
    """Give a socket a receive buffer beyond net.core.rmem_max, where we may.

    In a user namespace that stays the limit.
    """
    with suppress(PermissionError):
        netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)


def read_waiting(netlink: socket.socket, buffer: memoryview, room: int) -> tuple[int, int]:
    """Read what has arrived into the buffer, while there is `room` for a message.

    Returns the bytes read, and how often the kernel had no room and dropped messages (ENOBUFS).
    """
    filled = overruns = 0
    while filled + room <= len(buffer):
        try:
            size = netlink.recv_into(buffer[filled : filled + room])
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            overruns += 1
            continue
        filled += size + _ALIGNED - 1 & -_ALIGNED
    return filled, overruns
