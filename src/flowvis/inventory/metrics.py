"""The metrics of what follows the API server."""

from prometheus_client import CollectorRegistry

from flowvis.inventory.sources.watch import Watchers
from flowvis.runtime.metrics import ReadingsCollector, StatsCollector


def register(registry: CollectorRegistry, daemon: str, watchers: Watchers) -> None:
    """Expose its numbers as `<daemon>_kubernetes_...`."""
    prefix = f"{daemon}_kubernetes"
    readings = {
        "synced": (
            "1 when every kind has been listed since the start",
            lambda: int(not watchers.not_synced()),
        ),
        "stale_seconds": (
            "For how long a kind has not been watched; 0 while all are",
            watchers.stale_s,
        ),
    }
    registry.register(StatsCollector(prefix, watchers.stats))
    registry.register(ReadingsCollector(prefix, readings))
