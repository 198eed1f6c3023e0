"""The certificate that the API shows."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from flowvis.aggregator.api.settings import ApiSettings
from flowvis.transport.certificates import issue_ca, issue_server
from flowvis.transport.tls import Pem, TlsFiles, TlsReloader


@dataclass(frozen=True)
class _InMemory:
    """A file that is none."""

    content: bytes

    def __str__(self) -> str:
        return "in memory"

    def read_bytes(self) -> bytes:
        return self.content


def certificates(
    settings: ApiSettings, exporters: TlsFiles | None, names: Sequence[str]
) -> TlsReloader | None:
    """Return where the certificate is from: the settings, or the one that exporters meet.

    Where these come without TLS there is none: one is made, for `names`, that nobody has signed, as
    Antrea's API server has it. None where the API is not to use TLS.
    """
    if not settings.tls:
        return None
    version = settings.tls_min_version or "VersionTLS12"
    certificate: Pem | None = settings.certificate
    key: Pem | None = settings.key
    if certificate is None and exporters is not None:
        certificate, key = exporters.certificate, exporters.key
    elif certificate is None:
        issued = issue_server(issue_ca("flow-aggregator-self"), names)
        certificate, key = _InMemory(issued.certificate_pem()), _InMemory(issued.key_pem())
    files = TlsFiles(None, certificate, key, version)

    def make() -> ssl.SSLContext:
        return files.https_context(settings.tls_cipher_suites.openssl)

    return TlsReloader(files, make=make)
