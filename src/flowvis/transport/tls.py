"""TLS contexts from files, and fresh ones when the files change.

Sessions keep the context that they were made with, so that new certificates cost none. kubelet
replaces mounted Secrets by swapping a symbolic link, hence contents are compared, not dates.
"""

import contextlib
import hashlib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flowvis.errors import SettingsError
from flowvis.ipfix.acknowledgement import PROTOCOL
from flowvis.runtime.trust import trusting_each
from flowvis.transport.channel import GRPC
from flowvis.transport.validity import end_s

OTHER_PROTOCOLS = ("ipfix", "http/1.1")
"""What a server selects (ALPN) rather than h2, whoever offers it too: IPFIX has no name there, and
a client that offers something else beside h2 is not one of gRPC. Before all it selects our own."""

C = TypeVar("C", bound=ssl.SSLContext)

VERSIONS = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}


class Pem(Protocol):
    """A file, or what reads like one: `Path` is one. Its text names it for people."""

    def read_bytes(self) -> bytes:
        """Return the content as it is now; OSError says why there is none."""


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of one end; None as CA means the system's roots, as certificate: none."""

    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    min_version: str = "VersionTLS12"

    def server_context(self) -> ssl.SSLContext:
        """Return a context that demands a client certificate signed by the CA."""
        missing = [
            f"tls.{name}: no file is named; a server needs one"
            for name in ("ca", "certificate", "key")
            if getattr(self, name) is None
        ]
        if missing:
            raise SettingsError(missing)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols([PROTOCOL, *OTHER_PROTOCOLS, GRPC])  # see TlsChannel
        context.num_tickets = 1  # tells the client that its certificate was accepted
        return self.fill(context)

    def https_context(self, ciphers: str = "") -> ssl.SSLContext:
        """Return a context for an HTTP server: clients show no certificate.

        `ciphers` are those of TLS 1.2, in OpenSSL's words; its own choice where empty.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        if ciphers:
            context.set_ciphers(ciphers)
        return self.fill(context)

    def client_context(self) -> ssl.SSLContext:
        """Return a context that verifies the server's certificate and name."""
        return self.fill(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def fingerprint(self) -> bytes:
        """A digest of the files' contents; what cannot be read counts as empty."""
        digest = hashlib.sha256()
        for pem in (self.ca, self.certificate, self.key):
            content = b""
            if pem is not None:
                with contextlib.suppress(OSError):
                    content = pem.read_bytes()
            digest.update(len(content).to_bytes(8, "big") + content)
        return digest.digest()

    def ends_s(self) -> float | None:
        """Until when the certificate is valid, in seconds since the epoch; None without one."""
        if self.certificate is None:
            return None
        try:
            return end_s(self.certificate.read_bytes())
        except OSError:
            return None

    def fill(self, context: C) -> C:
        """Have a context use the files; SettingsError where they are not good."""
        ca, certificate, key = self._contents()
        context.minimum_version = VERSIONS[self.min_version]
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        if ca is None and context.verify_mode is not ssl.CERT_NONE:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        elif ca is not None:
            try:
                with _in_memory(ca) as path:
                    trusting_each(context).load_verify_locations(cafile=path)
            except OSError as error:
                raise SettingsError([f"tls.ca: {self.ca}: {_reason(error)}"]) from error
        if certificate is not None and key is not None:
            try:
                with _in_memory(certificate) as path, _in_memory(key) as key_path:
                    context.load_cert_chain(path, key_path)
            except OSError as error:
                both = f"{self.certificate} and {self.key}"
                if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
                    problem = f"tls.key: {self.key} is not the key of {self.certificate}"
                else:
                    problem = f"tls.certificate: {both}: {_reason(error)}"
                raise SettingsError([problem]) from error
        return context

    def _contents(self) -> list[bytes | None]:
        """Read CA, certificate and key; SettingsError for what can be told from them alone."""
        contents: list[bytes | None] = []
        problems = []
        for name, pem, mark in (
            ("ca", self.ca, b"CERTIFICATE-----"),
            ("certificate", self.certificate, b"CERTIFICATE-----"),
            ("key", self.key, b"PRIVATE KEY-----"),
        ):
            try:
                contents.append(None if pem is None else _read(pem, mark))
            except ValueError as error:
                problems.append(f"tls.{name}: {error}")
        if (self.certificate is None) != (self.key is None):
            lone = "key" if self.certificate is None else "certificate"
            problems.append(f"tls.{lone}: a certificate and its key go together; give both")
        if problems:
            raise SettingsError(problems)
        return contents


class TlsReloader:
    """Hands out the newest context that the files gave; a bad change keeps the last good one."""

    def __init__(
        self,
        files: TlsFiles,
        *,
        server: bool = False,
        make: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`make` makes a context of the files, where that is neither of the usual two."""
        self.files = files
        self.reloads = 0
        self.failures = 0
        self.ends_s: float | None = None
        """Until when the certificate in use is valid, in seconds since the epoch."""
        self._make = make or (files.server_context if server else files.client_context)
        self._seen = self._bad = b""
        self._context: ssl.SSLContext | None = None

    @property
    def loaded(self) -> bool:
        """Whether the files were good once."""
        return self._context is not None

    def context(self) -> ssl.SSLContext:
        """Return the current context; until there is one, read the files."""
        if self._context is None:
            self._seen = self.files.fingerprint()
            self._context = self._make()
            self.ends_s = self.files.ends_s()
        return self._context

    def refresh(self) -> bool:
        """Look at the files; True if there is a new context. SettingsError says what is wrong.

        A certificate and its key may be seen between their two replacements, and good files at a
        time without descriptors or memory: they are looked at again at the next call. Each bad
        content is reported once.
        """
        seen = self.files.fingerprint()
        if seen == self._seen:
            return False
        try:
            self._context = self._make()
        except SettingsError:
            if seen == self._bad:
                return False
            self._seen, self._bad = b"", seen
            self.failures += 1
            raise
        self._seen, self._bad = seen, b""
        self.ends_s = self.files.ends_s()
        self.reloads += 1
        return True


def _read(pem: Pem, mark: bytes) -> bytes:
    """Return the content; ValueError says what is wrong with it."""
    try:
        content = pem.read_bytes()
    except OSError as error:
        raise ValueError(f"{pem} cannot be read: {error.strerror}") from error
    if mark not in content:
        raise ValueError(f"{pem} is not PEM: it has no line that ends in {mark.decode()}")
    if b"ENCRYPTED" in content:
        raise ValueError(f"{pem} is encrypted: remove the passphrase (openssl pkey)")
    return content


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Make a file of what was read, as `ssl` takes keys from files only: no directory has it."""
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _reason(error: OSError) -> str:
    """Say what is wrong with a file, in OpenSSL's words or in the system's."""
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    return (error.reason or str(error)).replace("_", " ").lower()
