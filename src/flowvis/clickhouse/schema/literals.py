"""Texts in SQL that this program writes: they may be anybody's."""

import re

_BARE = re.compile(rb"[^'\\\x00-\x1f\x7f]*")


def literal(text: str | bytes) -> str:
    """Write a text as a literal that all versions of ClickHouse read alike, and that is UTF-8.

    It may be bytes that are not.
    """
    value = text.encode() if isinstance(text, str) else text
    if _BARE.fullmatch(value):
        try:
            return f"'{value.decode()}'"
        except UnicodeDecodeError:
            pass
    plain = range(0x20, 0x7F)
    written = (chr(b) if b in plain and b not in b"'\\" else f"\\x{b:02X}" for b in value)
    return f"'{''.join(written)}'"
