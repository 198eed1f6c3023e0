"""Why a connection is allowed or denied, by policies as they are, or were."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from flowvis.policies.endpoints import Selectable
from flowvis.policies.explanation.checks import Checks, End, Service
from flowvis.policies.explanation.walk import DENYING, Conclusion, Walk, Way
from flowvis.policies.model import Direction
from flowvis.policies.objects import Snapshot
from flowvis.policies.order import EvaluationOrder
from flowvis.policies.reach import Population


class Answered(Enum):
    """What becomes of a connection by both of its ends."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one connection is allowed or denied."""

    source: End
    called: Service
    egress: Way
    """At the source."""
    ingress: Way
    """At the destination."""

    @property
    def answered(self) -> Answered:
        """A denial at one end is enough, whatever is not known of the other."""
        conclusions = {self.egress.conclusion, self.ingress.conclusion}
        if conclusions & DENYING:
            return Answered.DENIED
        return Answered.UNKNOWN if Conclusion.UNKNOWN in conclusions else Answered.ALLOWED


class Explainer:
    """Explains connections by one snapshot. Some milliseconds each; for a thread of its own."""

    def __init__(self, snapshot: Snapshot, pods: Iterable[Selectable | None]) -> None:
        """`pods` are all there are: some decide whom a policy of Antrea applies to."""
        snapshot.reaching = Population(lambda: pods).reaching(snapshot)
        self._snapshot = snapshot
        self._order = EvaluationOrder(snapshot)

    def after(self, snapshot: Snapshot, pods: Iterable[Selectable | None]) -> "Explainer":
        """Return one of another snapshot: itself where nothing has changed."""
        snapshot.reaching = Population(lambda: pods).reaching(snapshot)
        return self if snapshot == self._snapshot else Explainer(snapshot, pods)

    def explain(self, source: End, called: Service) -> Explanation:
        """Return why a connection is allowed or denied."""
        walk = Walk(self._order, Checks(self._snapshot), source, called)
        ways = {direction: walk.way(direction) for direction in Direction}
        return Explanation(source, called, ways[Direction.EGRESS], ways[Direction.INGRESS])
