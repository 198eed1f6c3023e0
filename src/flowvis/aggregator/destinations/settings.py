"""What of Antrea's configuration names destinations that are not built yet."""

from dataclasses import dataclass

from flowvis.aggregator.destinations.kind import Problems
from flowvis.runtime.settings import option


def later(enabled: bool, what: str) -> Problems:
    """Yield the problem of an option that switches on what does not exist yet."""
    if enabled:
        yield "enable", f"{what} is not supported yet: leave it false"


@dataclass(frozen=True)
class FlowStreamService:
    """Antrea's gRPC stream of flows: not built yet."""

    enable: bool = option(False, doc="Not supported yet; `flowctl flows --follow` does it locally")

    def check(self) -> Problems:
        """Yield the problem of switching it on."""
        yield from later(self.enable, "the flow stream service")
