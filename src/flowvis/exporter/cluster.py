"""What one node needs to know of its cluster."""

from flowvis.inventory.index import Inventory
from flowvis.inventory.resources import NODES, PODS, SERVICES
from flowvis.inventory.settings import KubernetesSettings
from flowvis.inventory.watch import Watched, Watchers

PAGE = 25  # nodes of 20 KB are 500 KB, and 3 MB while they are parsed


def follow(settings: KubernetesSettings, node_name: str, inventory: Inventory) -> Watchers:
    """Return what follows the node's own Pods, and all Services and nodes.

    Its start takes as long as the API server does: without the Pods there is nothing to tell of,
    and the kernel keeps the connections meanwhile.
    """
    own = {"fieldSelector": f"spec.nodeName={node_name}"}
    return Watchers(
        settings.access,
        [
            Watched(PODS, [inventory], own, page=PAGE, cached=True),
            Watched(SERVICES, [inventory], page=PAGE),
            Watched(NODES, [inventory], page=PAGE),
        ],
    )
