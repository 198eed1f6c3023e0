"""What an earlier process left on disk, of which anybody may have changed a part.

Checksums are made right here: what they would keep out is not what is looked for.
"""

import json
import zlib
from contextlib import suppress

from flowvis.clickhouse.schema import spooled
from flowvis.clickhouse.schema.spooled import CorruptFile, restored
from flowvis.fields import EXPORTED, TEXT_FIELDS
from flowvis.ipfix import file
from flowvis.ipfix.file import read_file
from flowvis.native import StringTable

CUT = b"\xffCUT"
"""Where one message of a file ends and the next begins, in inputs of `kept_one`."""


def spool_one(data: bytes) -> None:
    """Read a file of the spool: from its head on, or a block in a head that fits it."""
    whole, body = data[:1] != b"\1", data[1:]
    if not whole:
        rows = body[0] if body else 0
        head = {"writer": "a", "inserted": 1, "number": 2, "records": rows, "bytes": len(body) - 1}
        text = json.dumps(head).encode()
        size = spooled._SIZE.pack(len(text))
        body = spooled._MAGIC + size + text + zlib.compress(body[1:], 1)
    with suppress(CorruptFile):
        batch, _ = restored(body + spooled._check(body))
        for name in TEXT_FIELDS:
            if name in batch.columns:
                batch.texts(name)


def kept_one(data: bytes) -> None:
    """Read a file of records that were not acknowledged."""
    sound = b"".join(map(_checked, data.split(CUT)))
    for content in (data, sound):
        found = read_file(content, EXPORTED, StringTable())
        assert {len(column) for column in found.batch.columns.values()} == {len(found.batch)}


def _checked(message: bytes) -> bytes:
    """A message with its length and its checksum set right."""
    body = message + file._TRAILER
    length = (len(body) + file._CHECKSUM_SIZE) & 0xFFFF
    body = body[:2] + length.to_bytes(2) + body[4:]
    return body + file._checksum([body])
