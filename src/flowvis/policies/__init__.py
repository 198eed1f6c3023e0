"""Which network policy allowed or denied a connection, evaluated from the API's objects."""

from flowvis.policies.decide import Ends, Policies, Selectable

__all__ = ["Ends", "Policies", "Selectable"]
