"""The indices that are looked at, and their fields."""

from dataclasses import dataclass

from tools import logstash
from tools.kibana.saved import SOURCE, Reference, Saved, compact

PATTERN = "flow-*"
TIME = "@timestamp"
"""When a record was sent: the end of its interval, and at most the active timeout later."""

ID = "flowvis-flow"
REFERENCE = Reference(SOURCE, "index-pattern", ID)

_KNOWN = {name for name, _ in logstash.sent()} | set(logstash.MADE)


def field(name: str) -> str:
    """Return an element or a field that the pipeline makes by its name in documents."""
    if name not in _KNOWN:
        raise ValueError(f"{name}: no such field in the index")
    return f"ipfix.{name}"


@dataclass(frozen=True, slots=True)
class Sum:
    """What is added up: of each record what its own interval has, never a total."""

    name: str
    label: str

    @property
    def field(self) -> str:
        """Where documents have it."""
        return field(self.name)


OCTETS = Sum("octetDeltaCount", "Bytes")
REPLY_OCTETS = Sum("reverseOctetDeltaCount", "Bytes of replies")
PACKETS = Sum("packetDeltaCount", "Packets")


def pattern() -> Saved:
    """Return the index pattern; Kibana finds the fields by itself."""
    formats = {one.field: {"id": "bytes"} for one in (OCTETS, REPLY_OCTETS)}
    formats[field("bytes")] = {"id": "bytes"}
    attributes = {
        "title": PATTERN,
        "timeFieldName": TIME,
        "fieldFormatMap": compact(formats),
    }
    return Saved("index-pattern", ID, attributes)
