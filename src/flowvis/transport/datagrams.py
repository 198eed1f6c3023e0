"""The client's end of one session over UDP: a message is a datagram, and fits into the path's MTU.

Nobody says whether a datagram arrived, so a session ends only where the network says that it is in
vain: no such port or host, or a message that is larger than the path takes. The kernel is told to
fragment nothing (RFC 7011 section 10.3.3); how much fits is what it knows of the path when a
session begins, and the next session's when it learns better. Where messages cannot be made as small
as that, fragments may be allowed: then a message is lost with any of them.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

from flowvis.errors import PeerError
from flowvis.transport.connection import CLOSED

IP_MTU_DISCOVER, IP_MTU = 10, 14  # linux/in.h
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24  # linux/in6.h
PMTUDISC_DONT = 0  # in both: fragment what is larger than the path takes
PMTUDISC_DO = 2  # in both: never fragment, and keep to what ICMP says of the path
MOST_PAYLOAD = 65_507  # what IPv4's length field leaves: 65,535 less both headers

_OF_FAMILY = {  # level, how to fragment, the path's MTU, bytes of the headers (IP's and UDP's)
    socket.AF_INET: (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU, 20 + 8),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU, 40 + 8),
}

BURST_BYTES = 64 << 10  # sent at once: half of what a receiver's buffer holds by default
BURST_S = 0.002  # from one such burst to the next: at most 32 MB/s
STALLED_S = 10.0  # an interface that takes no datagram in so long is as good as none
FULL_S = 0.005  # before a queue of this host that was full is tried again

_FULL = {errno.ENOBUFS, errno.ENOMEM}


class DatagramConnection:
    """Sends messages over a connected, non-blocking socket, which it owns.

    Its surface is that of `Connection`, as `Client` has either.
    """

    datagrams = True
    protocol = ""

    def __init__(
        self, sock: socket.socket, on_lost: Callable[[str], None], *, fragments: bool = False
    ) -> None:
        self.alive = True
        """Whether messages can be sent."""
        self.reason = ""
        """Why not: a fixed short word."""
        self.detail = ""
        self.trial_s = 0.0
        self.probe = b""
        """Nothing to look into: there is no FIN."""
        self.on_data: Callable[[memoryview], None] | None = None
        self.lasted_s = 0.0
        """How long it had lived when it was over."""
        self.over = asyncio.Event()
        """Set when it is no longer alive."""
        self._sock = sock
        self._on_lost = on_lost
        self._standing = False
        self._burst = 0  # bytes sent since the last pause
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        level, discover, self._mtu_option, self._headers = _OF_FAMILY[sock.family]
        self._level = level
        sock.setsockopt(level, discover, PMTUDISC_DONT if fragments else PMTUDISC_DO)
        self.max_message = MOST_PAYLOAD if fragments else self._most()
        """Bytes of the largest message that the path takes whole."""
        self._loop.add_reader(sock, self._readable)

    async def establish(self) -> None:
        """There is no handshake; PeerError where the network has refused already."""
        self._standing = self.alive
        if not self.alive:
            raise PeerError(self.reason, self.detail)

    async def send(self, message: bytes) -> bool:
        """Send one message; False if it has not left."""
        if self._burst + len(message) > BURST_BYTES:
            self._burst = 0
            await asyncio.sleep(BURST_S)
        try:
            async with asyncio.timeout(STALLED_S):
                while self.alive and not self._sent(message):  # noqa: ASYNC110  no event says so
                    await asyncio.sleep(FULL_S)
        except TimeoutError:
            self._end("stalled", f"took no message in {STALLED_S:g} s")
        except asyncio.CancelledError:
            self._end("cancelled", "a message was cut off")
            raise
        if self.alive:
            self._burst += len(message)
        return self.alive

    async def read_all(self) -> bool:
        """Whether the collector has read everything: nobody can know."""
        return False

    async def finish(self, drain_s: float) -> bool:  # noqa: ARG002  nothing is waited for
        """Nothing says the end of a session; so nothing is confirmed either."""
        return False

    def close(self) -> None:
        """Let go of the socket."""
        self._end(CLOSED, "closed by us")

    def _most(self) -> int:
        path = self._sock.getsockopt(self._level, self._mtu_option)
        return min(path - self._headers, MOST_PAYLOAD)

    def _sent(self, message: bytes) -> bool:
        """Give the kernel a message; False where it has no room at the moment."""
        try:
            self._sock.send(message)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _FULL:
                return False
            self._lose_by(error, len(message))
            return False
        return True

    def _readable(self) -> None:
        """Take what ICMP reports; collectors say nothing."""
        try:
            self._sock.recv(1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose_by(error)

    def _lose_by(self, error: OSError, size: int = 0) -> None:
        word = errno.errorcode.get(error.errno or 0, "connection").lower()
        detail = error.strerror or str(error)
        if error.errno == errno.EMSGSIZE:
            with contextlib.suppress(OSError):
                what = f"a message of {size} bytes" if size else "a message"
                detail = f"{what}, and the path takes {self._most()}"
        self._end(word, detail)

    def _end(self, reason: str, detail: str) -> None:
        """No message can be sent from now on."""
        if not self.alive:
            return
        self.alive = False
        self.lasted_s = self._loop.time() - self._began
        self.reason, self.detail = reason, detail
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self.over.set()
        if self._standing and reason != CLOSED:
            self._on_lost(reason)
