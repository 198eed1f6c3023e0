"""The information elements: IANA's, Antrea's and the reverse ones, from the registries' data files.

Sources: IANA "IP Flow Information Export (IPFIX) Entities", Antrea's registry (enterprise 56506),
and RFC 5103 for the reverse elements (enterprise 29305).
"""

import csv
from dataclasses import dataclass
from enum import Enum
from importlib import resources

IANA = 0
REVERSE = 29305
ANTREA = 56506
ANTREA_2020 = 55829
ANTREA_ALIASES = frozenset({56505, ANTREA_2020})
"""Numbers under which older releases and documents knew Antrea's elements; accepted on input."""

_LAST_OF_2020 = 112
_INSERTED = 107
"""destinationClusterIPv6, which moved up what came after it: go-ipfix 0.2.0 to 0.2.2, the only ones
with 55829, have 100 to 112 without it."""


def current(enterprise: int, number: int) -> tuple[int, int]:
    """Return today's enterprise and number of an element under one of Antrea's former ones."""
    if enterprise == ANTREA_2020:
        if number > _LAST_OF_2020:
            return enterprise, number
        number += number >= _INSERTED
    return (ANTREA if enterprise in ANTREA_ALIASES else enterprise), number


class DataType(Enum):
    """Abstract data types (RFC 7012 section 3.1): registry name and full size in bytes."""

    OCTET_ARRAY = ("octetArray", None)
    UNSIGNED8 = ("unsigned8", 1)
    UNSIGNED16 = ("unsigned16", 2)
    UNSIGNED32 = ("unsigned32", 4)
    UNSIGNED64 = ("unsigned64", 8)
    SIGNED8 = ("signed8", 1)
    SIGNED16 = ("signed16", 2)
    SIGNED32 = ("signed32", 4)
    SIGNED64 = ("signed64", 8)
    FLOAT32 = ("float32", 4)
    FLOAT64 = ("float64", 8)
    BOOLEAN = ("boolean", 1)
    MAC_ADDRESS = ("macAddress", 6)
    STRING = ("string", None)
    DATE_TIME_SECONDS = ("dateTimeSeconds", 4)
    DATE_TIME_MILLISECONDS = ("dateTimeMilliseconds", 8)
    DATE_TIME_MICROSECONDS = ("dateTimeMicroseconds", 8)
    DATE_TIME_NANOSECONDS = ("dateTimeNanoseconds", 8)
    IPV4_ADDRESS = ("ipv4Address", 4)
    IPV6_ADDRESS = ("ipv6Address", 16)
    BASIC_LIST = ("basicList", None)
    SUB_TEMPLATE_LIST = ("subTemplateList", None)
    SUB_TEMPLATE_MULTI_LIST = ("subTemplateMultiList", None)
    UNSIGNED256 = ("unsigned256", 32)

    @property
    def registry_name(self) -> str:
        """The name that the registries use."""
        name: str = self.value[0]
        return name

    @property
    def size(self) -> int | None:
        """Bytes without reduced-size encoding; None for variable length."""
        size: int | None = self.value[1]
        return size


@dataclass(frozen=True, slots=True)
class Element:
    """One information element."""

    name: str
    enterprise: int
    id: int
    type: DataType


class Registry:
    """All known elements, by name and by (enterprise, id)."""

    def __init__(self, elements: list[Element]) -> None:
        self._by_name = {element.name: element for element in elements}
        self._by_id = {(element.enterprise, element.id): element for element in elements}

    def __len__(self) -> int:
        return len(self._by_id)

    def named(self, name: str) -> Element:
        """Return the element of that name; KeyError if there is none."""
        return self._by_name[name]

    def find(self, enterprise: int, element_id: int) -> Element | None:
        """Return the element of that number, or None; Antrea's former numbers count as its own."""
        return self._by_id.get(current(enterprise, element_id))


def _load() -> Registry:
    types = {kind.registry_name: kind for kind in DataType}
    elements = []
    for enterprise, file in ((IANA, "iana.csv"), (ANTREA, "antrea.csv")):
        with resources.files("flowvis.data").joinpath(file).open(encoding="utf-8") as rows:
            elements += [
                Element(row["name"], enterprise, int(row["id"]), types[row["type"]])
                for row in csv.DictReader(rows)
            ]
    elements += [
        _reverse(element)
        for element in elements
        if element.enterprise == IANA and element.id not in NOT_REVERSIBLE
    ]
    return Registry(elements)


def _reverse(element: Element) -> Element:
    """The reverse twin of an IANA element (RFC 5103 section 6.1)."""
    name = "reverse" + element.name[0].upper() + element.name[1:]
    return Element(name, REVERSE, element.id, element.type)


NOT_REVERSIBLE = frozenset(
    {
        # identifiers that no direction owns: common properties, template, flow, domain
        *(137, 145, 148, 149),
        # configuration of the metering and exporting process (RFC 5102 section 5.2)
        *(130, 131, 173, 211, 212, 213, 214, 215, 216, 217),
        # statistics of the metering and exporting process (RFC 5102 section 5.3)
        *(40, 41, 42, 163, 164, 165, 166, 167, 168),
        # paddingOctets and biflowDirection
        *(210, 239),
    }
)
"""IANA elements without a reverse twin (RFC 5103 section 6.1)."""


REGISTRY = _load()
