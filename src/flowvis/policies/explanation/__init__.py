"""Why a connection is allowed or denied: every rule on its way, and what of it does not match."""

from flowvis.policies.explanation.checks import End, Part, Service
from flowvis.policies.explanation.document import as_dict
from flowvis.policies.explanation.explain import Answered, Explainer, Explanation
from flowvis.policies.explanation.walk import Conclusion, Way

__all__ = [
    "Answered",
    "Conclusion",
    "End",
    "Explainer",
    "Explanation",
    "Part",
    "Service",
    "Way",
    "as_dict",
]
