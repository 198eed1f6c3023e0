"""What sessions count; the help texts are those of the metrics."""

from collections import Counter
from dataclasses import dataclass, field


def _count(text: str) -> int:
    """A counter with its help."""
    counter: int = field(default=0, metadata={"help": text})
    return counter


@dataclass(slots=True)
class CollectorStats:
    """What came in through a session and what became of it."""

    octets: int = _count("Bytes of IPFIX")
    messages: int = _count("IPFIX messages")
    records: int = _count("Data records that were decoded")
    ignored_records: int = _count("Data records of options, or without any field that is kept")
    templates: int = _count("Template records that were new")
    templates_repeated: int = _count("Template records that were known already")
    # RFC 7011 section 8.1 forbids it on TCP; the new template counts.
    templates_changed: int = _count("Templates that were redefined without a withdrawal")
    templates_withdrawn: int = _count("Templates that were withdrawn")
    unknown_fields: int = _count("Fields of new templates that no registry has; skipped")
    unusable_fields: int = _count("Fields of new templates of an impossible length; skipped")
    sets_without_template: int = _count("Data sets whose template never came")
    gaps: int = _count("Sequence numbers that were not the one due")
    lost_records: int = _count("Records that never came, by the sequence numbers")
    truncated_texts: int = _count("Texts that were cut at the limit")
    refused_texts: int = _count("Texts that became empty, as the string table was full")
    malformed: Counter[str] = field(
        default_factory=Counter, metadata={"help": "Faults of peers, by reason"}
    )


@dataclass(slots=True)
class ExporterStats:
    """What went out through a session."""

    messages: int = _count("IPFIX messages")
    octets: int = _count("Bytes of IPFIX")
    records: int = _count("Data records that were encoded")
    oversize: int = _count("Records that no message of the largest size can hold; not sent")
