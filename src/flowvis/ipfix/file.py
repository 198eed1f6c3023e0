"""IPFIX files (RFC 5655): messages one after the other, each with its checksum.

A file begins with its templates, as a session does. Each message ends with a data record of the
Message Checksum options template (section 8.1.1), so that a reader knows which messages are as they
were written; one that is not costs itself only. Does no I/O.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flowvis.batch import Batch
from flowvis.errors import PeerError
from flowvis.fields import Field
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.ipfix.exporter import TEMPLATE_IDS, ExporterSession
from flowvis.ipfix.template import (
    OPTIONS_TEMPLATE_SET,
    FieldSpecifier,
    Template,
    write_set,
    write_template,
)
from flowvis.native.contract.ipfix import HEADER, SET, VERSION, Buffer
from flowvis.strings import Strings

LARGEST_MESSAGE = 65535

MESSAGE_SCOPE, MESSAGE_MD5_CHECKSUM = 263, 262  # IANA elements
_CHECKSUM_TEMPLATE = max(TEMPLATE_IDS.values()) + 1
_OPTIONS = write_set(
    OPTIONS_TEMPLATE_SET,
    write_template(
        Template(
            _CHECKSUM_TEMPLATE,
            (FieldSpecifier(0, MESSAGE_SCOPE, 1), FieldSpecifier(0, MESSAGE_MD5_CHECKSUM, 16)),
            scope_count=1,
        )
    ),
)
_THIS_MESSAGE = b"\1"  # the value of messageScope
_CHECKSUM_SIZE = 16
_EMPTY = write_set(_CHECKSUM_TEMPLATE, _THIS_MESSAGE + bytes(_CHECKSUM_SIZE))
_TRAILER = _EMPTY[:-_CHECKSUM_SIZE]


class FileWriter:
    """Turn batches into the content of files, one after the other.

    `now` is in seconds since the epoch.
    """

    def __init__(self, domain: int, fields: Sequence[Field]) -> None:
        self._session = ExporterSession(domain, fields, max_message=LARGEST_MESSAGE - len(_EMPTY))
        self._domain = domain
        self._checksums = 0  # data records beside those of batches, in the sequence as well

    def begin(self, now: int) -> bytes:
        """What the next file begins with: the templates."""
        self._session.restart()
        self._checksums = 0
        options = HEADER.pack(VERSION, HEADER.size + len(_OPTIONS), now, 0, self._domain) + _OPTIONS
        return self._checked([options, *self._session.templates(now)])

    def records(self, batch: Batch, now: int) -> bytes:
        """The records of a batch, in the file that was begun last."""
        return self._checked(self._session.encode(batch, now))

    def _checked(self, messages: Sequence[bytes]) -> bytes:
        return b"".join(part for message in messages for part in self._with_checksum(message))

    def _with_checksum(self, message: bytes) -> tuple[Buffer, ...]:
        """Return the parts of a message with its checksum."""
        version, length, time, sequence, domain = HEADER.unpack_from(message)
        sequence = (sequence + self._checksums) & 0xFFFFFFFF
        self._checksums += 1
        header = HEADER.pack(version, length + len(_EMPTY), time, sequence, domain)
        parts = header, memoryview(message)[HEADER.size :], _TRAILER
        return *parts, _checksum(parts)


@dataclass(frozen=True, slots=True, eq=False)
class FileContent:
    """What a file has."""

    batch: Batch
    damaged: int
    """Messages that are not as they were written; where one tells no length and none that is whole
    follows, the rest is one."""


def read_file(data: bytes, fields: Sequence[Field], strings: Strings) -> FileContent:
    """Return the records of all sound messages, as these fields and text of `strings`.

    A file that ends within a message has lost its writer there: that one is no damage.
    """
    buffer = RecordBuffer(fields, strings)
    session = CollectorSession("file", buffer)
    damaged = 0
    for message in _messages(data):
        if message is None:
            damaged += 1
            continue
        try:
            session.receive(message)
        except PeerError:  # sound by its checksum, and not of ours
            damaged += 1
            break
    batch = buffer.batch().select(field.name for field in fields)
    return FileContent(batch.take(np.arange(len(batch))), damaged)


def _messages(data: bytes) -> Iterator[bytes | None]:
    """Go through the messages of a file; None for one that is damaged."""
    view, at = memoryview(data), 0
    while len(data) - at >= HEADER.size:
        version, length, *_ = HEADER.unpack_from(data, at)
        ours = version == VERSION and length >= HEADER.size + SET.size
        end = at + length
        message = bytes(view[at:end]) if ours else b""
        if len(message) == length and _sound(message):
            yield message
        elif ours and _may_end(data, end):
            yield None
        else:  # its length is damaged, or its writer was lost
            if (found := _next_end(data, at)) >= 0 or not ours or end <= len(data):
                yield None
            if found < 0:
                return
            end = found
        at = end


def _may_end(data: bytes, end: int) -> bool:
    """Whether a message may end there: where the file does, or another one begins."""
    return end == len(data) or data[end : end + 2] == VERSION.to_bytes(2)


def _next_end(data: bytes, at: int) -> int:
    """Return where the next message with a trailer ends, whatever is before it; -1 without one."""
    place = data.find(_TRAILER, at)
    end = place + len(_EMPTY)
    return end if place >= 0 and end <= len(data) else -1


def _sound(message: bytes) -> bool:
    place = len(message) - len(_EMPTY)
    if place < HEADER.size or message[place:-_CHECKSUM_SIZE] != _TRAILER:
        return False
    return message[-_CHECKSUM_SIZE:] == _checksum([memoryview(message)[:-_CHECKSUM_SIZE]])


def _checksum(parts: Iterable[Buffer]) -> bytes:
    """The MD5 of a message whose checksum comes after these parts, as if that were zero."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in (*parts, bytes(_CHECKSUM_SIZE)):
        digest.update(part)
    return digest.digest()
