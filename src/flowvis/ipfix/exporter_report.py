"""What an exporter says of itself and its node, in a record of options.

Only in sessions between our own two ends (see `acknowledgement`), at their beginning and now and
then. The scope is the observation domain (IANA 149); numbers since its beginning count up.
"""

from dataclasses import astuple, dataclass, fields
from struct import Struct
from typing import Self

from flowvis.errors import MalformedSet
from flowvis.ipfix.template import (
    OPTIONS_TEMPLATE_SET,
    FieldSpecifier,
    Template,
    write_set,
    write_template,
)
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, VERSION

EXAMPLES = 32473  # the enterprise of examples (RFC 5612), as in all options of these sessions
_FIRST_ELEMENT = 2
_MOST = 1 << 53  # that JSON has exactly


@dataclass(frozen=True, slots=True)
class ExporterReport:
    """Numbers of 64 bits, in the order of the record."""

    tracked: int
    """Connections that the node's kernel tracks."""
    capacity: int
    """Connections that it can track; 0 where that is not known."""
    unobserved: int
    """Connections whose end nobody observed: what they did last is missing."""
    unseen: int
    """Connections that began and ended unseen, at the most."""
    dropped: int
    """Records that were made and given up."""

    def misses_more_than(self, before: Self | None) -> bool:
        """Whether something was missed since an earlier report; None: since it all began.

        An exporter that began anew counts from 0.
        """
        numbers = self.unobserved, self.unseen, self.dropped
        known = (0, 0, 0) if before is None else (before.unobserved, before.unseen, before.dropped)
        if any(now < then for now, then in zip(numbers, known, strict=True)):
            known = (0, 0, 0)
        return any(now > then for now, then in zip(numbers, known, strict=True))


_COUNT = len(fields(ExporterReport))
_RECORD = Struct(f">I{_COUNT}Q")

TEMPLATE = Template(
    FIRST_DATA_SET + 3,
    (
        FieldSpecifier(0, 149, 4),
        *(FieldSpecifier(EXAMPLES, _FIRST_ELEMENT + place, 8) for place in range(_COUNT)),
    ),
    scope_count=1,
)


def report_message(
    domain: int, report: ExporterReport, *, export_time: int, sequence: int
) -> bytes:
    """Return the message of one report, with its template."""
    template = write_set(OPTIONS_TEMPLATE_SET, write_template(TEMPLATE))
    body = template + write_set(TEMPLATE.id, _RECORD.pack(domain, *astuple(report)))
    return HEADER.pack(VERSION, HEADER.size + len(body), export_time, sequence, domain) + body


def is_report(template: Template) -> bool:
    """Whether a template, under whatever id, is of reports."""
    return template.specifiers == TEMPLATE.specifiers and template.scope_count == 1


def read_report(body: bytes, domain: int) -> ExporterReport:
    """Return what is in a set of reports; MalformedSet where it can be none."""
    if len(body) < _RECORD.size:
        raise MalformedSet("record-length", f"{len(body)} bytes for a record of options")
    scope, *numbers = _RECORD.unpack_from(body)
    if scope != domain:
        raise MalformedSet("options-scope", f"domain {domain} has options of domain {scope}")
    if max(numbers) > _MOST:
        raise MalformedSet("exporter-report", f"{max(numbers)}: nothing has so many")
    return ExporterReport(*numbers)
