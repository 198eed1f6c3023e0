"""The listening side over UDP: a session for each address and port that datagrams come from.

The kernel has one queue for all senders, so it is emptied at once whatever comes, into a bounded
queue for each session; who may have one says `Admission`, whose turn it is `Turns`, as over TCP. A
sender's address proves nothing: who has sent no record that could be read is a stranger, comes
after those who have, and gives way to them. Who has sent records for a while gets a socket of its
own, and with it a queue of the kernel's that others do not fill. What is dropped here is counted by
its cause; which records these were the sequence numbers say.
"""

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from flowvis.counts import count, counts_by_reason, gauge
from flowvis.errors import PeerError
from flowvis.ipfix.limits import ASSURED_TEMPLATE_BYTES
from flowvis.runtime.component import end, spawn
from flowvis.runtime.listeners import raise_descriptor_limit
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.admission import Admission
from flowvis.transport.receiving import Datagram, DatagramSocket, open_datagram_sockets, sender_of
from flowvis.transport.session import Peer, SessionLimits
from flowvis.transport.stats import ServerStats
from flowvis.transport.turns import Turns

log = logging.getLogger(__name__)

LINES = 60  # of one message in a minute, whatever addresses senders have
READS = 4  # of the kernel's queue in a turn of the loop: half a millisecond for 128 datagrams
LAST_READS = 1024  # when the server stops: what the kernel's queue holds, and no flood's more
PIECE_BYTES = 128 << 10  # of a session's queue, worked off in one go
STRANGERS = 0.25  # of what may wait: at more, a sender that has shown nothing waits with little
STRANGER_BYTES = 16 << 10
LEAST_SHARE = 256 << 10  # bytes that an address may have waiting, whoever else has
SILENT_S = 60.0  # without a datagram: then a session may have to give way to a new one
LAST_S = 2.0  # when the server stops, for what waits of strangers
LAST_KNOWN_S = 8.0  # and for what waits of all
LOOK_S = 1.0  # between two looks at what is late, expired or idle
OWN = 256  # sessions with a socket of their own, at most
OWN_OF_ADDRESS = 8
OWN_AFTER_S = 5.0  # between a session's first datagram and one that earns it such a socket
OWN_BUFFER = 16  # of the bytes of the common queue, this part is its own
AT_ONCE = 200  # sessions that are looked at before others have their turn


@dataclass(frozen=True)
class DatagramLimits:
    """What senders can take of a server."""

    sessions: int = 4096
    sessions_per_address: int | None = None
    """By default half of `sessions`."""
    guests: int = 0
    """Connections that others of this process take in: there are descriptors for these."""
    waiting_bytes: int = 32 << 20
    """Of all datagrams that wait for their turn, shared among addresses."""
    template_bytes: int = 16 << 20
    """Of all templates, shared among addresses, beside what those of each session may take."""
    per_second: int = 20_000
    """Datagrams of one address in a second."""
    buffer_bytes: int = 16 << 20
    """Of the kernel's queue."""
    idle_s: float = 1800.0
    """Without a datagram a session ends: by then its templates are gone as well."""


@dataclass
class DatagramStats(ServerStats):
    """Counts since the start."""

    datagrams: int = count("Datagrams received")
    dropped: Counter[str] = counts_by_reason("Datagrams dropped, by what was full")
    own_queues: int = gauge("Senders that the kernel has a queue of their own for")
    kernel_dropped: int = count("Datagrams that the kernel dropped, as its buffer was full")


class DatagramHandler(Protocol):
    """What a session's datagrams go to; raising PeerError ends that session only."""

    @property
    def proven(self) -> bool:
        """Whether the sender has sent records."""

    @property
    def pending(self) -> bool:
        """Whether datagrams that it took are still to be worked off, by `go_on`."""

    @property
    def pause_s(self) -> float:
        """How long the session is to rest before its next turn: `go_on` may do nothing before."""

    @property
    def fruitless(self) -> bool:
        """Whether the sender only makes work, so that nobody would miss what it sends."""

    @property
    def template_bytes(self) -> int:
        """About what the sender's templates take in memory."""

    def datagrams_received(self, datagrams: list[bytes]) -> float:
        """Take datagrams; work off a bounded part of them. Return as `PeerHandler`'s."""

    def go_on(self) -> float:
        """Work off some more of what is pending; return as `datagrams_received`."""

    def look(self) -> None:
        """See what has not come in time."""

    def closed(self) -> None:
        """The session is over, however it ended; called once."""


@dataclass
class _Source:
    """An address that datagrams come from, with all its ports."""

    address: str
    allowed: float
    """How many datagrams it may send at once."""
    seen_s: float
    sessions: int = 0
    own_sockets: int = 0
    waiting_bytes: int = 0
    template_bytes: int = 0


class DatagramSession:
    """One sender's datagrams, until it is its turn."""

    __slots__ = (
        "_correction_s", "_handler", "_queue", "_server", "began", "common", "last_observed",
        "open", "own", "peer", "sender", "source", "template_bytes", "waiting", "waiting_bytes",
    )  # fmt: skip

    def __init__(
        self,
        server: "DatagramServer",
        sender: bytes,
        peer: Peer,
        source: _Source,
        *,
        common: DatagramSocket,
        now: float,
    ) -> None:
        self.sender = sender
        self.common = common
        self.own: DatagramSocket | None = None
        self.peer = peer
        self.source = source
        self.open = True
        self.waiting = False
        self.waiting_bytes = 0
        self.template_bytes = 0
        self.began = self.last_observed = now
        self._server = server
        self._handler: DatagramHandler | None = None  # made when it is its turn
        self._queue: deque[bytes] = deque()
        self._correction_s = 0.0

    @property
    def address(self) -> str:
        """The sender's address."""
        return self.peer.address

    @property
    def known(self) -> bool:
        """Whether it has sent records; before, it is one of the strangers."""
        return self._handler is not None and self._handler.proven

    @property
    def busy(self) -> bool:
        """Whether there is something to work off."""
        pending = self._handler is not None and self._handler.pending
        return self.open and (pending or bool(self._queue))

    def put(self, data: bytes) -> None:
        """Add a datagram to those that wait."""
        self._queue.append(data)
        self._wait(len(data))

    def work(self) -> bool:
        """Work off a piece of what waits; True if there is more."""
        was_known = self.known
        self._guard(self._work)
        if not self.open:
            return False
        if self.known and not was_known:
            self._server.admission.proven(self)
        if self._handler is not None and (pause_s := self._handler.pause_s):
            self.waiting = True
            asyncio.get_running_loop().call_later(pause_s, self._resume)
            return False
        return self.busy

    def listen(self) -> None:
        """Nothing to do: the server reads for all."""

    def rest(self) -> None:
        """Nothing to do: what comes waits."""

    def paid(self, cost_s: float) -> float:
        """Return what is to be paid for the last piece."""
        later_s, self._correction_s = self._correction_s, 0.0
        return cost_s + later_s

    def look(self) -> None:
        """See what has not come in time."""
        if self._handler is not None:
            self._guard(self._handler.look)

    @property
    def idle_work(self) -> bool:
        """Whether nobody would miss what waits: it only made work so far, or lately."""
        return self._handler is None or not self.known or self._handler.fruitless

    @property
    def rests_s(self) -> float:
        """How long it has to wait until there may be room for what its sender brought."""
        return 0.0 if self._handler is None or self.idle_work else self._handler.pause_s

    @property
    def datagrams(self) -> int:
        """How many wait."""
        return len(self._queue)

    def go_on(self) -> None:
        """Work off a piece of what waits, whoever's turn it is."""
        self._guard(self._work)

    def give_way(self, limit: str) -> None:
        """End, for one that comes when a limit is reached."""
        self._fail(PeerError("gave-way", f"makes room, as the limit of {limit} is reached"))

    def close(self) -> None:
        """End without a fault."""
        if not self.open:
            return
        self.open = False
        self._queue.clear()
        self._wait(-self.waiting_bytes)
        self._server.closed(self)
        if self._handler is None:
            return
        try:
            self._handler.closed()
        except Exception as error:  # noqa: BLE001  logged, with a limit
            self._server.defect(self, "the end of a session met a defect of ours", error)

    def _resume(self) -> None:
        self.waiting = False
        if self.busy:
            self._server.turns.readable(self)

    def _work(self) -> None:
        if self._handler is None:
            self._handler = self._server.factory(self.peer)
        handler = self._handler
        if handler.pending:
            self._correction_s = handler.go_on()
        elif self._queue:
            datagrams, size = [], 0
            while self._queue and size < PIECE_BYTES:
                datagrams.append(self._queue.popleft())
                size += len(datagrams[-1])
            self._wait(-size)
            self._server.stats.octets += size
            self._correction_s = handler.datagrams_received(datagrams)
        self._server.hold(self, handler.template_bytes)

    def _wait(self, more: int) -> None:
        self.waiting_bytes += more
        self._server.wait(self.source, more)

    def _guard(self, work: Callable[[], object]) -> None:
        """Let nothing that one session does reach the others."""
        try:
            work()
        except PeerError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  logged, with a limit
            self._server.defect(self, "a session ended by a defect of ours", error)
            self.close()

    def _fail(self, error: PeerError) -> None:
        self._server.failed(self, error)
        self.close()


class DatagramServer:
    """Reads what comes to a UDP port, and feeds the handlers of who sent it."""

    def __init__(
        self,
        factory: Callable[[Peer], DatagramHandler],
        *,
        host: str = "::",
        port: int = 0,
        limits: DatagramLimits | None = None,
        name: str = "collector",
    ) -> None:
        self.name = name
        self.stats = DatagramStats()
        self.sessions: dict[bytes, DatagramSession] = {}
        self.limits = limits or DatagramLimits()
        self.factory = factory
        self._host, self._port = host, port
        self._log = LimitedLog(log, overall=LINES)
        self.admission: Admission[DatagramSession] = Admission(
            _session_limits(self.limits), lambda _: None
        )
        self.turns = Turns(self.stats, self.admission.knows)
        self._sockets: list[DatagramSocket] = []
        self._sources: dict[str, _Source] = {}
        self._quiet: OrderedDict[DatagramSession, None] = OrderedDict()  # the longest quiet first
        self._waiting_bytes = self._template_bytes = 0
        self._crowd = 0  # addresses of which something waits
        self._keeper: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._sockets[0].port if self._sockets else self._port

    async def start(self) -> None:
        """Listen; SystemRefused says what is in the way."""
        raise_descriptor_limit(0, self.limits.guests)
        self._sockets = open_datagram_sockets(self._host, self._port, self.limits.buffer_bytes)
        self._port = self.port
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock.sock, self._readable, sock)
        self._keeper = spawn(f"{self.name} housekeeping", self._keep_house())
        log.info("%s listens on %s port %d, UDP", self.name, self._host, self.port)
        got = min(sock.buffer_bytes for sock in self._sockets)
        if got < self.limits.buffer_bytes:
            log.warning(
                "the kernel holds %d KiB of datagrams, not %d KiB as configured: raise the sysctl "
                "net.core.rmem_max to %d, or give CAP_NET_ADMIN",
                got >> 10, self.limits.buffer_bytes >> 10, self.limits.buffer_bytes // 2,
            )  # fmt: skip

    def admit(self, sessions: int, per_address: int | None = None) -> None:
        """Take up to so many sessions from now on, and of one address; those that are there stay.

        By default an address can have half of them.
        """
        self.limits = replace(self.limits, sessions=sessions, sessions_per_address=per_address)
        self.admission.limits = _session_limits(self.limits)

    async def stop(self) -> None:
        """Take what the kernel has, work everything off, and end all sessions."""
        await end(self._keeper)
        loop = asyncio.get_running_loop()
        own = [session.own for session in self.sessions.values() if session.own is not None]
        for sock in [*self._sockets, *own]:
            loop.remove_reader(sock.sock)
            with contextlib.suppress(OSError):
                for _ in range(LAST_READS):
                    if not self._read(sock):
                        break
                    await asyncio.sleep(0)
        await self._finish()
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    async def _finish(self) -> None:
        """Work off what waits and end all sessions; of who only makes work, in a bounded time."""
        clock = asyncio.get_running_loop().time
        over, late = clock() + LAST_S, clock() + LAST_KNOWN_S
        for session in sorted(self.sessions.values(), key=lambda one: one.idle_work):
            while session.busy and (left := (over if session.idle_work else late) - clock()) > 0:
                session.go_on()
                await asyncio.sleep(min(session.rests_s, left))
            for _ in range(session.datagrams):
                self._drop("stopped", session.address)
            session.close()

    def wait(self, source: _Source, more: int) -> None:
        """Note how many more bytes, or fewer, of an address wait."""
        before = source.waiting_bytes
        source.waiting_bytes += more
        self._waiting_bytes += more
        self._crowd += bool(source.waiting_bytes) - bool(before)

    def hold(self, session: DatagramSession, template_bytes: int) -> None:
        """Note what a session's templates take; PeerError if all take too much, and it most."""
        more = template_bytes - session.template_bytes
        if not more:
            return
        session.template_bytes += more
        session.source.template_bytes += more
        self._template_bytes += more
        most = self.limits.template_bytes
        much = template_bytes > ASSURED_TEMPLATE_BYTES
        if more > 0 and much and self._template_bytes > most:
            share = most // max(len(self._sources), 1)
            if session.source.template_bytes > share:
                detail = f"templates of {session.address} take {session.source.template_bytes} "
                raise PeerError("template-memory", f"{detail}bytes; at most {share} now")

    def closed(self, session: DatagramSession) -> None:
        """Note that a session is over."""
        del self.sessions[session.sender]
        self._take_back(session)
        self._quiet.pop(session, None)
        source = session.source
        source.template_bytes -= session.template_bytes
        self._template_bytes -= session.template_bytes
        source.sessions -= 1
        if not source.sessions:
            del self._sources[source.address]
        self.admission.closed(session)

    def failed(self, session: DatagramSession, error: PeerError) -> None:
        """Note a fault that ends a session."""
        self._count(error.reason)
        text = "session ended: %s"
        self._log.log(logging.WARNING, session.address, text, error, session=str(session.peer))

    def defect(self, session: DatagramSession, text: str, error: Exception) -> None:
        """Note a defect of ours that a session has met."""
        self._count("internal")
        self._log.log(logging.ERROR, session.address, text, error=error, session=str(session.peer))

    def _count(self, reason: str) -> None:
        errors = self.stats.errors
        errors[reason] = errors.get(reason, 0) + 1

    def _readable(self, sock: DatagramSocket) -> None:
        for _ in range(READS):
            try:
                if not sock.open or not self._read(sock):
                    break
            except OSError as error:
                self._log.log(logging.WARNING, self.name, "cannot read datagrams: %s", error)
                break

    def _read(self, sock: DatagramSocket) -> bool:
        """Take what has come, once; False when there was nothing."""
        before = sock.dropped
        datagrams = sock.read()
        if sock.dropped > before:
            self.stats.kernel_dropped += sock.dropped - before
            text = "the kernel dropped %d datagrams, as its buffer of %d KiB was full"
            values = (sock.dropped - before, sock.buffer_bytes >> 10)
            self._log.log(logging.WARNING, self.name, text, *values)
        now = asyncio.get_running_loop().time()
        taken = [self._take(each, sock, now) for each in datagrams]
        served = dict.fromkeys(filter(None, taken))
        for session in served:
            if session.open and not session.waiting:
                self.turns.readable(session)
        return bool(datagrams)

    def _take(self, datagram: Datagram, sock: DatagramSocket, now: float) -> DatagramSession | None:
        """Let a datagram wait in the session of its sender; None if it is dropped."""
        self.stats.datagrams += 1
        session = self.sessions.get(datagram.sender)
        if session is None:
            session = self._open(datagram.sender, sock, now)
            if session is None:
                return None
        source, size = session.source, len(datagram.data)
        rate = self.limits.per_second
        source.allowed = min(source.allowed + (now - source.seen_s) * rate, float(rate))
        source.seen_s = now
        if source.allowed < 1:
            self._drop("rate", source.address)
            return None
        source.allowed -= 1
        session.last_observed = now
        self._quiet[session] = None
        self._quiet.move_to_end(session)
        most = self._most_of_strangers()
        if session.waiting_bytes and session.waiting_bytes + size > most and not session.known:
            self._drop("stranger", source.address)
            return None
        if source.waiting_bytes and source.waiting_bytes + size > self._share(source):
            self._drop("waiting", source.address)
            return None
        session.put(datagram.data)
        return session

    def _most_of_strangers(self) -> int:
        """How many bytes a sender may have waiting that has sent no records yet."""
        left = int(self.limits.waiting_bytes * STRANGERS) - self._waiting_bytes
        return max(left, STRANGER_BYTES)

    def _share(self, source: _Source) -> int:
        """How many bytes an address may have waiting, of all that others leave."""
        others = self._crowd - bool(source.waiting_bytes)
        share = self.limits.waiting_bytes // (others + 1)
        left = self.limits.waiting_bytes - self._waiting_bytes + source.waiting_bytes
        return max(min(share, left), LEAST_SHARE)

    def _drop(self, cause: str, address: str) -> None:
        self.stats.dropped[cause] = self.stats.dropped.get(cause, 0) + 1
        text = f"datagrams are dropped: {_CAUSES[cause]}"
        self._log.log(logging.WARNING, address, text)

    def _open(self, sender: bytes, sock: DatagramSocket, now: float) -> DatagramSession | None:
        """Begin a session, if there is room."""
        address, port = sender_of(sender)
        refusal = self.admission.refusal(address, now)
        if refusal == "sessions" and self._make_room(now):
            refusal = self.admission.refusal(address, now)
        if refusal is not None:
            refused = self.stats.refused
            refused[refusal] = refused.get(refusal, 0) + 1
            self._log.log(logging.WARNING, address, "refused: over the limit of %s", refusal)
            return None
        source = self._sources.get(address)
        if source is None:
            rate = float(self.limits.per_second)
            source = self._sources[address] = _Source(address, rate, now)
        source.sessions += 1
        peer = Peer(address, port)
        family = sock.sock.family  # of the sender's own socket, where that was read too early
        same = (each for each in self._sockets if each.sock.family == family)
        common = sock if sock in self._sockets else next(same)
        session = DatagramSession(self, sender, peer, source, common=common, now=now)
        self.sessions[sender] = session
        self.stats.sessions += 1
        self.admission.entered(session)
        self.admission.established(session)
        return session

    def _make_room(self, now: float) -> bool:
        """End the session that was quiet for longest, if that is long."""
        session = next(iter(self._quiet), None)
        if session is None or now - session.last_observed < SILENT_S:
            return False
        session.give_way("sessions")
        return True

    def _see_to_own(self, session: DatagramSession, now: float) -> None:
        """Give a session a socket of its own that has earned one; take it from who is quiet."""
        if not session.open:
            return
        if session.own is not None:
            if now - session.last_observed > SILENT_S:
                self._take_back(session)
            return
        room = self.stats.own_queues < OWN and session.source.own_sockets < OWN_OF_ADDRESS
        if not room or not session.known or session.last_observed - session.began < OWN_AFTER_S:
            return
        size = self.limits.buffer_bytes // OWN_BUFFER
        try:
            session.own = session.common.beside(session.sender, size)
        except OSError as error:  # no descriptors, no route: it stays in the common queue
            self._log.log(logging.WARNING, self.name, "no socket for a sender: %s", error)
            return
        self.stats.own_queues += 1
        session.source.own_sockets += 1
        asyncio.get_running_loop().add_reader(session.own.sock, self._readable, session.own)

    def _take_back(self, session: DatagramSession) -> None:
        """Close a session's own socket: its datagrams come in the common queue again."""
        if session.own is None:
            return
        asyncio.get_running_loop().remove_reader(session.own.sock)
        session.own.close()
        session.own = None
        self.stats.own_queues -= 1
        session.source.own_sockets -= 1

    async def _keep_house(self) -> None:
        """See what is late, what has expired, and who has been quiet for long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            for at, session in enumerate(list(self.sessions.values()), 1):
                if not session.open:
                    continue
                if loop.time() - session.last_observed > self.limits.idle_s and not session.busy:
                    session.close()
                else:
                    session.look()
                    self._see_to_own(session, loop.time())
                if not at % AT_ONCE:
                    await asyncio.sleep(0)


_CAUSES = {
    "rate": "more come in a second than one address may send (listen.udp.maxDatagramsPerSecond)",
    "stranger": "they come before any that has records",
    "stopped": "the collector stops, and they only made work so far",
    "waiting": "more wait than one address may have waiting, as it sends faster than we read",
}


def _session_limits(limits: DatagramLimits) -> SessionLimits:
    return SessionLimits(limits.sessions, limits.sessions_per_address)
