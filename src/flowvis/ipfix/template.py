"""Templates as they are on the wire (RFC 7011 sections 3.4 and 8.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from flowvis.elements import REGISTRY, DataType, Element, current
from flowvis.errors import MalformedSet
from flowvis.fields import Field, Kind
from flowvis.native.contract.ipfix import FIRST_DATA_SET, SET, VARIABLE

TEMPLATE_SET = 2
OPTIONS_TEMPLATE_SET = 3
MAX_WALK = 2048  # fields of a template that nobody wants, to get at those after it

_PAIR = Struct(">HH")  # template id and field count; element id and length
_SCOPE_COUNT = Struct(">H")
_ENTERPRISE = Struct(">I")
_ENTERPRISE_BIT = 0x8000

_REDUCIBLE = frozenset(
    kind for kind in DataType if kind.registry_name.startswith(("unsigned", "signed"))
)


@dataclass(frozen=True, slots=True)
class FieldSpecifier:
    """One field of a template: the element's number and its length on the wire."""

    enterprise: int
    id: int
    length: int

    @property
    def element(self) -> Element | None:
        """The element, or None if no registry has it."""
        return REGISTRY.find(self.enterprise, self.id)


@dataclass(frozen=True, slots=True)
class Template:
    """A template or options template; one without fields withdraws its id."""

    id: int
    specifiers: tuple[FieldSpecifier, ...]
    scope_count: int = 0

    @property
    def minimum_length(self) -> int:
        """Bytes of its shortest record."""
        return sum(1 if s.length == VARIABLE else s.length for s in self.specifiers)


@dataclass(frozen=True, slots=True)
class LongTemplate:
    """A template of more fields than anybody asked for."""

    id: int
    fields: int


@dataclass(frozen=True, slots=True)
class BrokenTemplate:
    """A template that cannot be read; why, its set ends with."""

    id: int


Found = Template | LongTemplate | BrokenTemplate
"""What a set of templates has."""


def of_fields(template_id: int, fields: tuple[Field, ...], version: int) -> Template:
    """Return the template of these fields in records of IP version 4 or 6."""
    elements = [REGISTRY.named(field.element(version)) for field in fields]
    lengths = [16 if field.kind is Kind.UUID else None for field in fields]
    return Template(
        template_id,
        tuple(
            FieldSpecifier(e.enterprise, e.id, length or e.type.size or VARIABLE)
            for e, length in zip(elements, lengths, strict=True)
        ),
    )


def length_allowed(element: Element, length: int) -> bool:
    """Whether a value of the element may have this length (RFC 7011 sections 6.2 and 7)."""
    size = element.type.size
    if size is None:
        return True
    if element.type in _REDUCIBLE:
        return 1 <= length <= size
    return length == size or (element.type is DataType.FLOAT64 and length == 4)


def write_template(template: Template) -> bytes:
    """Return the template record."""
    parts = [_PAIR.pack(template.id, len(template.specifiers))]
    if template.scope_count:
        parts.append(_SCOPE_COUNT.pack(template.scope_count))
    for field in template.specifiers:
        if field.enterprise:
            parts.append(_PAIR.pack(field.id | _ENTERPRISE_BIT, field.length))
            parts.append(_ENTERPRISE.pack(field.enterprise))
        else:
            parts.append(_PAIR.pack(field.id, field.length))
    return b"".join(parts)


def read_templates(body: bytes, set_id: int, max_fields: int = 65535) -> Iterator[Found]:
    """Read the records of a template set or options template set, without its header.

    MalformedSet ends it; what was yielded before is sound, but for a BrokenTemplate right before.
    """
    at = 0
    # Fewer bytes than the smallest record, a withdrawal of four, are padding.
    while len(body) - at >= _PAIR.size:
        template_id, count = _PAIR.unpack_from(body, at)
        if template_id == 0 and not any(body[at:]):
            return  # padding that is longer than it should be
        at += _PAIR.size
        whole_set = not count and template_id == set_id
        if template_id < FIRST_DATA_SET and not whole_set:
            raise MalformedSet("template-id", f"template id {template_id}: 256 to 65535")
        try:
            found, at = _read_template(body, at, set_id, (template_id, count, max_fields))
        except MalformedSet:
            yield BrokenTemplate(template_id)
            raise
        yield found


def _read_template(
    body: bytes, at: int, set_id: int, head: tuple[int, int, int]
) -> tuple[Template | LongTemplate, int]:
    """Return a template and where it ends; `head`: its id, its fields, the most of these."""
    template_id, count, max_fields = head
    scopes = 0
    if set_id == OPTIONS_TEMPLATE_SET and count:
        scopes, at = _read_scope_count(body, at, count)
    if len(body) - at < count * _PAIR.size:
        raise MalformedSet("template-truncated", "a template ends inside its fields")
    if count > MAX_WALK:
        detail = f"template {template_id}: {count} fields, over {MAX_WALK}: its set is skipped"
        raise MalformedSet("template-fields", detail)
    if count > max_fields:
        return LongTemplate(template_id, count), _skip_specifiers(body, at, count)
    specifiers = []
    for _ in range(count):
        specifier, at = _read_specifier(body, at)
        specifiers.append(specifier)
    return Template(template_id, tuple(specifiers), scopes), at


def _skip_specifiers(body: bytes, at: int, count: int) -> int:
    """Return where so many fields end."""
    for _ in range(count):
        if at >= len(body):
            break
        at += 8 if body[at] & (_ENTERPRISE_BIT >> 8) else 4
    else:
        if at <= len(body):
            return at
    raise MalformedSet("template-truncated", "a template ends inside its fields")


def _read_scope_count(body: bytes, at: int, count: int) -> tuple[int, int]:
    if len(body) - at < _SCOPE_COUNT.size:
        raise MalformedSet("template-truncated", "an options template ends inside its header")
    (scopes,) = _SCOPE_COUNT.unpack_from(body, at)
    if not 1 <= scopes <= count:
        raise MalformedSet("template-scope", f"{scopes} scope fields of {count}: 1 to {count}")
    return scopes, at + _SCOPE_COUNT.size


def _read_specifier(body: bytes, at: int) -> tuple[FieldSpecifier, int]:
    left = len(body) - at
    if left < _PAIR.size:
        raise MalformedSet("template-truncated", "a template ends inside its fields")
    element_id, length = _PAIR.unpack_from(body, at)
    at += _PAIR.size
    enterprise = 0
    if element_id & _ENTERPRISE_BIT:
        if left < _PAIR.size + _ENTERPRISE.size:
            raise MalformedSet("template-truncated", "a template ends inside its fields")
        (enterprise,) = _ENTERPRISE.unpack_from(body, at)
        at += _ENTERPRISE.size
    return _specifier(enterprise, element_id & ~_ENTERPRISE_BIT, length), at


@lru_cache(maxsize=4096)
def _specifier(enterprise: int, number: int, length: int) -> FieldSpecifier:
    """Return a specifier; a cluster's exporters have some hundreds of them in common."""
    enterprise, number = current(enterprise, number)
    return FieldSpecifier(enterprise, number, length)


def write_set(set_id: int, body: bytes) -> bytes:
    """Return a set with its header."""
    return SET.pack(set_id, SET.size + len(body)) + body
