"""What a collector session reports besides records; never one per record."""

from dataclasses import dataclass

from flowvis.errors import PeerError


@dataclass(frozen=True, slots=True)
class TemplateLearned:
    """A template is new or was changed."""

    domain: int
    template_id: int
    fields: int
    unknown: int
    """How many of the fields are skipped: no registry has them."""


@dataclass(frozen=True, slots=True)
class TemplateWithdrawn:
    """A template is no longer valid."""

    domain: int
    template_id: int


@dataclass(frozen=True, slots=True)
class SequenceGap:
    """The sequence number is not what was due: `lost` records, negative where it went back."""

    domain: int
    lost: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """A part of a message could not be used; the session goes on."""

    error: PeerError


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """The first template of a session that has what we do not know, or lacks what we need."""

    domain: int
    template_id: int
    elements: tuple[tuple[int, int], ...]
    """Enterprise and number of those that no registry has; some of them."""
    missing: tuple[str, ...]
    """What its flows do not tell, for people."""


@dataclass(frozen=True, slots=True)
class Fruitless:
    """A session makes work for long, with templates or faults, and sends no records."""

    templates: int
    faults: int


Event = Fruitless | NotUnderstood | TemplateLearned | TemplateWithdrawn | SequenceGap | Malformed
