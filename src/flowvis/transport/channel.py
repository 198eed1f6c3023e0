"""What lies between a socket's bytes and a peer's: TLS, or nothing. Does no I/O.

Several thousand TLS sessions share the buffers of their server here; asyncio's and uvloop's own TLS
would keep 256 KiB for each.
"""

import contextlib
import ssl
from typing import Any, Protocol

from flowvis.errors import PeerError
from flowvis.transport.plaintext import plaintext_reader, words


class Channel(Protocol):
    """One end of a byte stream."""

    ready: bool
    """Whether application data can pass."""
    confirmed: bool
    """Whether the peer has accepted us; a TLS 1.3 server says so after our side's handshake."""
    ended: bool
    """Whether nothing more can come from the peer."""
    error: PeerError | None
    """Why it ended, if the peer did not say so itself."""

    def receive(self, data: memoryview, into: memoryview) -> memoryview:
        """Take bytes from the socket and return what the peer says in them.

        It is in `into`, which must be larger by ROOM than `data`, or in `data` itself; both belong
        to the caller again at the next call. PeerError where a handshake fails.
        """

    def write(self, data: bytes) -> bytes:
        """Return the bytes for the socket that carry `data`."""

    def outgoing(self) -> bytes:
        """Return what the channel itself has to say to the peer."""

    def finish(self) -> bytes:
        """Return the bytes that say that nothing more comes."""

    def subject(self) -> str:
        """The common name in the peer's certificate; "" without one."""

    def protocol(self) -> str:
        """The application protocol that was agreed on (ALPN); "" for none."""


GRPC = "h2"
"""The application protocol (ALPN) that gRPC is spoken over."""

NOT_GRPC = (
    "a gRPC client, as Antrea's agents are by default from 2.4 on, and this port takes IPFIX: set "
    "flowExporter.flowCollectorAddr of antrea-agent.conf to <this collector>:<this port>:tls"
)

ROOM = 32 << 10  # a record of TLS that was cut off, 16 KiB and some, is decrypted with the next

_SLICE = 32 << 10  # what OpenSSL is fed at a time: its buffer keeps the largest size it ever had


class PlainChannel:
    """Nothing in between."""

    def __init__(self) -> None:
        self.ready = self.confirmed = True
        self.ended = False
        self.error: PeerError | None = None

    def receive(self, data: memoryview, into: memoryview) -> memoryview:  # noqa: ARG002  no copy
        """Return the data as it is."""
        return data

    def write(self, data: bytes) -> bytes:
        """Return the data as it is."""
        return data

    def outgoing(self) -> bytes:
        """Nothing."""
        return b""

    def finish(self) -> bytes:
        """Nothing: the FIN says it."""
        return b""

    def subject(self) -> str:
        """Nobody."""
        return ""

    def protocol(self) -> str:
        """None."""
        return ""


class TlsChannel:
    """TLS over memory, a client's when it is given the server's name."""

    def __init__(self, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        self.ready = self.confirmed = False
        self.ended = False
        self.error: PeerError | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self._reader = plaintext_reader(self._tls)
        if server_name is not None:
            self._handshake()  # the client speaks first

    def receive(self, data: memoryview, into: memoryview) -> memoryview:
        """Decrypt into `into`; the handshake goes on where it is under way."""
        self.confirmed |= self.ready
        filled = 0
        for start in range(0, len(data), _SLICE):
            self._incoming.write(data[start : start + _SLICE])
            if self.ready or self._handshake():
                filled = self._reader.read(into, filled)
                self._note_end()
            if self.ended:
                break
        return into[:filled]

    def write(self, data: bytes) -> bytes:
        """Encrypt; the bytes returned are all that the peer needs to have `data`."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise _peer_error(error) from error
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """Return the bytes of handshake, tickets, alerts and key updates."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def finish(self) -> bytes:
        """Return a close_notify; the peer may still send."""
        with contextlib.suppress(ssl.SSLError):  # wants the peer's, or has nobody to say it to
            self._tls.unwrap()
        return self._outgoing.read()

    def subject(self) -> str:
        """The common name in the peer's certificate."""
        certificate: dict[str, Any] = self._tls.getpeercert() or {}
        names = [item for group in certificate.get("subject", ()) for item in group]
        return next((str(value) for key, value in names if key == "commonName"), "")

    def protocol(self) -> str:
        """What ALPN agreed on."""
        return self._tls.selected_alpn_protocol() or ""

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._refuse_grpc()
            return False
        except ssl.SSLError as error:
            self._refuse_grpc()
            raise _peer_error(error) from error
        self._refuse_grpc()
        self.ready = True
        self.confirmed = self._tls.version() != "TLSv1.3"
        return True

    def _refuse_grpc(self) -> None:
        """End the handshake of a client that speaks gRPC and nothing else, before its certificate.

        A server that selects no protocol would complete it, and the client end it without a word.
        """
        if self._tls.server_side and self._tls.selected_alpn_protocol() == GRPC:
            raise PeerError("grpc", NOT_GRPC)

    def _note_end(self) -> None:
        if self._reader.ended:
            self.ended = True
        if self._reader.fault:
            self.error = _tls_failed(self._reader.fault)


def _peer_error(error: ssl.SSLError) -> PeerError:
    """Name the fault in OpenSSL's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerError("tls-certificate", f"certificate not accepted: {error.verify_message}")
    return _tls_failed(words(error))


def _tls_failed(fault: str) -> PeerError:
    return PeerError("tls", f"TLS failed: {fault}")
