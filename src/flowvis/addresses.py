"""Addresses and networks in text as API servers have taken them, which is more than is written now.

Kubernetes reads addresses with what Go's `net.ParseIP` and `ParseCIDR` were before Go 1.17 (in
k8s.io/utils/net: `ParseIPSloppy`, `ParseCIDRSloppy`): leading zeros of an IPv4 address are decimal,
the bits behind a prefix count for nothing, and an IPv4-mapped address is the IPv4 one. Objects that
have such values stay valid for as long as nobody changes them.
"""

import re
from contextlib import suppress
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_TEXT = 256  # characters; leading zeros have no end otherwise
_MAPPED_BITS = 96
_PLAIN = re.compile(r"[0-9]{1,3}(?:[.][0-9]{1,3}){3}/[0-9]{1,2}")
"""As nearly all networks are written: a policy may have 30,000 of them."""


def parse_address(text: object) -> Address:
    """Read an address; ValueError says that it is none."""
    try:
        return _address(_text(text))
    except ValueError:
        raise ValueError(f"{text!r:.80} is no IP address") from None


def parse_network(text: object) -> Network:
    """Read a CIDR; ValueError says that it is none."""
    try:
        if isinstance(text, str) and _PLAIN.fullmatch(text):
            with suppress(ValueError):  # leading zeros, bits behind the prefix, or no network
                return IPv4Network(text)
        first, _, length = _text(text).partition("/")
        return _network(first, _decimal(length, 128))
    except ValueError:
        raise ValueError(f"{text!r:.80} is no network: write <address>/<prefix length>") from None


def _text(text: object) -> str:
    if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isascii():
        raise ValueError("not a short text")
    return text


def _address(text: str) -> Address:
    """Read an address, an IPv4-mapped one as IPv4."""
    head, colon, tail = text.rpartition(":")
    if not colon:
        return ip_address(_without_zeros(text))
    if "%" in text:
        raise ValueError("with a zone")
    groups = [group.lstrip("0") or group[:1] for group in head.split(":")]
    last = _without_zeros(tail) if "." in tail else tail.lstrip("0") or tail[:1]
    address = IPv6Address(":".join([*groups, last]))
    return address.ipv4_mapped or address


def _without_zeros(text: str) -> str:
    return ".".join(str(_decimal(part, 255)) for part in text.split("."))


def _decimal(text: str, largest: int) -> int:
    if not text.isdigit() or int(text) > largest:
        raise ValueError("not a number that fits")
    return int(text)


def _network(first: str, length: int) -> Network:
    address = _address(first)
    if ":" in first and address.version == 4:
        if length < _MAPPED_BITS:
            raise ValueError("neither an IPv4 nor an IPv6 network")
        length -= _MAPPED_BITS
    return ip_network((address.packed, length), strict=False)


def may_be_resolved(host: str) -> bool:
    """Whether a resolver can be asked for a name, by its letters and the lengths of its labels.

    Python itself refuses others, and with no OSError.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return host.isprintable()
