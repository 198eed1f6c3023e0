"""What the kernel sends: conntrack entries, and logged packets with what their senders put in."""

from dataclasses import fields

import numpy as np

from flowvis.denials.nflog import LogDecoder
from flowvis.denials.prefixes import Prefixes
from flowvis.native import conntrack
from flowvis.native.reference import conntrack as reference

NOW_MS = 1_790_000_000_000


def conntrack_one(data: bytes) -> None:
    """Decode a dump's bytes; both forms of the leaf must agree."""
    found = []
    for leaf in (conntrack, reference):
        decoder = leaf.EntryDecoder()
        end = decoder.feed(data)
        columns = decoder.take()
        found.append((end, decoder.malformed, decoder.interrupted, columns))
    (*compiled, columns), (*other, others) = found
    assert compiled == other, f"{compiled} and {other}"
    for name, column in columns.items():
        assert np.array_equal(column, others[name]), name


def nflog_one(data: bytes) -> None:
    """Decode logged packets."""
    decoder = LogDecoder(Prefixes())
    packets = decoder.decode(data, NOW_MS)
    columns = [
        getattr(packets, field.name) for field in fields(packets) if field.name != "verdicts"
    ]
    assert {len(column) for column in columns} == {len(packets)}
    assert all(0 <= number < len(packets.verdicts) for number in packets.verdict)
