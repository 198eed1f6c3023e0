"""The reference LZ4 packer: columns of wide values to one block of the LZ4 format.

LZ4's own compressor looks up in a hash table where it has seen four bytes before. In a column of
64-bit numbers or of addresses the best answer is nearly always the value before: most of its bytes
are the same. So only that is compared, eight bytes at a time; it takes a third of the time, and the
block is about a half longer. Any LZ4 decompressor reads it.

The format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md. A sequence is a token (how
many literals, how long the match), the literals, how far back the match is; the last sequence of a
block has literals alone.
"""

from collections.abc import Sequence

from flowvis.native.contract.lz4 import MIN_MATCH, TAIL, WORD, Part, check_parts

_SHORT = 15  # from here on a length goes on behind its half of the token


def pack_columns(parts: Sequence[Part]) -> bytes:
    """Return one LZ4 block that decompresses to the bytes of all parts.

    ValueError for a width that is none.
    """
    check_parts(parts)
    out, held = bytearray(), b""
    for data, width in parts:
        held = _part(out, held, bytes(data), width)
    _literals(out, held, 0)
    return bytes(out)


def _part(out: bytearray, held: bytes, data: bytes, width: int) -> bytes:
    """Write a part behind the literals that are held of those before; return what is held then."""
    begins = at = width  # of what is the same as a value before; how far was compared
    written = 0
    while at <= len(data) - TAIL - WORD:
        differ = [place for place in range(WORD) if data[at + place] != data[at + place - width]]
        if differ:
            stop = at + differ[0]
            if stop - begins >= MIN_MATCH:
                _sequence(out, held + data[written:begins], stop - begins, width)
                held, written = b"", stop
            begins = at + differ[-1] + 1
        at += WORD
    if at - begins >= MIN_MATCH:
        _sequence(out, held + data[written:begins], at - begins, width)
        held, written = b"", at
    return held + data[written:]


def _sequence(out: bytearray, literals: bytes, length: int, distance: int) -> None:
    more = length - MIN_MATCH
    _literals(out, literals, min(more, _SHORT))
    out += distance.to_bytes(2, "little")
    if more >= _SHORT:
        _rest(out, more - _SHORT)


def _literals(out: bytearray, literals: bytes, match: int) -> None:
    out.append(min(len(literals), _SHORT) << 4 | match)
    if len(literals) >= _SHORT:
        _rest(out, len(literals) - _SHORT)
    out += literals


def _rest(out: bytearray, length: int) -> None:
    """Write what of a length does not fit into the token."""
    out += b"\xff" * (length // 255)
    out.append(length % 255)
