"""What the aggregator needs to know of the cluster."""

from collections.abc import Sequence

from flowvis.inventory.resources import (
    EGRESSES,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    SERVICES,
    Resource,
)
from flowvis.inventory.settings import KubernetesSettings
from flowvis.inventory.sources.watch import Sink, Watched, Watchers

START_S = 30.0  # then records are taken as they are: exporters could not keep them for longer


def follow(
    settings: KubernetesSettings,
    inventory: Sink,
    policies: Sink | None = None,
    egresses: Sink | None = None,
    more: Sequence[Watched] = (),
) -> Watchers:
    """Return what follows Pods, Services, nodes and namespaces; policies and Egresses if wanted.

    Decisions of policies depend on namespaces, nodes and Services as well, Egresses on namespaces.
    """
    deciding = [] if policies is None else [policies]
    leaving = [] if egresses is None else [egresses]
    watched = [
        Watched(PODS, [inventory]),
        Watched(SERVICES, [inventory, *deciding]),
        Watched(NODES, [inventory, *deciding]),
        Watched(NAMESPACES, [inventory, *deciding, *leaving]),
    ]
    optional: Sequence[tuple[Resource, list[Sink]]] = [
        *((resource, deciding) for resource in POLICIES),
        (EGRESSES, leaving),
    ]
    watched += [Watched(resource, sinks) for resource, sinks in optional if sinks]
    return Watchers(settings.access, [*watched, *more], wait_s=START_S)
