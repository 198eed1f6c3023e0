"""IPFIX written out by hand, without the code under test: RFC 7011 section 3."""

from struct import pack

IANA, REVERSE, ANTREA = 0, 29305, 56506
VARIABLE = 65535


def message(*sets: bytes, sequence: int = 0, domain: int = 7, time: int = 1_790_000_000) -> bytes:
    body = b"".join(sets)
    return pack(">HHIII", 10, 16 + len(body), time, sequence, domain) + body


def set_of(set_id: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return pack(">HH", set_id, 4 + len(body)) + body


def specifiers(*fields: tuple[int, int, int]) -> bytes:
    """Fields as (enterprise, id, length)."""
    return b"".join(
        pack(">HHI", number | 0x8000, length, enterprise)
        if enterprise
        else pack(">HH", number, length)
        for enterprise, number, length in fields
    )


def template(template_id: int, *fields: tuple[int, int, int]) -> bytes:
    return pack(">HH", template_id, len(fields)) + specifiers(*fields)


def templates(*records: bytes) -> bytes:
    return set_of(2, *records)


def options_template(template_id: int, scopes: int, *fields: tuple[int, int, int]) -> bytes:
    return set_of(3, pack(">HHH", template_id, len(fields), scopes), specifiers(*fields))


def withdrawal(template_id: int) -> bytes:
    return pack(">HH", template_id, 0)


def text(value: str) -> bytes:
    raw = value.encode()
    return (bytes([len(raw)]) if len(raw) < 255 else b"\xff" + pack(">H", len(raw))) + raw
