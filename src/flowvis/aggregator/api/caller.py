"""Who asks, and what they may see."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowvis.aggregator.api.problems import Problem


@dataclass(frozen=True)
class Visibility:
    """The namespaces whose flows somebody may see; None: all, and what is of no namespace."""

    namespaces: frozenset[str] | None = None

    @classmethod
    def of(cls, namespaces: Iterable[str]) -> "Visibility":
        """Return that of some namespaces; of none, where there are none."""
        return cls(frozenset(namespaces))

    @property
    def all(self) -> bool:
        """Whether everything may be seen."""
        return self.namespaces is None


EVERYTHING = Visibility()
NOTHING = Visibility(frozenset())


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
