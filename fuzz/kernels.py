"""What kernels and virtual switches say: connections, and packets with what senders put in."""

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.denials.nflog import LogDecoder
from flowvis.denials.prefixes import Prefixes
from flowvis.native import conntrack, dpctl
from flowvis.native.reference import conntrack as reference
from flowvis.native.reference import dpctl as dpctl_reference

NOW_MS = 1_790_000_000_000


def conntrack_one(data: bytes) -> None:
    """Decode a dump's bytes; both forms of the leaf must agree."""
    found = []
    for leaf in (conntrack, reference):
        decoder = leaf.EntryDecoder()
        end = decoder.feed(data)
        found.append(((end, decoder.malformed, decoder.interrupted), decoder.take()))
    _agree(*found)


def dpctl_one(data: bytes) -> None:
    """Decode a dump of Open vSwitch's own connection tracker; both forms of the leaf must agree."""
    found = []
    for leaf in (dpctl, dpctl_reference):
        decoder = leaf.LineDecoder()
        decoder.feed_lines(data)
        found.append((decoder.malformed, decoder.take()))
    _agree(*found)


def _agree(
    compiled: tuple[object, dict[str, NDArray[Any]]], other: tuple[object, dict[str, NDArray[Any]]]
) -> None:
    assert compiled[0] == other[0], f"{compiled[0]} and {other[0]}"
    for name, column in compiled[1].items():
        assert np.array_equal(column, other[1][name]), name


def nflog_one(data: bytes) -> None:
    """Decode logged packets."""
    decoder = LogDecoder(Prefixes())
    packets = decoder.decode(data, NOW_MS)
    columns = [
        getattr(packets, field.name) for field in fields(packets) if field.name != "verdicts"
    ]
    assert {len(column) for column in columns} == {len(packets)}
    assert all(0 <= number < len(packets.verdicts) for number in packets.verdict)
