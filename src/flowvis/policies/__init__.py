"""Which network policy allowed or denied a connection, evaluated from the API's objects."""

from flowvis.policies.decide import KINDS, Policies, PolicyStats, Selectable

__all__ = ["KINDS", "Policies", "PolicyStats", "Selectable"]
