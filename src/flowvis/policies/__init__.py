"""Which network policy allowed or denied a connection, and which Egress it left by.

Both are evaluated from the API's objects, as they were when the connection began.
"""

from flowvis.policies.decide import KINDS, Policies, PolicyStats, Selectable
from flowvis.policies.egresses import EGRESS_FIELDS, Egresses, EgressStats
from flowvis.policies.endpoints import GONE

__all__ = [
    "EGRESS_FIELDS",
    "GONE",
    "KINDS",
    "EgressStats",
    "Egresses",
    "Policies",
    "PolicyStats",
    "Selectable",
]
