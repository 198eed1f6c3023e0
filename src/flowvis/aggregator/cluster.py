"""What the aggregator needs to know of the cluster."""

from collections.abc import Sequence

from flowvis.inventory.resources import NAMESPACES, NODES, PODS, POLICIES, SERVICES, Resource
from flowvis.inventory.settings import KubernetesSettings
from flowvis.inventory.watch import Sink, Watched, Watchers

START_S = 30.0  # then records are taken as they are: exporters could not keep them for longer


def follow(
    settings: KubernetesSettings,
    inventory: Sink,
    policies: Sink | None = None,
    more: Sequence[Watched] = (),
) -> Watchers:
    """Return what follows Pods, Services, nodes and namespaces, and policies where wanted.

    Decisions of policies depend on namespaces and nodes as well.
    """
    both: Sequence[Sink] = [inventory] if policies is None else [inventory, policies]
    watched = [
        Watched(PODS, [inventory]),
        Watched(SERVICES, [inventory]),
        Watched(NODES, both),
        Watched(NAMESPACES, both),
    ]
    deciding: Sequence[Resource] = () if policies is None else POLICIES
    watched += [Watched(resource, both[1:]) for resource in deciding]
    return Watchers(settings.access, [*watched, *more], wait_s=START_S)
