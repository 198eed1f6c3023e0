"""One peer's connection, as the server has it."""

import asyncio
import contextlib
import errno
import fcntl
import logging
import math
import os
import random
import socket
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from flowvis.errors import PeerError
from flowvis.ipfix.acknowledgement import PROTOCOL
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.answers import Answers
from flowvis.transport.channel import Channel
from flowvis.transport.stats import ServerStats
from flowvis.transport.turns import Turns

log = logging.getLogger(__name__)

PENDING_BYTES = 64 << 10  # what a peer may leave unread of our side: handshakes are a tenth of it
LAST_READS = 256  # of a peer that does not close when the server stops: more than the kernel holds

FIRST_READ = 32 << 10  # bytes of a read, as long as nothing is known of what they cost
LEAST_READ = 4 << 10
CHEAP_S = 0.001  # of CPU: a read that costs less may be larger next time
DEAR_S = 0.002  # one that costs more is to be smaller


@dataclass(frozen=True)
class SessionLimits:
    """What peers can take of a server."""

    sessions: int = 4096
    """One for each node of the largest clusters; a session takes some 70 KiB."""
    sessions_per_address: int | None = None
    """Nodes behind one NAT share an address; by default half of `sessions`."""
    guests: int = 0
    """Connections that others of this process take in: there are descriptors for these as well."""
    handshakes: int = 512
    """Under way at once from addresses that no records came from, and as many from others."""
    hello_s: float = 3.0
    """Within which a peer begins its handshake: clients do so at once."""
    handshake_s: float = 10.0
    """Within which it is through."""
    idle_s: float | None = None
    """IPFIX has no keep-alive: an exporter without flows is silent, and that is well."""
    age_s: float | None = None
    """Then a peer is asked to finish and come again: both show their certificates anew."""
    read_bytes: int = 128 << 10
    """Per session and read, at most: some 500 records, half a millisecond of work."""

    @property
    def share(self) -> int:
        """How many sessions one address can have."""
        if self.sessions_per_address is None:
            return max(self.sessions // 2, 1)
        return self.sessions_per_address


Answer = Callable[[bytes], None]
"""Sends a peer something, without waiting: what has not left is replaced by what comes next."""


@dataclass(frozen=True)
class Peer:
    """Who is at the other end."""

    address: str
    port: int
    subject: str = ""
    """The common name of the client's certificate."""
    answer: Answer | None = field(default=None, repr=False, compare=False)
    """Where it has agreed to take acknowledgements: how they are sent."""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.subject}{'@' if self.subject else ''}{host}:{self.port}"


class PeerHandler(Protocol):
    """What a session's bytes go to; raising PeerError ends that session only."""

    @property
    def proven(self) -> bool:
        """Whether the peer has done what it is here for: sent records."""

    @property
    def pending(self) -> bool:
        """Whether bytes that it took are still to be worked off, by `go_on`."""

    @property
    def pause_s(self) -> float:
        """How long the session is to rest before its next turn: `go_on` may do nothing before."""

    @property
    def fruitless(self) -> bool:
        """Whether the peer only makes work, so that nobody would miss what it sends."""

    def data_received(self, data: memoryview) -> float:
        """Take bytes, which are overwritten after the call; work off a bounded part of them.

        Return what that costs beside the time that the call took, in seconds: work that it leaves
        for later, less what it did for others.
        """

    def go_on(self) -> float:
        """Work off some more of what is pending; return as `data_received`."""

    def eof(self) -> None:
        """Nothing more comes, nor is pending: PeerError if something is missing."""

    def closed(self) -> None:
        """The session is over, however it ended; called once."""


class Doorkeeper(Protocol):
    """Who is to know how far a session is."""

    def established(self, session: "ServerSession") -> None:
        """The handshake is through."""

    def proven(self, session: "ServerSession") -> None:
        """Its peer has sent records."""

    def closed(self, session: "ServerSession") -> None:
        """It is over."""


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
    open_channel: Callable[[], Channel]
    turns: Turns
    answers: Answers = field(default_factory=Answers)
    stopping: bool = False


def _lost(number: int) -> PeerError:
    reason = errno.errorcode.get(number, "connection").lower()
    return PeerError(reason, f"connection lost: {os.strerror(number)}")


def _life_s(age_s: float | None) -> float:
    """How long a session may live: those that began together do not end together."""
    return math.inf if age_s is None else age_s * random.uniform(0.8, 1.0)  # noqa: S311  no secret


class ServerSession:
    """Reads a bounded amount at each of its turns and hands it to the peer's handler in one piece.

    What its peer brings it to do is bounded as well: a handler may leave some for later turns, and
    reads become smaller the more they cost.
    """

    __slots__ = (
        "_answer", "_began", "_broken", "_channel", "_common", "_correction_s", "_count_read",
        "_deadline", "_doorkeeper", "_eof", "_half_closed", "_handler", "_loop", "_pending",
        "_resting", "_room", "_sock", "ends_at", "last_observed", "open", "peer", "proven",
        "waiting",
    )  # fmt: skip

    def __init__(
        self, common: Common, sock: socket.socket, peer: Peer, doorkeeper: Doorkeeper
    ) -> None:
        self.peer = peer
        self.open = True
        self.proven = False
        """Whether its peer has sent records."""
        self.waiting = False
        self._common = common
        self._sock = sock
        self._channel: Channel | None = None  # a TLS one is made when the peer begins
        self._doorkeeper = doorkeeper
        self._handler: PeerHandler | None = None
        self._half_closed = self._eof = self._resting = False
        self._broken = 0  # errno that the kernel has told, while there is more to read
        self._pending = self._answer = b""
        self._room = min(FIRST_READ, common.limits.read_bytes)
        self._count_read = 0
        self._correction_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._began = self.last_observed = self._loop.time()
        self.ends_at = self._began + _life_s(common.limits.age_s)
        first_s = min(common.limits.hello_s, common.limits.handshake_s)
        self._deadline = self._loop.call_later(first_s, self._late)
        self._loop.add_reader(sock, common.turns.readable, self)

    def begin(self) -> None:
        """Make the handler at once, where there is no handshake."""
        self._guard(self._begin)

    @property
    def address(self) -> str:
        """The peer's address."""
        return self.peer.address

    @property
    def known(self) -> bool:
        """Whether the handshake is through."""
        return self._handler is not None

    def work(self) -> bool:
        """Read once, or go on with what was read; True if there is more, and nobody will say so."""
        self._guard(self._work)
        pause_s = self._handler.pause_s if self.open and self._handler is not None else 0.0
        if pause_s:
            self.rest()
            self.waiting = True
            self._loop.call_later(pause_s, self._resume)
            return False
        return self._has_more()

    def _resume(self) -> None:
        self.waiting = False
        if self._has_more():
            self._common.turns.readable(self)
        else:
            self.listen()

    def listen(self) -> None:
        """Be called again when there is something to read."""
        if self._resting and self.open:
            self._resting = False
            self._loop.add_reader(self._sock, self._common.turns.readable, self)

    def rest(self) -> None:
        """Read nothing until `listen`."""
        if not self._resting:
            self._resting = True
            self._loop.remove_reader(self._sock)

    def paid(self, cost_s: float) -> float:
        """Suit the size of reads to what the last one cost; return what is to be paid for it."""
        later_s, self._correction_s = self._correction_s, 0.0
        now_s = cost_s + min(later_s, 0.0)
        if now_s > DEAR_S:
            self._room = max(self._room // 2, LEAST_READ)
        elif now_s < CHEAP_S and self._count_read == self._room:
            self._room = min(2 * self._room, self._common.limits.read_bytes)
        return cost_s + later_s

    def finish(self) -> None:
        """Let the peer finish, as the server stops; one that only makes work is not waited for."""
        if self._handler is not None and self._handler.fruitless:
            self._fail(PeerError("fruitless", "only made work when the server stopped"))
        else:
            self.half_close()

    def half_close(self) -> None:
        """Say that nothing more is wanted here (FIN) and go on reading what was sent before."""
        if self._handler is None or self._half_closed:
            return  # in a handshake it is said when that is through
        self.send_answer()
        self._half_closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    @property
    def unread(self) -> int:
        """How many bytes of its peer's the kernel has."""
        number = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._sock, termios.FIONREAD, number)
        return int.from_bytes(number, sys.byteorder)

    def abandon(self, until_s: float) -> None:
        """Read what is there, until some time of the loop, and close, since the peer does not."""
        self._guard(partial(self._read_last, until_s))

    def answer(self, data: bytes) -> None:
        """Send `data` as soon as the peer takes it, instead of what was to be sent before."""
        self._answer = data
        if self.open:
            self._common.answers.add(self)

    def send_answer(self) -> None:
        """Send the newest answer now, or as soon as the peer takes it."""
        self._guard(self._send_answer)

    def expire(self) -> None:
        """End a session that was silent for too long."""
        self._fail(PeerError("idle", f"silent for {self._common.limits.idle_s} s"))

    def give_way(self, limit: str) -> None:
        """End a session that has shown nothing, for one that comes when a limit is reached."""
        self._fail(PeerError("gave-way", f"sent no records, and the limit of {limit} is reached"))

    def _guard(self, work: Callable[[], object]) -> None:
        """Let nothing that one session does reach the others."""
        try:
            work()
        except PeerError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  logged, with a limit
            self._defect("a session ended by a defect of ours", error)
            self._close()

    def _defect(self, text: str, error: Exception) -> None:
        self._count("internal")
        common, address = self._common, self.peer.address
        common.log.log(logging.ERROR, address, text, error=error, session=str(self.peer))

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

    def _busy(self) -> bool:
        return self.open and self._handler is not None and self._handler.pending

    def _has_more(self) -> bool:
        return self._busy() or (self.open and self._broken != 0)

    def _work(self) -> None:
        if self._handler is not None and self._handler.pending:
            self._correction_s = self._handler.go_on()
        else:
            self._read()
        if self.open:
            self._conclude()

    def _begin(self) -> Channel:
        if self._channel is None:
            self._channel = self._common.open_channel()
            if self._channel.ready:
                self._established(self._channel)
        return self._channel

    def _read(self) -> bool:
        """Read once; False when there was nothing.

        What came before a reset is there, and read to its end. uvloop says a single time that
        there is something, where the kernel tells an error with it: so that is asked for.
        """
        common = self._common
        try:
            count = self._count_read = self._sock.recv_into(common.data[: self._room])
        except (BlockingIOError, InterruptedError):
            self._broken = 0  # it was one that ends nothing, as of a way that is gone for now
            return False
        except OSError as error:
            raise _lost(error.errno or 0) from error
        if not count:
            if self._broken:
                raise _lost(self._broken)
            self._eof = True
            return True
        self._broken = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self._broken
        self.last_observed = self._loop.time()
        channel = self._begin()
        data = channel.receive(common.data[:count], common.plain)
        if self._handler is None and channel.ready:
            self._established(channel)
        if self._handler is not None and len(data):
            common.stats.octets += len(data)
            self._correction_s = self._handler.data_received(data)
        self._flush()
        return True

    def _conclude(self) -> None:
        """Note what the peer has shown, and end where it has: once all it sent is worked off."""
        handler, channel = self._handler, self._channel
        if handler is not None:
            if not self.proven and handler.proven:
                self.proven = True
                self._doorkeeper.proven(self)
            if handler.pending:
                return
        if channel is not None and channel.error:
            raise channel.error
        if self._eof or (channel is not None and channel.ended):
            self._ended()

    def _read_last(self, until_s: float) -> None:
        reads = 0
        while self.open and reads < LAST_READS and self._loop.time() < until_s:
            if not self._busy():
                reads += 1
                if not self._read():
                    break
            elif self._handler is not None:
                if self._handler.pause_s:  # there may be no room for more, now or ever
                    break
                self._handler.go_on()
            self._conclude()
        if self.open:
            raise PeerError("not-finished", "did not close when the server stopped")

    def _established(self, channel: Channel) -> None:
        """The peer is known: make its handler."""
        self._deadline.cancel()
        answer = self.answer if channel.protocol() == PROTOCOL else None
        self.peer = Peer(self.peer.address, self.peer.port, channel.subject(), answer)
        self._handler = self._common.factory(self.peer)
        self._doorkeeper.established(self)
        log.debug("session of %s", self.peer)
        if self._common.stopping:
            self._flush()
            self.half_close()

    def _ended(self) -> None:
        """The peer has finished."""
        if self._handler is None or self._channel is None:
            raise PeerError("handshake-eof", "connection closed in the handshake")
        self._handler.eof()
        if not self._half_closed:
            self._pending += self._channel.finish()
            self._flush()
        self._close()

    def _late(self) -> None:
        """The time for the beginning of the handshake is up, or for all of it."""
        limits = self._common.limits
        left = self._began + limits.handshake_s - self._loop.time()
        if self.waiting or (self._channel is not None and left > 0):  # else it is our fault
            again = max(left, limits.hello_s) if self.waiting else left
            self._deadline = self._loop.call_later(again, self._late)
        else:
            self._fail(PeerError("handshake-timeout", "no handshake in time"))

    def _flush(self) -> None:
        """Send what the channel has to say; what does not fit goes with the next."""
        if self._channel is not None:
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

    def _send_answer(self) -> None:
        """Send the answer, if the one before has left; what the peer does not take yet waits."""
        if not self.open or self._channel is None:
            return
        self._flush()
        if self._answer and not self._pending and not self._half_closed:
            self._pending, self._answer = self._channel.write(self._answer), b""
            self._flush()
        if self._pending:
            self._loop.add_writer(self._sock, self.send_answer)
        else:
            self._loop.remove_writer(self._sock)

    def _close(self) -> None:
        if not self.open:
            return
        self.open = False
        self._deadline.cancel()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._common.answers.discard(self)
        self._sock.close()
        self._doorkeeper.closed(self)
        if self._handler is None:
            return
        try:
            self._handler.closed()
        except Exception as error:  # noqa: BLE001  logged, with a limit
            self._defect("the end of a session met a defect of ours", error)
