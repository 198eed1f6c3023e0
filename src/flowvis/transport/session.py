"""One peer's connection, as the server has it."""

import asyncio
import contextlib
import errno
import logging
import math
import random
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flowvis.counts import count, counts_by_reason
from flowvis.errors import PeerError
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.channel import Channel

log = logging.getLogger(__name__)

PENDING_BYTES = 64 << 10  # what a peer may leave unread of our side: handshakes are a tenth of it
LAST_READS = 256  # of a peer that does not close when the server stops: more than the kernel holds


@dataclass(frozen=True)
class SessionLimits:
    """What peers can take of a server."""

    sessions: int = 4096
    """One for each node of the largest clusters; a session takes some 70 KiB."""
    sessions_per_address: int = 1024
    """Nodes behind one NAT share an address."""
    handshakes: int = 512
    """Under way at once: each costs a millisecond of CPU."""
    handshake_s: float = 10.0
    idle_s: float | None = None
    """IPFIX has no keep-alive: an exporter without flows is silent, and that is well."""
    age_s: float | None = None
    """Then a peer is asked to finish and come again: both show their certificates anew."""
    read_bytes: int = 128 << 10
    """Per session and wake-up: 500 records, half a millisecond of work. All sessions have
    their turn before anything is written, so more would starve what goes out."""


@dataclass(frozen=True)
class Peer:
    """Who is at the other end."""

    address: str
    port: int
    subject: str = ""
    """The common name of the client's certificate."""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.subject}{'@' if self.subject else ''}{host}:{self.port}"


class PeerHandler(Protocol):
    """What a session's bytes go to; raising PeerError ends that session only."""

    def data_received(self, data: memoryview) -> None:
        """Take bytes; they are overwritten after the call."""

    def eof(self) -> None:
        """Nothing more comes: PeerError if something is missing."""

    def closed(self) -> None:
        """The session is over, however it ended; called once."""


@dataclass
class ServerStats:
    """Counts since the start."""

    sessions: int = count("Sessions accepted")
    octets: int = count("Bytes received, decrypted")
    refused: Counter[str] = counts_by_reason("Connections refused, by the limit passed")
    errors: Counter[str] = counts_by_reason("Sessions ended by a fault, by reason")
    certificate_reloads: int = count("New certificates taken")
    certificate_failures: int = count("Changed certificate files that could not be used")


@dataclass
class Common:
    """What the sessions of one server share."""

    factory: Callable[[Peer], PeerHandler]
    limits: SessionLimits
    stats: ServerStats
    log: LimitedLog
    data: memoryview
    """Where bytes from any socket are read to."""
    plain: memoryview
    """Where they are decrypted to."""
    handshakes: int = 0
    """Sessions whose peer is not known yet."""
    stopping: bool = False


def _life_s(age_s: float | None) -> float:
    """How long a session may live: those that began together do not end together."""
    return math.inf if age_s is None else age_s * random.uniform(0.8, 1.0)  # noqa: S311  no secret


class ServerSession:
    """Reads a bounded amount at each wake-up and hands it to the peer's handler in one piece."""

    __slots__ = (
        "_channel", "_common", "_deadline", "_half_closed", "_handler", "_loop", "_on_closed",
        "_pending", "_sock", "ends_at", "last_observed", "open", "peer",
    )  # fmt: skip

    def __init__(
        self,
        common: Common,
        sock: socket.socket,
        channel: Channel,
        peer: Peer,
        on_closed: "Callable[[ServerSession], None]",
    ) -> None:
        self.peer = peer
        self.open = True
        self._common = common
        self._sock = sock
        self._channel = channel
        self._on_closed = on_closed
        self._handler: PeerHandler | None = None
        self._half_closed = False
        self._pending = b""
        common.handshakes += 1
        self._loop = asyncio.get_running_loop()
        self.last_observed = self._loop.time()
        self.ends_at = self.last_observed + _life_s(common.limits.age_s)
        self._deadline = self._loop.call_later(common.limits.handshake_s, self._handshake_late)
        self._loop.add_reader(sock, self._guard, self._read)
        if channel.ready:
            self._guard(self._established)

    def half_close(self) -> None:
        """Say that nothing more is wanted here (FIN) and go on reading what was sent before."""
        if self._handler is None or self._half_closed:
            return  # in a handshake it is said when that is through
        self._half_closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def abandon(self) -> None:
        """Read what is there and close, since the peer does not."""
        self._guard(self._read_last)

    def expire(self) -> None:
        """End a session that was silent for too long."""
        self._fail(PeerError("idle", f"silent for {self._common.limits.idle_s} s"))

    def _guard(self, work: Callable[[], object]) -> None:
        """Let nothing that one session does reach the others."""
        try:
            work()
        except PeerError as error:
            self._fail(error)
        except Exception:
            log.exception("session of %s ended by a defect of ours", self.peer)
            self._count("internal")
            self._close()

    def _fail(self, error: PeerError) -> None:
        self._count(error.reason)
        self._common.log.log(
            logging.WARNING, self.peer.address, "session ended: %s", error, session=str(self.peer)
        )
        with contextlib.suppress(PeerError):
            self._flush()  # the alert that tells the peer
        self._close()

    def _count(self, reason: str) -> None:
        errors = self._common.stats.errors
        errors[reason] = errors.get(reason, 0) + 1

    def _read(self) -> bool:
        """Read once; False when there was nothing."""
        common = self._common
        try:
            count = self._sock.recv_into(common.data)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "connection").lower()
            raise PeerError(reason, f"connection lost: {error.strerror}") from error
        if not count:
            self._ended()
            return True
        self.last_observed = self._loop.time()
        channel = self._channel
        data = channel.receive(common.data[:count], common.plain)
        if self._handler is None and channel.ready:
            self._established()
        if self._handler is not None and len(data):
            common.stats.octets += len(data)
            self._handler.data_received(data)
        self._flush()
        if channel.error:
            raise channel.error
        if channel.ended:
            self._ended()
        return True

    def _read_last(self) -> None:
        for _ in range(LAST_READS):
            if not self.open or not self._read():
                break
        if self.open:
            raise PeerError("not-finished", "did not close when the server stopped")

    def _established(self) -> None:
        """The peer is known: make its handler."""
        self._deadline.cancel()
        self.peer = Peer(self.peer.address, self.peer.port, self._channel.subject())
        self._handler = self._common.factory(self.peer)
        self._common.handshakes -= 1
        log.debug("session of %s", self.peer)
        if self._common.stopping:
            self._flush()
            self.half_close()

    def _ended(self) -> None:
        """The peer has finished."""
        if self._handler is None:
            raise PeerError("handshake-eof", "connection closed in the handshake")
        self._handler.eof()
        if not self._half_closed:
            self._pending += self._channel.finish()
            self._flush()
        self._close()

    def _handshake_late(self) -> None:
        self._fail(PeerError("handshake-timeout", "no handshake in time"))

    def _flush(self) -> None:
        """Send what the channel has to say; what does not fit goes with the next."""
        self._pending += self._channel.outgoing()
        if not self._pending:
            return
        try:
            self._pending = self._pending[self._sock.send(self._pending) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # reading will tell
            self._pending = b""
        if len(self._pending) > PENDING_BYTES:
            self._pending = b""
            raise PeerError("pending-bytes", f"leaves over {PENDING_BYTES} bytes unread")

    def _close(self) -> None:
        if not self.open:
            return
        self.open = False
        self._deadline.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._on_closed(self)
        if self._handler is None:
            self._common.handshakes -= 1
            return
        try:
            self._handler.closed()
        except Exception:
            log.exception("end of the session of %s met a defect of ours", self.peer)
            self._count("internal")
