"""What a receiver of our records knows, where it is one that refuses what it does not know.

go-ipfix up to 0.11 ends a session whose template has an element that its registry lacks; Antrea's
aggregator up to 2.2 is built on it. From 0.12 on, Antrea from 2.3, such elements are skipped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flowvis.elements import ANTREA, REGISTRY
from flowvis.fields import ANTREA_EXPORTED, Field

LENIENT = (2, 3)
"""The first release of Antrea whose aggregator skips elements that it does not know."""

KNOWN = (
    ((2, 0), 157),
    ((1, 15), 156),
    ((1, 14), 154),
    ((1, 6), 152),
    ((1, 2), 144),
    ((1, 1), 140),
    ((0, 12), 135),
)
"""By Antrea's release, newest first: the last number in the registry of its go-ipfix, which has
all numbers before it (go.mod of the release; pkg/registry of that go-ipfix)."""

_RELEASE = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?")


@dataclass(frozen=True)
class AntreaRelease:
    """A release of Antrea by its major and minor number."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def last_element(self) -> int | None:
        """The last number of Antrea's registry that may be sent; None: any."""
        if (self.major, self.minor) >= LENIENT:
            return None
        return next(last for since, last in KNOWN if (self.major, self.minor) >= since)


def parse_release(text: str) -> AntreaRelease:
    """Read `2.2` or `v2.2.1`; ValueError says what is wrong."""
    match = _RELEASE.fullmatch(text)
    if match is None:
        raise ValueError("is no release of Antrea: write one such as 2.2, in quotes")
    release = AntreaRelease(int(match[1]), int(match[2]))
    oldest = AntreaRelease(*KNOWN[-1][0])
    if (release.major, release.minor) < (oldest.major, oldest.minor):
        raise ValueError(f"is older than {oldest}, before which elements had other numbers")
    return release


def understood(fields: Sequence[Field], release: AntreaRelease | None) -> tuple[Field, ...]:
    """Return those of a template's fields that a receiver of this release takes.

    All of them where it is not said, or lenient. Else those whose elements it has, without the
    exporter's own after Antrea's.
    """
    last = release.last_element if release is not None else None
    if last is None:
        return tuple(fields)
    return tuple(
        field
        for field in fields
        if (field.exported or 0) <= ANTREA_EXPORTED and _number(field) <= last
    )


def _number(field: Field) -> int:
    """The highest number of a field's elements in Antrea's registry; 0 if it has none there."""
    elements = [REGISTRY.named(name) for name in field.elements]
    return max((e.id for e in elements if e.enterprise == ANTREA), default=0)
