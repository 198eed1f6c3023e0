"""Who fills the connection table of an exporter's node, in records of options.

As an exporter's report of itself (`exporter_report`): only in sessions between our own two ends, at
their beginning and now and then. A message has one set, of a record for each occupant, which takes
the place of whatever was said before. The scope is the observation domain (IANA 149).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from flowvis.errors import MalformedSet
from flowvis.ipfix.exporter_report import EXAMPLES
from flowvis.ipfix.template import (
    OPTIONS_TEMPLATE_SET,
    FieldSpecifier,
    Template,
    write_set,
    write_template,
)
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, VARIABLE, VERSION
from flowvis.strings import shortened, utf8

MOST = 32
"""Occupants of a message; an exporter of ours tells of fewer."""
_FIRST_ELEMENT = 16
_SHORT = 254  # bytes of a text whose length takes one byte (RFC 7011 section 7); names have 253
_MOST_ENTRIES = 1 << 32  # more than a kernel can track
_SCOPE = Struct(">I")
_NUMBERS = Struct(">BQQ")
_SOURCE, _DESTINATION = 1, 2


@dataclass(frozen=True, slots=True)
class Occupant:
    """Whose entries some are, and how many.

    A Pod that nothing owns is its own workload, of the kind Pod. What is no workload of the node
    has a `workload` in parentheses, which no object of Kubernetes can have, and no namespace.
    """

    namespace: str
    kind: str
    workload: str
    opened: bool
    """Whether it opened these connections; else it was called, by who is not of this node."""
    entries: int
    unanswered: int
    """Of these, such as no packet has come back for."""

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.workload}" if self.namespace else self.workload
        said = "opened" if self.opened else "was called by others for"
        return f"{name} {said} {self.entries}, {self.unanswered} of them unanswered"

    def as_dict(self) -> dict[str, str | int]:
        """The occupant as the API shows it."""
        return {
            "namespace": self.namespace,
            "kind": self.kind,
            "workload": self.workload,
            "end": self.end,
            "entries": self.entries,
            "unanswered": self.unanswered,
        }

    @property
    def end(self) -> str:
        """Which end of the connections it is: "source" or "destination"."""
        return "source" if self.opened else "destination"


TEMPLATE = Template(
    FIRST_DATA_SET + 4,
    (
        FieldSpecifier(0, 149, 4),
        *(FieldSpecifier(EXAMPLES, _FIRST_ELEMENT + place, VARIABLE) for place in range(3)),
        FieldSpecifier(EXAMPLES, _FIRST_ELEMENT + 3, 1),
        FieldSpecifier(EXAMPLES, _FIRST_ELEMENT + 4, 8),
        FieldSpecifier(EXAMPLES, _FIRST_ELEMENT + 5, 8),
    ),
    scope_count=1,
)
"""Namespace, kind and workload; 1 for who opened and 2 for who was called; both numbers."""


def occupancy_message(
    domain: int, occupants: Sequence[Occupant], *, export_time: int, sequence: int
) -> bytes:
    """Return the message of at most `MOST` occupants, with its template.

    Where there is none its set is one record of nobody: a set without records says nothing.
    """
    records = [_record(domain, each) for each in occupants[:MOST]]
    template = write_set(OPTIONS_TEMPLATE_SET, write_template(TEMPLATE))
    body = template + write_set(TEMPLATE.id, b"".join(records or [_record(domain, NOBODY)]))
    return HEADER.pack(VERSION, HEADER.size + len(body), export_time, sequence, domain) + body


NOBODY = Occupant("", "", "", opened=True, entries=0, unanswered=0)


def _record(domain: int, occupant: Occupant) -> bytes:
    texts = (occupant.namespace, occupant.kind, occupant.workload)
    end = _SOURCE if occupant.opened else _DESTINATION
    numbers = _NUMBERS.pack(end, occupant.entries, occupant.unanswered)
    return _SCOPE.pack(domain) + b"".join(map(_text, texts)) + numbers


def _text(text: str) -> bytes:
    value = label(text).encode()
    return bytes([len(value)]) + value


def label(text: str) -> str:
    """Return a text as it can be sent and shown: at most 254 bytes of UTF-8."""
    return shortened(utf8(text), _SHORT).decode()


def is_occupancy(template: Template) -> bool:
    """Whether a template, under whatever id, is of occupants."""
    return template.specifiers == TEMPLATE.specifiers and template.scope_count == 1


def read_occupancy(body: bytes, domain: int) -> tuple[Occupant, ...]:
    """Return who is in a set of occupants; MalformedSet where it can be none."""
    found: list[Occupant] = []
    at = 0
    while len(body) - at >= TEMPLATE.minimum_length:
        if len(found) == MOST:
            raise MalformedSet("occupancy", f"more than {MOST} fill a table")
        (scope,) = _SCOPE.unpack_from(body, at)
        if scope != domain:
            raise MalformedSet("options-scope", f"domain {domain} has options of domain {scope}")
        at += _SCOPE.size
        texts = []
        for _ in range(3):
            text, at = _read_text(body, at)
            texts.append(text)
        if len(body) - at < _NUMBERS.size:
            raise MalformedSet("record-length", "a record of options ends outside its set")
        end, entries, unanswered = _NUMBERS.unpack_from(body, at)
        at += _NUMBERS.size
        if end not in {_SOURCE, _DESTINATION} or not unanswered <= entries < _MOST_ENTRIES:
            raise MalformedSet("occupancy", f"end {end}, {unanswered} of {entries} unanswered")
        namespace, kind, workload = texts
        found.append(Occupant(namespace, kind, workload, end == _SOURCE, entries, unanswered))
    if not found:
        raise MalformedSet("record-length", f"{len(body)} bytes for records of options")
    return tuple(each for each in found if each.entries)


def _read_text(body: bytes, at: int) -> tuple[str, int]:
    """Return a text and where it ends; MalformedSet where that is outside of the set."""
    length = body[at] if at < len(body) else VARIABLE
    end = at + 1 + length
    if length > _SHORT or end > len(body):
        raise MalformedSet("record-length", "a record of options ends outside its set")
    return body[at + 1 : end].decode(errors="replace"), end
