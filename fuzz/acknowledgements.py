"""What a collector writes back: frames in pieces of any size."""

from contextlib import suppress

from flowvis.errors import PeerError
from flowvis.ipfix.acknowledgement import Acknowledgements

SENT = 1_000


def one(data: bytes) -> None:
    """Take what comes in two pieces; what is believed never goes back, nor beyond what was sent."""
    cut = data[0] if data else 0
    acknowledgements = Acknowledgements(7)
    before = 0
    with suppress(PeerError):
        for piece in (data[1 : 1 + cut], data[1 + cut :]):
            count = acknowledgements.receive(piece, SENT)
            assert before <= count <= SENT
            before = count
