"""Until when a certificate is valid, without a library: one takes each node's exporter 8 MB.

RFC 5280, 4.1. What is read here has been loaded by OpenSSL before; of anything else there is no
answer.
"""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_END = "-----END CERTIFICATE-----"
_VERSION = 0xA0
_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime
_PIVOT, _CENTURY = 2050, 100  # years of two digits are 1950 to 2049; of Python's, to 2068


def end_s(pem: bytes) -> float | None:
    """Return the end of the first certificate's validity, in seconds since the epoch."""
    try:
        text = pem.decode("ascii", "replace")
        text = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(_END) + len(_END)]
        (_, certificate), *_ = _values(ssl.PEM_cert_to_DER_cert(text))
        (_, signed), *_ = _values(certificate)
        values = [value for tag, value in _values(signed) if tag != _VERSION]
        _, (tag, end) = _values(values[3])  # after serial number, algorithm, issuer
        time = datetime.strptime(end.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC)
    except (ValueError, IndexError, KeyError):
        return None
    if tag == 0x17 and time.year >= _PIVOT:
        time = time.replace(year=time.year - _CENTURY)
    return time.timestamp()


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Go through tags and values; ValueError where one is cut off."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            more = size & 0x7F
            size, at = int.from_bytes(der[at : at + more]), at + more
        if at + size > len(der):
            raise ValueError("cut off")
        yield tag, der[at : at + size]
        at += size
