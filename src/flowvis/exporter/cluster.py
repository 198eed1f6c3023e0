"""What one node needs to know of its cluster."""

from collections.abc import Sequence
from dataclasses import replace

from flowvis.exporter.collector_service import CollectorService
from flowvis.exporter.settings import ClientTls, ExporterSettings
from flowvis.inventory.index import Inventory
from flowvis.inventory.resources import CONFIG_MAPS, NODES, PODS, SECRETS, SERVICES
from flowvis.inventory.settings import KubernetesSettings
from flowvis.inventory.sources.contents import Contents, Entry
from flowvis.inventory.sources.watch import Watched, Watchers
from flowvis.transport.tls import TlsFiles

PAGE = 25  # nodes of 20 KB are 500 KB, and 3 MB while they are parsed
MAKER = "the flow-aggregator makes it (certificates.issue)"


def follow(
    settings: KubernetesSettings,
    node_name: str,
    inventory: Inventory,
    more: Sequence[Watched] = (),
) -> Watchers:
    """Return what follows the node's own Pods, and all Services and nodes.

    Its start takes as long as the API server does: without the Pods there is nothing to report,
    and the kernel keeps the connections meanwhile.
    """
    own = {"fieldSelector": f"spec.nodeName={node_name}"}
    return Watchers(
        settings.access,
        [
            Watched(PODS, [inventory], own, page=PAGE, cached=True),
            Watched(SERVICES, [inventory], page=PAGE),
            Watched(NODES, [inventory], page=PAGE),
            *more,
        ],
    )


class Cluster:
    """All that an exporter asks the API server for."""

    def __init__(self, settings: ExporterSettings, node_name: str, inventory: Inventory) -> None:
        self.tls, objects = _credentials(settings.tls)
        watched = [each.watched for each in objects]
        self.watchers = follow(settings.inventory.kubernetes, node_name, inventory, watched)
        self.collector = CollectorService(lambda: self.watchers.api)


def _credentials(tls: ClientTls) -> tuple[TlsFiles, list[Contents]]:
    """Return where certificates come from, and the objects among that."""
    files = tls.files
    objects = []
    if tls.ca_object is not None:
        published = Contents(CONFIG_MAPS, tls.ca_object)
        files = replace(files, ca=Entry(published, "ca.crt", MAKER))
        objects.append(published)
    if tls.client_object is not None:
        secret = Contents(SECRETS, tls.client_object)
        certificate, key = (Entry(secret, name, MAKER) for name in ("tls.crt", "tls.key"))
        files = replace(files, certificate=certificate, key=key)
        objects.append(secret)
    return files, objects
