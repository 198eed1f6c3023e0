"""What the listening side counts."""

from collections import Counter
from dataclasses import dataclass

from flowvis.counts import count, counts_by_reason


@dataclass
class ServerStats:
    """Counts since the start."""

    sessions: int = count("Sessions accepted")
    octets: int = count("Bytes received, decrypted")
    deferred: int = count("Reads put off to a later turn of the loop, as others went first")
    refused: Counter[str] = counts_by_reason("Connections refused, by the limit passed")
    errors: Counter[str] = counts_by_reason("Sessions ended by a fault, by reason")
    certificate_reloads: int = count("New certificates taken")
    certificate_failures: int = count("Changed certificate files that could not be used")
