"""Where a collector is: `host`, `host:port`, `host:port:proto`, `[v6]:port:proto`."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from flowvis.addresses import may_be_resolved

DEFAULT_PORT = 4739  # IANA: ipfix
PROTOCOLS = ("tls", "tcp", "udp")
LATER = ("grpc",)  # Antrea's other protocol

_NUMERIC = re.compile(r"[0-9.]+")

FORM = "<host>[:<port>[:<proto>]], an IPv6 address in brackets"


@dataclass(frozen=True)
class CollectorAddress:
    """A collector; `host` is a name, an address or a Kubernetes `namespace/service`."""

    host: str
    port: int = DEFAULT_PORT
    protocol: str = "tls"

    @property
    def dns_name(self) -> str:
        """What to resolve: a Service by its cluster DNS name."""
        namespace, slash, service = self.host.partition("/")
        return f"{service}.{namespace}.svc" if slash else self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}:{self.protocol}"


def parse_collector_address(text: str, default_protocol: str = "tls") -> CollectorAddress:
    """Read a collector's address; ValueError says what is wrong with it."""
    host, rest = _split_host(text)
    parts = rest.split(":") if rest else []
    if len(parts) > 2:
        raise ValueError(f"is not a collector address: write {FORM}")
    port = parts[0] if parts else ""
    protocol = (parts[1] if len(parts) == 2 else "").lower() or default_protocol
    if protocol in LATER:
        raise ValueError(f"is over {protocol}, which is not supported: use {', '.join(PROTOCOLS)}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"is over {protocol!r}, which is no protocol: use {', '.join(PROTOCOLS)}")
    return CollectorAddress(host, _port(port), protocol)


def parse_host(text: str) -> str:
    """Read who a certificate is for: a name or an address, also as a collector's is written.

    An IPv6 address may be in brackets, and a port and protocol may follow; they are left out.
    """
    if not text or _is_ipv6(text):
        return str(IPv6Address(text)) if text else ""
    return CollectorAddress(_split_host(text)[0]).dns_name


def _split_host(text: str) -> tuple[str, str]:
    """Separate the host from what follows its colon."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"is not a collector address: write {FORM}")
        if not _is_ipv6(host):
            raise ValueError(f"has {host!r} in brackets, which is no IPv6 address")
        return str(IPv6Address(host)), rest[1:]
    if _is_ipv6(text):
        raise ValueError(f"is an IPv6 address without brackets: write [{text}]")
    host, _, rest = text.partition(":")
    slashes = host.count("/")
    if not host or slashes > 1 or (slashes and not all(host.split("/"))) or host != host.strip():
        raise ValueError(f"names no host: write {FORM}")
    if not may_be_resolved(host.replace("/", ".")):
        raise ValueError(f"has {host!r}, which is no name: one of its labels is empty or too long")
    if _NUMERIC.fullmatch(host) and not _is_ipv4(host):
        # Resolvers read such ones in ways of their own: 010 as 8, 10.1 as 10.0.0.1.
        raise ValueError(f"has {host!r}, which is no IPv4 address: write 192.0.2.1, without zeros")
    return host, rest


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def _port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise ValueError(f"has port {text!r}: a port is a number from 1 to 65535")
    return int(text)
