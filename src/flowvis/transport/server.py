"""The listening side: sessions of many peers on one event loop, none of which delays the others.

All sessions share two buffers, since a handler is done with its bytes when it returns. Who may have
a session `Admission` says, and who is read from `Turns`: a peer that costs more than its share
waits, the kernel's buffers fill, and nothing is queued here.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter

from flowvis.errors import SettingsError
from flowvis.runtime.component import end, spawn
from flowvis.runtime.listeners import Acceptor, listen, raise_descriptor_limit
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.admission import Admission
from flowvis.transport.channel import ROOM, Channel, PlainChannel, TlsChannel
from flowvis.transport.keepalive import give_up, keep_alive
from flowvis.transport.session import Common, Peer, PeerHandler, ServerSession, SessionLimits
from flowvis.transport.stats import ServerStats
from flowvis.transport.tls import TlsFiles, TlsReloader
from flowvis.transport.turns import Turns

__all__ = ["Peer", "PeerHandler", "Server", "ServerStats", "SessionLimits"]

log = logging.getLogger(__name__)

LAST_S = 1.0  # when the server stops, for what all have sent that do not close
LINES = 60  # of one message in a minute, whatever addresses peers have


class Server:
    """Accepts peers on a TCP port, over TLS where there are files, and feeds their handlers."""

    def __init__(
        self,
        factory: Callable[[Peer], PeerHandler],
        *,
        host: str = "::",
        port: int = 0,
        tls: TlsFiles | None = None,
        limits: SessionLimits | None = None,
        drain_s: float = 10.0,
        reload_s: float = 5.0,
        name: str = "collector",
    ) -> None:
        limits = limits or SessionLimits()
        self.name = name
        self.stats = ServerStats()
        self.sessions: set[ServerSession] = set()
        data = memoryview(bytearray(limits.read_bytes))
        plain = memoryview(bytearray(limits.read_bytes + ROOM)) if tls else data
        self._certificates = TlsReloader(tls, server=True) if tls else None
        self.admission: Admission[ServerSession] = Admission(limits, self._closed)
        self._common = Common(
            factory,
            limits,
            self.stats,
            LimitedLog(log, overall=LINES),
            data,
            plain,
            self._open_channel,
            Turns(self.stats, self.admission.knows),
        )
        self._host, self._port = host, port
        self._drain_s, self._reload_s = drain_s, reload_s
        self._acceptor = Acceptor(self._admit, self._cannot_accept)
        self._empty = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._acceptor.port or self._port

    @property
    def certificate_ends_s(self) -> float | None:
        """Until when its certificate is valid, in seconds since the epoch; None without one."""
        return self._certificates.ends_s if self._certificates else None

    async def start(self) -> None:
        """Listen; SystemRefused or SettingsError say what is in the way."""
        if self._certificates:
            self._certificates.context()
        self._limit(self._common.limits)
        self._acceptor.start(listen(self._host, self._port))
        self._keeper = spawn(f"{self.name} housekeeping", self._keep_house())
        kind = "mutual TLS" if self._certificates else "plain TCP"
        log.info("%s listens on %s port %d, %s", self.name, self._host, self.port, kind)

    def admit(self, sessions: int, per_address: int | None = None) -> None:
        """Take up to so many sessions from now on, and of one address; those that are there stay.

        By default an address can have half of them.
        """
        limits = self._common.limits
        self._limit(replace(limits, sessions=sessions, sessions_per_address=per_address))

    def _limit(self, limits: SessionLimits) -> None:
        """Set limits, lowered to the descriptors that there are: probes need some as well."""
        room = raise_descriptor_limit(limits.sessions, limits.guests)
        limits = replace(limits, sessions=min(limits.sessions, room))
        self._common.limits = self.admission.limits = limits

    def _open_channel(self) -> Channel:
        return TlsChannel(self._certificates.context()) if self._certificates else PlainChannel()

    async def stop(self) -> None:
        """Take no more peers, ask those that are there to finish, and read until they have."""
        self._common.stopping = True
        await end(self._keeper)
        self._acceptor.close(take=True)  # those who wait have perhaps sent something
        for session in list(self.sessions):
            session.finish()
        try:
            if self.sessions:
                self._empty.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._drain_s):
                        await self._empty.wait()
        finally:
            # Who goes on sending always has much there: it must not cost the others theirs.
            until_s = asyncio.get_running_loop().time() + LAST_S
            for session in sorted(self.sessions, key=attrgetter("unread")):
                session.abandon(until_s)

    def _admit(self, sock: socket.socket, address: str, port: int) -> None:
        refusal = self.admission.refusal(address, asyncio.get_running_loop().time())
        if refusal is not None:
            sock.close()
            self._refused(refusal, address, "refused: over the limit of %s", refusal)
            return
        keep_alive(sock)
        give_up(sock)
        self.stats.sessions += 1
        session = ServerSession(self._common, sock, Peer(address, port), self.admission)
        self.sessions.add(session)
        self.admission.entered(session)
        if not self._certificates:
            session.begin()

    def _closed(self, session: ServerSession) -> None:
        self.sessions.discard(session)
        if not self.sessions:
            self._empty.set()

    def _refused(self, reason: str, peer: str, message: str, *args: object) -> None:
        self.stats.refused[reason] = self.stats.refused.get(reason, 0) + 1
        self._common.log.log(logging.WARNING, peer, message, *args)

    def _cannot_accept(self, error: OSError) -> None:
        self._refused("accept", self.name, "cannot accept connections: %s", error)

    async def _keep_house(self) -> None:
        """Look after certificates, and sessions that are idle or old."""
        idle_s = self._common.limits.idle_s
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._reload_s)
            if self._certificates:
                self._refresh(self._certificates)
            now = loop.time()
            for session in [each for each in self.sessions if each.ends_at <= now]:
                session.half_close()
            if idle_s is not None:
                for session in [s for s in self.sessions if s.last_observed < now - idle_s]:
                    session.expire()

    def _refresh(self, certificates: TlsReloader) -> None:
        try:
            if certificates.refresh():
                log.info("%s: new certificates serve new sessions", self.name)
        except SettingsError as error:
            log.warning("%s: new certificates are bad, the old ones serve: %s", self.name, error)
        self.stats.certificate_reloads = certificates.reloads
        self.stats.certificate_failures = certificates.failures
