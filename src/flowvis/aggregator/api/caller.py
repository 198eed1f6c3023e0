"""Who asks, and what they may see."""

from dataclasses import dataclass

from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.visibility import EVERYTHING, NOTHING, Visibility


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request, as far as it was found out."""

    name: str
    visibility: Visibility

    def require_everything(self, what: str) -> None:
        """Refuse whom does not see all namespaces; `what` names what was asked for."""
        if not self.visibility.all:
            raise Problem(
                "forbidden",
                f"{what}: only for those who may list the Pods of all namespaces, "
                f"which {self.name} may not",
            )


LOCAL = Caller("local", EVERYTHING)
"""Who may open the control socket: the aggregator's own user."""

ANYBODY = Caller("", NOTHING)
"""Who has not said who they are."""
