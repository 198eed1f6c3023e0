"""The sending side: one session at a time with a collector, made again when it is lost.

There is no queue here. `send` returns when all of its messages are the kernel's; when the session
is lost before, ConnectionLost has those that are not, which the collector cannot have read: they
may be sent again in the next session without being counted twice.

IPFIX has no acknowledgements, so a session has to prove itself: what is sent first, templates and
then records, is not sent until the session has stood for a while after it, and what a collector
that ends it before has not read goes again. Collectors that accept and close are thus given
nothing, and are tried again with back-off, which only a session that stood ends.

Over UDP a session is a connected socket: it ends where ICMP says that nobody takes what is sent,
and everything else is as above. What is lost on the way nobody learns.

Where the two have agreed on acknowledgements there is nothing to prove: the caller keeps all that
is not acknowledged.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flowvis.counts import count, counts_by_reason
from flowvis.errors import FlowvisError, PeerError, SettingsError
from flowvis.ipfix.acknowledgement import PROTOCOL
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.causes import NO_TLS, OTHER_CA, cause_of
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.address import CollectorAddress
from flowvis.transport.channel import Channel, PlainChannel, TlsChannel
from flowvis.transport.connection import CLOSED, GOING_AWAY, MAX_MESSAGE, Connection
from flowvis.transport.datagrams import DatagramConnection
from flowvis.transport.eyeballs import Attempted, Place, Race, resolve
from flowvis.transport.tls import TlsFiles, TlsReloader

log = logging.getLogger(__name__)

PROOF_S = 1.0  # that a session stands after each of the first sends: many round trips
LAST_PROOF_S = 0.2  # the same in a hurry
TRIALS = 2  # of these sends: templates, and the first records
STOOD_S = 10.0  # of a session after which the next follows at once
CONNECT_S = 10.0  # for a connection, and again for its handshake, with each address

Session = Connection | DatagramConnection

NO_PROTOCOL = "no application protocol"
"""The alert (RFC 7301 section 3.2), in OpenSSL's words, of those who take no such offer."""

Hosts = Callable[[CollectorAddress], Awaitable[Sequence[str]]]
"""Asked at each attempt: the names or addresses to try, in this order; FlowvisError if none."""


async def by_name(address: CollectorAddress) -> Sequence[str]:
    """Leave it to DNS."""
    return [address.dns_name]


class ConnectionLost(FlowvisError):
    """The session is gone; `unsent` are the messages of this call that the peer cannot have."""

    def __init__(self, reason: str, unsent: Sequence[bytes], sent: int) -> None:
        super().__init__(reason)
        self.unsent = list(unsent)
        self.sent = sent
        """How many messages of this call left before, and may have arrived."""


class _OfferRefused(Exception):
    """The collector ends handshakes in which it is offered a protocol that it does not know."""


@dataclass
class ClientStats:
    """Counts since the start."""

    attempts: int = count("Attempts to connect")
    sessions: int = count("Sessions that stood")
    messages: int = count("Messages handed to the kernel")
    octets: int = count("Bytes of these messages")
    lost: Counter[str] = counts_by_reason("Sessions lost, by reason")


class Client:
    """Connects to a collector and sends it messages."""

    def __init__(
        self,
        address: CollectorAddress,
        tls: TlsFiles | None = None,
        *,
        server_name: str = "",
        hosts: Hosts = by_name,
        probe: bytes = b"",
        fragments: bool = False,
        backoff: Backoff | None = None,
        on_data: Callable[[memoryview], None] | None = None,
        on_state: Callable[[bool], None] | None = None,
        on_attempt: Attempted | None = None,
    ) -> None:
        """`probe` is a message that changes nothing: see `Connection.probe`.

        With `fragments`, a datagram may be larger than the path takes.

        With `on_data` acknowledgements are offered over TLS, and given to it where the collector
        takes the offer; its PeerError ends the session.
        """
        self._target(address, tls, server_name)
        self.stats = ClientStats()
        self._hosts = hosts
        self._probe = probe
        self._fragments = fragments
        self._backoff = backoff or Backoff()
        self._on_data = on_data
        self._offers = True
        self._on_state = on_state
        self._on_attempt = on_attempt
        self._limited = LimitedLog(log)
        self._session: Session | None = None
        self._hurried = False
        self._trials = 0  # sends of the session that have to be waited after
        self._redirected = asyncio.Event()
        self._place: Place | None = None  # the collector's, of the last session
        self._in_vain: Place | None = None  # where datagrams lately came to nothing

    @property
    def connected(self) -> bool:
        """Whether a session stands."""
        return self._session is not None and self._session.alive

    @property
    def acknowledges(self) -> bool:
        """Whether the session is, or was, one whose collector acknowledges."""
        return self._session is not None and self._session.protocol == PROTOCOL

    @property
    def max_message(self) -> int:
        """Bytes of the largest message that the session takes: over UDP what the path does."""
        return self._session.max_message if self._session is not None else MAX_MESSAGE

    @property
    def datagrams(self) -> bool:
        """Whether the session's messages are datagrams: templates have to be sent repeatedly."""
        return self._session is not None and self._session.datagrams

    async def connect(self) -> None:
        """Return when a session stands: at once, or after as many attempts as it takes.

        A session that was lost in between is replaced by a new one, to which nothing was sent yet.
        """
        if not self.connected:
            await self._follow()
        while not self.connected:
            self.stats.attempts += 1
            self._redirected.clear()
            try:
                session = await self.attempt()
            except _OfferRefused:
                self._offers = False
                continue
            except (OSError, FlowvisError) as error:
                wait_s = self._backoff.wait_s()
                self._limited.log(
                    logging.WARNING, str(self.address), "no session, next attempt in %.1f s: %s",
                    wait_s, error,
                )  # fmt: skip
                await self._pause(wait_s)
                continue
            if self._redirected.is_set():
                session.close()
                continue
            session.trial_s, session.probe = STOOD_S, self._probe
            self._session = session
            self._offers = True
            self._trials = TRIALS
            if self.acknowledges:
                self._trials, session.probe = 0, b""
                session.on_data = self._on_data
            self.stats.sessions += 1
            log.info("connected to %s", self.address)
            self._tell(connected=True)

    async def send(self, messages: Sequence[bytes]) -> None:
        """Send whole messages in order; ConnectionLost when the session does not stand.

        A lost session stays lost until `connect` is called, so that nothing gets into a new one by
        mistake. Waits while the collector is slow. Cancelled, it ends the session.
        """
        session = self._session
        if session is None or not session.alive:
            detail = session.detail if session else "not connected"
            raise ConnectionLost(f"{self.address}: {detail}", messages, 0)
        for at, message in enumerate(messages):
            if not await session.send(message):
                kept = at if not self._trials or await self._read(session) else 0
                raise ConnectionLost(f"{self.address}: {session.detail}", messages[kept:], kept)
            self.stats.messages += 1
            self.stats.octets += len(message)
        if messages and self._trials:
            await self._prove(session, messages)

    async def _prove(self, session: Session, messages: Sequence[bytes]) -> None:
        """Wait whether the session stands; ConnectionLost if it ends and they were not read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(PROOF_S, LAST_PROOF_S) if self._hurried else PROOF_S):
                await session.over.wait()
        if session.alive:
            self._trials -= 1
        elif not await self._read(session):
            raise ConnectionLost(f"{self.address}: {session.detail}", messages, 0)

    async def _read(self, session: Session) -> bool:
        """Whether a collector that goes away has read all, so that the session was a good one."""
        read = await session.read_all()
        if read:
            self._backoff.reset()
        return read

    async def _follow(self) -> None:
        """Be done with the session before; where it was short, the next one is made to wait."""
        session = self._session
        if session is None:
            return
        await self._read(session)
        self._drop()
        if session.lasted_s >= STOOD_S:
            self._backoff.reset()
        elif session.reason != CLOSED:
            wait_s = self._backoff.wait_s()
            self._limited.log(
                logging.WARNING, str(self.address),
                "the session lasted %.1f s, next attempt in %.1f s: %s",
                session.lasted_s, wait_s, session.detail,
            )  # fmt: skip
            await self._pause(wait_s)

    async def _pause(self, wait_s: float) -> None:
        """Wait, unless there is another collector."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._redirected.wait()

    async def lost(self) -> None:
        """Return when no session stands."""
        if self._session is not None:
            await self._session.over.wait()

    @property
    def certificate_ends_s(self) -> float | None:
        """Until when its certificate is valid, in seconds since the epoch; None without one."""
        return self._certificates.ends_s if self._certificates else None

    def redirect(
        self, address: CollectorAddress, tls: TlsFiles | None = None, *, server_name: str = ""
    ) -> None:
        """Make the next session with another collector; the one that stands is not touched."""
        self._target(address, tls, server_name)
        self._backoff.reset()
        self._redirected.set()

    def took(self) -> None:
        """The collector has said that something is durable: waits begin with the shortest again.

        So one that goes away every few seconds, and is there again, is not kept waiting longer and
        longer.
        """
        self._backoff.reset()

    def hurry(self) -> None:
        """There is little time from now on: wait less whether a session stands."""
        self._hurried = True

    def cut(self) -> None:
        """End the session at once: what `send` has not sent comes back to its caller."""
        if self._session is not None:
            self._session.close()

    async def close(self, drain_s: float = 5.0) -> bool:
        """End the session; whether the collector has confirmed, by its FIN, that it read all."""
        session = self._session
        confirmed = session is not None and await session.finish(drain_s)
        self._drop()
        return confirmed

    def _target(self, address: CollectorAddress, tls: TlsFiles | None, server_name: str) -> None:
        if (address.protocol == "tls") != (tls is not None):
            raise ValueError(f"{address}: TLS files go with protocol tls, and only with it")
        self.address = address
        self._certificates = TlsReloader(tls, server=False) if tls else None
        self._server_name = server_name or address.dns_name

    async def attempt(self) -> Session:
        """Try each address of the collector once; OSError has a text for each that failed.

        The session is the caller's.
        """
        context = self._context()
        problems: list[str] = []
        for hosts in _together(await self._hosts(self.address)):
            places = await self._resolve(hosts, problems)
            race = Race(places, CONNECT_S, self._on_attempt, self._kind)
            try:
                while reached := await race.winner():
                    session = await self._establish(*reached, context, problems)
                    if session is not None:
                        return session
            finally:
                problems += race.problems
        raise OSError("; ".join(problems))

    async def _resolve(self, hosts: Sequence[str], problems: list[str]) -> list[Place]:
        """Return where hosts lead, and note those that lead nowhere."""
        places: list[Place] = []
        for host in hosts:
            try:
                places += await resolve(host, self.address.port)
            except OSError as error:
                problems.append(f"{host}: {cause_of(error)}")
        # A datagram's way shows only afterwards that nobody is there: another one is next.
        return sorted(places, key=lambda place: place == self._in_vain)

    async def _establish(
        self,
        sock: socket.socket,
        place: Place,
        context: ssl.SSLContext | None,
        problems: list[str],
    ) -> Session | None:
        """Make a session over a connected socket; None, and a note, where it comes to none."""
        try:
            connection = self._over(sock, context)
        except BaseException:
            sock.close()
            raise
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.establish()
        except (OSError, PeerError) as error:
            connection.close()
            if self._offers and self._on_data is not None and NO_PROTOCOL in str(error):
                raise _OfferRefused from error
            problems.append(f"{place}: {cause_of(error, CONNECT_S)}{_remedy(error)}")
            return None
        except BaseException:
            connection.close()
            raise
        self._place, self._in_vain = place, None
        return connection

    @property
    def _kind(self) -> socket.SocketKind:
        return socket.SOCK_DGRAM if self.address.protocol == "udp" else socket.SOCK_STREAM

    def _over(self, sock: socket.socket, context: ssl.SSLContext | None) -> Session:
        """Return the session over a connected socket."""
        if sock.type is socket.SOCK_DGRAM:
            return DatagramConnection(sock, self._lost, fragments=self._fragments)
        return Connection(sock, self._channel(context), self._lost)

    def _context(self) -> ssl.SSLContext | None:
        """Return the context for this attempt: the files are looked at each time."""
        if self._certificates is None:
            return None
        if self._certificates.loaded:
            try:
                self._certificates.refresh()
            except SettingsError as error:
                log.warning("%s: new certificates are bad: %s", self.address, error)
        context = self._certificates.context()
        if self._on_data is not None:
            context.set_alpn_protocols([PROTOCOL] if self._offers else [])
        return context

    def _channel(self, context: ssl.SSLContext | None) -> Channel:
        if context is None:
            return PlainChannel()
        return TlsChannel(context, server_name=self._server_name)

    def _lost(self, reason: str) -> None:
        self._in_vain = self._place if self.datagrams else None
        self.stats.lost[reason] = self.stats.lost.get(reason, 0) + 1
        # Collectors end sessions in good order when they stop, and when these are old.
        level = logging.INFO if reason == GOING_AWAY else logging.WARNING
        self._limited.log(level, str(self.address), "session ended: %s", reason)
        self._tell(connected=False)

    def _tell(self, *, connected: bool) -> None:
        if self._on_state is not None:
            self._on_state(connected)

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _remedy(error: Exception) -> str:
    """Say where to look when a handshake failed."""
    reason = error.reason if isinstance(error, PeerError) else ""
    if reason == "tls-certificate":
        return f" ({OTHER_CA})"
    if reason == "tls":
        # An alert is the collector's own word: it has seen our certificate, or missed it.
        refused = "the collector refuses: has it the CA of our certificate, and wants TLS alike?"
        return f" ({refused if ' alert ' in str(error) else NO_TLS})"
    return ""


def _together(hosts: Sequence[str]) -> list[list[str]]:
    """Put addresses that follow each other together; each name is by itself, as DNS takes time."""
    groups: list[list[str]] = []
    for addresses, group in itertools.groupby(hosts, _is_address):
        found = list(group)
        groups += [found] if addresses else [[name] for name in found]
    return groups


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
