"""What our own two ends add to IPFIX so that an exporter learns what is durable.

Both agree on it by ALPN (RFC 7301) under `PROTOCOL`; between others nothing of this is on the wire.
In such a session, of one observation domain, the exporter sends IPFIX and before its first record
a record of options that says how many of the session's first flow records the collector's side may
have received before. The collector writes back frames of 16 bytes, in network order:

    version (16 bits, 1) | length (16 bits, 16) | observation domain (32) | count (64)

`count` is how many of the session's flow records, in the order in which they were sent, are durable
by now. It never decreases, and a later frame makes those before it needless. Records of options are
not counted.
"""

from struct import Struct

from flowvis.errors import MalformedSet, PeerError
from flowvis.ipfix.template import (
    OPTIONS_TEMPLATE_SET,
    FieldSpecifier,
    Template,
    write_set,
    write_template,
)
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, VERSION

PROTOCOL = "flowvis-ipfix/1"
"""The application protocol's name in ALPN."""

FRAME = Struct(">HHIQ")
FRAME_VERSION = 1

USELESS_FRAMES = 4096
"""In a row that acknowledge nothing new: an honest collector sends none."""

EXAMPLES = 32473  # the enterprise of examples (RFC 5612): in these sessions nobody else's is used
SENT_AGAIN = Template(
    FIRST_DATA_SET + 2,
    (FieldSpecifier(0, 149, 4), FieldSpecifier(EXAMPLES, 1, 8)),
    scope_count=1,
)
"""The options: for an observation domain (IANA 149) the number of records sent again."""
MOST_SENT_AGAIN = 1 << 32
"""More than any exporter can keep."""

_SENT_AGAIN = Struct(">IQ")


def frame(domain: int, count: int) -> bytes:
    """Return the frame that says that so many of a session's records are durable."""
    return FRAME.pack(FRAME_VERSION, FRAME.size, domain, count)


class Acknowledgements:
    """Reads the frames of one session; PeerError for whatever no collector of ours writes."""

    def __init__(self, domain: int) -> None:
        self.count = 0
        """How many of the session's records are durable."""
        self._domain = domain
        self._half = b""
        self._useless = 0

    def receive(self, data: bytes | memoryview, sent: int) -> int:
        """Read what has come, when `sent` records of the session were; return the count."""
        data = self._half + bytes(data)
        whole = len(data) - len(data) % FRAME.size
        for version, length, domain, count in FRAME.iter_unpack(data[:whole]):
            if version != FRAME_VERSION or length != FRAME.size:
                raise _fault(f"a frame of version {version} and {length} bytes")
            if domain != self._domain:
                raise _fault(f"records of domain {domain} are acknowledged, we are {self._domain}")
            if not self.count <= count <= sent:
                raise _fault(f"{count} records are acknowledged, after {self.count} of {sent} sent")
            self._useless = self._useless + 1 if count == self.count else 0
            if self._useless > USELESS_FRAMES:
                raise _fault(f"{self._useless} frames in a row say nothing new")
            self.count = count
        self._half = data[whole:]
        return self.count


def _fault(detail: str) -> PeerError:
    return PeerError("acknowledgement", detail)


def sent_again(domain: int, count: int, *, export_time: int, sequence: int) -> bytes:
    """Return the message that says how many of the session's first records are sent again."""
    template = write_set(OPTIONS_TEMPLATE_SET, write_template(SENT_AGAIN))
    body = template + write_set(SENT_AGAIN.id, _SENT_AGAIN.pack(domain, count))
    return HEADER.pack(VERSION, HEADER.size + len(body), export_time, sequence, domain) + body


def says_sent_again(template: Template) -> bool:
    """Whether a template, under whatever id, is of those options."""
    return template.specifiers == SENT_AGAIN.specifiers and template.scope_count == 1


def read_sent_again(body: bytes, domain: int) -> int:
    """Return the number in a set of these options; MalformedSet where it can be none."""
    if len(body) < _SENT_AGAIN.size:
        raise MalformedSet("record-length", f"{len(body)} bytes for a record of options")
    scope, count = _SENT_AGAIN.unpack_from(body)
    if scope != domain:
        raise MalformedSet("options-scope", f"domain {domain} has options of domain {scope}")
    if count > MOST_SENT_AGAIN:
        raise MalformedSet("sent-again", f"{count} records sent again: no exporter keeps so many")
    return int(count)
