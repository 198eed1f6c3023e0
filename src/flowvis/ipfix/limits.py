"""What one peer may make us hold."""

from dataclasses import dataclass

from flowvis.strings import MAX_TEXT_BYTES

ASSURED_TEMPLATE_BYTES = 32 << 10
"""What a session's templates may always take, however much those of others do: an exporter of flows
has two or three, a router some more, of some 5 KiB each."""


@dataclass(frozen=True, slots=True)
class CollectorLimits:
    """Caps of one collector session; what goes over is refused and counted by the cap's name."""

    message_size: int = 65535
    """Bytes; all that the length field can say."""
    pending_bytes: int = 65535
    """Bytes held of a message that is not complete yet: one of the largest."""
    templates: int = 256
    """Templates of all observation domains; exporters of flows have a handful for each."""
    template_fields: int = 256
    """Fields of one template; Antrea's largest has 79. A field held costs some 60 bytes."""
    text_size: int = MAX_TEXT_BYTES
    """Bytes of one string, cut beyond."""
    events: int = 64
    """Events of one call; more are only counted: a peer must not fill the log."""
