"""What an exporter sends: IPFIX, in pieces of any size. Both forms of the leaf must agree."""

from contextlib import ExitStack
from types import ModuleType
from unittest.mock import patch

from flowvis.errors import PeerError
from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorLimits, CollectorSession, RecordBuffer
from flowvis.native import ipfix, strings
from flowvis.native.reference import ipfix as ipfix_reference
from flowvis.native.reference import strings as strings_reference

LIMITS = CollectorLimits(templates=4, template_fields=80, text_size=40)

LEAVES = ((ipfix, strings), (ipfix_reference, strings_reference))


def one(data: bytes) -> None:
    """Feed a stream; its first byte says where it is cut into pieces."""
    cut = data[0] if data else 0
    pieces = [data[1 : 1 + cut], data[1 + cut :]]
    _compare(pieces)


def datagrams_one(data: bytes) -> None:
    """Feed datagrams, as long as the first byte says, some of them out of order."""
    size = 16 + (data[0] if data else 0)
    pieces = [data[at : at + size] for at in range(1, len(data), size)]
    _compare([*pieces[1:2], *pieces[:1], *pieces[2:]], datagrams=True)


def _compare(pieces: list[bytes], *, datagrams: bool = False) -> None:
    compiled, reference = (_outcome(*leaf, pieces, datagrams=datagrams) for leaf in LEAVES)
    assert compiled == reference, "the leaf and its reference differ"


def _outcome(
    leaf: ModuleType, tables: ModuleType, pieces: list[bytes], *, datagrams: bool
) -> list[object]:
    """Return all that can be seen of a session after a stream, or datagrams."""
    with ExitStack() as stack:
        stack.enter_context(patch("flowvis.ipfix.collector.RecordDecoder", leaf.RecordDecoder))
        stack.enter_context(patch("flowvis.ipfix.buffer.RecordTarget", leaf.RecordTarget))
        table = tables.StringTable()
        buffer = RecordBuffer(EXPORTED, table)
        session = CollectorSession("peer", buffer, LIMITS, datagrams=datagrams)
        events: list[str] = []
        error = ""
        try:
            if datagrams:
                events += map(repr, session.receive_datagrams(pieces))
            else:
                for piece in pieces:
                    events += map(repr, session.receive(piece))
                session.eof()
        except PeerError as raised:  # what a peer may cause
            error = f"{type(raised).__name__} {raised}"
        batch = buffer.batch()
    columns = {field.name: batch[field.name].tobytes() for field in EXPORTED}
    texts = [bytes(part) for part in table.packed()]
    return [error, events, repr(session.stats), columns, texts]
