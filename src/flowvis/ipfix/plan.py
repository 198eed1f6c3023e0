"""From a template to the program that the leaf runs for each of its records."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowvis.elements import REGISTRY, DataType
from flowvis.fields import Field, Kind, Merge
from flowvis.ipfix.equivalents import Equivalents, Step
from flowvis.ipfix.origin import AGGREGATED, NODE_COUNTERS, ORIGIN
from flowvis.ipfix.template import FieldSpecifier, Template, length_allowed
from flowvis.native.contract.ipfix import VARIABLE, DecodeOp, Program

NAMED = 8  # unknown elements of a template that are reported by number
MAX_PLANS = 1024  # as many kinds of exporters as a cluster has, many times over
MAX_PLANNED_FIELDS = 32_768  # of all plans that are kept: some 200 bytes each

_Kind = tuple[tuple[FieldSpecifier, ...], int]


class ColumnLayout:
    """The columns that records decode into: one for each field and of `ORIGIN`, the domain last."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = (*fields, *(f for f in (*ORIGIN, *NODE_COUNTERS) if f not in fields))
        self.domain = len(self.fields)
        self._places: dict[tuple[int, int], int] = {}
        for place, field in enumerate(self.fields):
            for name in field.elements:
                element = REGISTRY.named(name)
                self._places[element.enterprise, element.id] = place
        self.columns = {field.name: place for place, field in enumerate(self.fields)}
        extra = {field.name for field in NODE_COUNTERS if field not in fields}
        self.node_counters = {self.columns[name] for name in extra}
        """Places that only records of an aggregator fill."""

    def place(self, specifier: FieldSpecifier) -> int | None:
        """The column of a template's field, or None if it goes nowhere."""
        return self._places.get((specifier.enterprise, specifier.id))


@dataclass(frozen=True, slots=True)
class Plan:
    """A decode program, and what it leaves out."""

    program: Program
    unknown: int
    """Fields that no registry has."""
    elements: tuple[tuple[int, int], ...]
    """Enterprise and number of some of them."""
    unusable: int
    """Fields whose length their type does not allow."""
    missing: tuple[str, ...] = ()
    """What flows of the template do not tell."""
    flows: bool = False
    """Whether its records are for the columns; the last step gives that of the domain a value."""

    def program_of(self, domain: int) -> Program:
        """The program for records of an exporter with this number."""
        if not self.flows:
            return self.program
        program = self.program.copy()
        program[-1, 1] = domain
        return program


class Plans:
    """Compiled templates, shared by all sessions, as most exporters have the same; LRU."""

    def __init__(self, layout: ColumnLayout) -> None:
        self._layout = layout
        self._plans: OrderedDict[_Kind, Plan] = OrderedDict()
        self._fields = 0

    def __len__(self) -> int:
        return len(self._plans)

    def find(self, template: Template) -> Plan | None:
        """Return the plan of a template that was compiled lately, whoever sent it."""
        kind = (template.specifiers, template.scope_count)
        plan = self._plans.get(kind)
        if plan is not None:
            self._plans.move_to_end(kind)
        return plan

    def compile(self, template: Template) -> Plan:
        """Compile a template and keep its plan; those not used for longest go for it."""
        plan = decode_plan(template, self._layout)
        self._plans[template.specifiers, template.scope_count] = plan
        self._fields += len(template.specifiers)
        while len(self._plans) > MAX_PLANS or self._fields > MAX_PLANNED_FIELDS:
            (specifiers, _), _ = self._plans.popitem(last=False)
            self._fields -= len(specifiers)
        return plan


def decode_plan(template: Template, layout: ColumnLayout) -> Plan:
    """Compile a template; every column of the layout gets a value in every record.

    Records of options templates are not flows: they are only walked over, as are those of
    templates that have nothing for the layout.
    """
    strangers = [s for s in template.specifiers if s.element is None]
    elements = tuple((s.enterprise, s.id) for s in strangers[:NAMED])
    unusable = 0
    names: list[str | None] = []
    places: list[int | None] = []
    for specifier in template.specifiers:
        element = specifier.element
        usable = element is not None and length_allowed(element, specifier.length)
        unusable += element is not None and not usable
        names.append(element.name if element is not None and usable else None)
        places.append(layout.place(specifier) if usable else None)
    if template.scope_count:
        places = [None] * len(places)
    written = {place for place in places if place is not None}
    aggregated = bool(layout.node_counters) and layout.node_counters <= written
    others = Equivalents(template.specifiers, names, layout.columns, written)
    if written:
        others.complete()
    steps = [
        others.steps.get(at) or _step(specifier, place, layout, repeated=places.count(place) > 1)
        for at, (specifier, place) in enumerate(zip(template.specifiers, places, strict=True))
    ]
    if not written:
        return Plan(_program(steps), len(strangers), elements, unusable)
    steps = [*_cleared(steps, written, layout), *steps, *others.after]
    if aggregated:
        steps.append((DecodeOp.CONSTANT, 1, layout.columns[AGGREGATED]))
    steps.append((DecodeOp.CONSTANT, 0, layout.domain))
    missing = tuple(others.missing)
    return Plan(_program(steps), len(strangers), elements, unusable, missing, flows=True)


def _program(steps: list[Step]) -> Program:
    return np.array(steps, dtype=np.uint32).reshape(-1, 3)


def _step(
    specifier: FieldSpecifier, place: int | None, layout: ColumnLayout, *, repeated: bool
) -> Step:
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


def _cleared(steps: list[Step], written: set[int], layout: ColumnLayout) -> list[Step]:
    """Zero what the template does not have, and what its steps may leave unwritten."""
    optional = {
        place for op, _, place in steps if op in {DecodeOp.SET_ADDRESS4, DecodeOp.SET_ADDRESS6}
    }
    zeroed = optional | (set(range(len(layout.fields))) - written - layout.node_counters)
    return [(DecodeOp.CONSTANT, 0, place) for place in sorted(zeroed)]


def encode_program(fields: Sequence[Field], version: int) -> Program:
    """The program that writes records of IP version 4 or 6; column numbers are places in fields."""
    address = DecodeOp.ADDRESS6 if version == 6 else DecodeOp.ADDRESS4
    steps: list[Step] = []
    for place, field in enumerate(fields):
        if field.kind is Kind.TEXT:
            steps.append((DecodeOp.TEXT, VARIABLE, place))
        elif field.kind is Kind.ADDRESS:
            steps.append((address, 0, place))
        elif field.kind is Kind.UUID:  # as an address of IPv6, its 16 bytes are copied
            steps.append((DecodeOp.ADDRESS6, 0, place))
        else:
            steps.append((DecodeOp.UNSIGNED, field.kind.dtype.itemsize, place))
    return _program(steps)
