"""What sessions count."""

from collections import Counter
from dataclasses import dataclass

from flowvis.counts import count, counts_by_reason


@dataclass(slots=True)
class CollectorStats:
    """What came in through a session and what became of it."""

    octets: int = count("Bytes of IPFIX")
    messages: int = count("IPFIX messages")
    records: int = count("Data records that were decoded")
    sent_again: int = count("Data records that may have been received before, as exporters say")
    ignored_records: int = count("Data records of options, or without any field that is kept")
    templates: int = count("Template records that were new")
    templates_repeated: int = count("Template records that were known already")
    # RFC 7011 section 8.1 forbids it on TCP; the new template counts.
    templates_changed: int = count("Templates that were redefined without a withdrawal")
    templates_withdrawn: int = count("Templates that were withdrawn")
    unknown_fields: int = count("Fields of new templates that no registry has; skipped")
    unusable_fields: int = count("Fields of new templates of an impossible length; skipped")
    incomplete_templates: int = count(
        "New templates of flows without any known count of octets or packets, or without a time"
    )
    sets_without_template: int = count("Data sets whose template never came")
    gaps: int = count("Sequence numbers that were not the one due")
    lost_records: int = count("Records that never came, by the sequence numbers")
    late_records: int = count("Records that came after later ones, over UDP")
    templates_expired: int = count("Templates forgotten over UDP, as they were not sent again")
    fruitless: int = count("Sessions slowed down, as all they bring is work: they send no records")
    truncated_texts: int = count("Texts that were cut at the limit")
    refused_texts: int = count("Texts that became empty, as the string table was full")
    malformed: Counter[str] = counts_by_reason("Faults of peers, by reason")


@dataclass(slots=True)
class ExporterStats:
    """What went out through a session."""

    messages: int = count("IPFIX messages")
    octets: int = count("Bytes of IPFIX")
    records: int = count("Data records that were encoded")
    shortened: int = count("Data records whose texts were shortened to fit into a message")
    oversize: int = count("Records that no message of the largest size can hold; not sent")
