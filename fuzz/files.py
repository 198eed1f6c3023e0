"""What lies on an exporter's disk: an IPFIX file, that may have become anything."""

import hashlib

from flowvis.fields import EXPORTED
from flowvis.ipfix.file import FileWriter, read_file
from flowvis.native import StringTable

CHECKSUM = 16  # bytes, the last of a message


def one(data: bytes) -> None:
    """Read a file; by its first byte its checksums are made sound before, so that more is read."""
    seal, data = data[:1] > b"\x7f", data[1:]
    content = read_file(_sealed(data) if seal else data, EXPORTED, StringTable())
    if not len(content.batch):
        return
    writer = FileWriter(7, EXPORTED)
    written = writer.begin(1) + writer.records(content.batch, 1)
    again = read_file(written, EXPORTED, StringTable())
    assert not again.damaged
    assert len(again.batch) == len(content.batch), "what was read cannot be written"
    for name in ("octetTotalCount", "flowEndReason"):
        total = again.batch[name].sum(dtype="u8")
        assert total == content.batch[name].sum(dtype="u8"), name


def _sealed(data: bytes) -> bytes:
    """Return messages with the checksums that they would have been written with."""
    messages, at = [], 0
    while at < len(data):
        length = max(int.from_bytes(data[at + 2 : at + 4]), CHECKSUM)
        message = data[at : at + length][:-CHECKSUM]
        messages += [message, hashlib.md5(message + bytes(CHECKSUM)).digest()]  # noqa: S324
        at += length
    return b"".join(messages)
