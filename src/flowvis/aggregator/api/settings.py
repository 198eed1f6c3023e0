"""The configuration of the HTTP API on TCP, under Antrea's names where it has the option."""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from flowvis.inventory.settings import Enable
from flowvis.runtime.settings import option
from flowvis.transport.tls import VERSIONS

_SUITE = re.compile(r"TLS_[A-Z0-9_]+")


@dataclass(frozen=True)
class CipherSuites:
    """Suites of TLS 1.2 by their names in IANA's registry, as Go and Antrea write them."""

    text: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def openssl(self) -> str:
        """The same in OpenSSL's names; "" where there are none (those of TLS 1.3 are always on)."""
        names = [name.strip() for name in self.text.split(",") if name.strip()]
        return ":".join(_openssl(name) for name in names if "_WITH_" in name)


def parse_suites(text: str) -> CipherSuites:
    """Read a list with commas; ValueError names what OpenSSL does not know."""
    suites = CipherSuites(text)
    for name in (name.strip() for name in text.split(",") if name.strip()):
        if not _SUITE.fullmatch(name):
            raise ValueError(f"has {name[:80]!r}: write TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
        if "_WITH_" in name:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(_openssl(name))
            except ssl.SSLError as error:
                raise ValueError(f"has {name[:80]!r}, which OpenSSL does not offer") from error
    return suites


def _openssl(name: str) -> str:
    text = name.removeprefix("TLS_").replace("_WITH_", "_").replace("AES_", "AES").replace("_", "-")
    text = text.replace("-CBC", "").removeprefix("RSA-")
    return text.partition("POLY1305")[0] + "POLY1305" if "POLY1305" in text else text


@dataclass(frozen=True)
class ApiSettings:
    """The HTTP API and the console."""

    enable: Enable = option(
        Enable.AUTO,
        doc="Whether the API is served on TCP; auto: where there is somebody to say who asks, "
        "which is the API server of a cluster, or tokenFile. The control socket always is",
    )
    address: str = option("127.0.0.1", doc="Local address; `::` takes IPv4 as well", in_pod="::")
    api_port: int = option(10348, doc="Local port; 0: any free one", minimum=0, maximum=65535)
    tls: bool = option(True, doc="HTTPS; without it only on a loopback address")
    certificate: Path | None = option(
        None,
        doc="The certificate (PEM) of the API; by default that of `tls.certificate`, or where "
        "exporters come over TCP one that nobody has signed",
    )
    key: Path | None = option(None, doc="Its private key (PEM)")
    tls_cipher_suites: CipherSuites = option(
        "",
        doc="Cipher suites of TLS 1.2, with commas; empty: OpenSSL's own choice",
        parse=parse_suites,
        takes="names of the IANA registry, with commas",
    )
    tls_min_version: str = option(
        "", doc="The oldest TLS to speak; empty: VersionTLS12", choices=("", *VERSIONS)
    )
    token_file: Path | None = option(
        None,
        doc="A file of tokens, a line each: `TOKEN NAME [NAMESPACE,...]`; without namespaces the "
        "token shows all. Looked at again when it changes. In a cluster these are known beside "
        "the tokens of its users",
    )
    max_connections: int = option(
        256,
        doc="Connections at one time; at more, those of the address with most that ask nothing "
        "give way",
        minimum=8,
    )
    requests_per_second: float = option(
        50.0, doc="Requests of one caller in a second, on average", minimum=0.1
    )
    max_concurrent: int = option(
        16, doc="Requests of one caller at one time, streams included", minimum=1
    )

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        if not self.tls and not is_loopback(self.address):
            yield "tls", f"false: only on a loopback address, and address is {self.address}"
        if (self.certificate is None) != (self.key is None):
            lone = "key" if self.certificate is None else "certificate"
            yield lone, "a certificate and its key go together; give both"

    def wanted(self, *, kubernetes: bool) -> bool:
        """Whether it is served; `kubernetes`: whether there is an API server to ask."""
        if self.enable is Enable.AUTO:
            return kubernetes or self.token_file is not None
        return self.enable is Enable.TRUE


def is_loopback(host: str) -> bool:
    """Whether a host, as it stands in a setting or a URL, is this machine and no other."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
