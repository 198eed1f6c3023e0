"""From a template to the program that the leaf runs for each of its records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowvis.elements import REGISTRY, DataType
from flowvis.fields import Field, Kind, Merge
from flowvis.ipfix.template import FieldSpecifier, Template, length_allowed
from flowvis.native.contract.ipfix import VARIABLE, DecodeOp, Program

# Where a template has only one of the two, the other is computed from it.
TIMES = (
    ("flowStartSeconds", "flowStartMilliseconds"),
    ("flowEndSeconds", "flowEndMilliseconds"),
)

_Step = tuple[int, int, int]  # op, argument, column


class ColumnLayout:
    """The columns that records decode into: one for each field, the observation domain last."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self.domain = len(self.fields)
        self._places: dict[tuple[int, int], int] = {}
        for place, field in enumerate(self.fields):
            for name in field.elements:
                element = REGISTRY.named(name)
                self._places[element.enterprise, element.id] = place
        by_name = {field.name: place for place, field in enumerate(self.fields)}
        self.times = [
            (by_name[seconds], by_name[milliseconds])
            for seconds, milliseconds in TIMES
            if seconds in by_name and milliseconds in by_name
        ]

    def place(self, specifier: FieldSpecifier) -> int | None:
        """The column of a template's field, or None if it goes nowhere."""
        return self._places.get((specifier.enterprise, specifier.id))


@dataclass(frozen=True, slots=True)
class Plan:
    """A decode program, and what it leaves out."""

    program: Program
    unknown: int
    """Fields that no registry has."""
    unusable: int
    """Fields whose length their type does not allow."""


def decode_plan(template: Template, layout: ColumnLayout, domain: int) -> Plan:
    """Compile a template; every column of the layout gets a value in every record.

    Records of options templates are not flows: they are only walked over, as are those of
    templates that have nothing for the layout.
    """
    unknown = unusable = 0
    places: list[int | None] = []
    for specifier in template.specifiers:
        element = specifier.element
        usable = element is not None and length_allowed(element, specifier.length)
        unknown += element is None
        unusable += element is not None and not usable
        places.append(layout.place(specifier) if usable else None)
    if template.scope_count:
        places = [None] * len(places)
    steps = [
        _step(specifier, place, layout, repeated=places.count(place) > 1)
        for specifier, place in zip(template.specifiers, places, strict=True)
    ]
    written = {place for place in places if place is not None}
    if written:
        steps = [*_cleared(steps, written, layout), *steps, *_derived(written, layout)]
        steps.append((DecodeOp.CONSTANT, domain, layout.domain))
    return Plan(np.array(steps, dtype=np.uint32).reshape(-1, 3), unknown, unusable)


def _step(
    specifier: FieldSpecifier, place: int | None, layout: ColumnLayout, *, repeated: bool
) -> _Step:
    if place is None:
        return (DecodeOp.SKIP, specifier.length, 0)
    field = layout.fields[place]
    if field.kind is Kind.TEXT:
        return (DecodeOp.TEXT, specifier.length, place)
    if field.kind is not Kind.ADDRESS:
        return (DecodeOp.UNSIGNED, specifier.length, place)
    # An address that may be unset is all zeros then, whichever family's element says so; and of
    # two elements for one address the set one counts.
    optional = repeated or field.merge is not Merge.KEY
    element = specifier.element
    if element is not None and element.type is DataType.IPV4_ADDRESS:
        return (DecodeOp.SET_ADDRESS4 if optional else DecodeOp.ADDRESS4, 0, place)
    return (DecodeOp.SET_ADDRESS6 if optional else DecodeOp.ADDRESS6, 0, place)


def _cleared(steps: list[_Step], written: set[int], layout: ColumnLayout) -> list[_Step]:
    """Zero what the template does not have, and what its steps may leave unwritten."""
    optional = {
        place for op, _, place in steps if op in {DecodeOp.SET_ADDRESS4, DecodeOp.SET_ADDRESS6}
    }
    zeroed = optional | (set(range(len(layout.fields))) - written)
    return [(DecodeOp.CONSTANT, 0, place) for place in sorted(zeroed)]


def _derived(written: set[int], layout: ColumnLayout) -> list[_Step]:
    steps: list[_Step] = []
    for seconds, milliseconds in layout.times:
        if seconds in written and milliseconds not in written:
            steps.append((DecodeOp.MILLISECONDS, seconds, milliseconds))
        elif milliseconds in written and seconds not in written:
            steps.append((DecodeOp.SECONDS, milliseconds, seconds))
    return steps


def encode_program(fields: Sequence[Field], version: int) -> Program:
    """The program that writes records of IP version 4 or 6; column numbers are places in fields."""
    address = DecodeOp.ADDRESS6 if version == 6 else DecodeOp.ADDRESS4
    steps: list[_Step] = []
    for place, field in enumerate(fields):
        if field.kind is Kind.TEXT:
            steps.append((DecodeOp.TEXT, VARIABLE, place))
        elif field.kind is Kind.ADDRESS:
            steps.append((address, 0, place))
        else:
            steps.append((DecodeOp.UNSIGNED, field.kind.dtype.itemsize, place))
    return np.array(steps, dtype=np.uint32)
