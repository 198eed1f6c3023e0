"""Where the collector is, if its address names a Service: its ClusterIP, by the API server.

An exporter shares the node's network, where cluster DNS may not be asked.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flowvis.addresses import parse_address
from flowvis.errors import ApiError
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.address import CollectorAddress

if TYPE_CHECKING:
    from flowvis.inventory.sources.api import KubernetesApi

log = logging.getLogger(__name__)

ASK_S = 5.0  # then what is known, and DNS, are tried
NOT_FOUND = 404
FROM_CACHE = {"resourceVersion": "0"}  # a thousand exporters may ask at once: spare etcd that


class CollectorService:
    """Asks anew for each attempt to connect, so that a Service may be made anew."""

    def __init__(self, api: "Callable[[], KubernetesApi]") -> None:
        self._api = api
        self._known: dict[str, list[str]] = {}
        self._limited = LimitedLog(log)

    async def hosts(self, address: CollectorAddress) -> Sequence[str]:
        """Return what to connect to, the best first; ApiError says what is wrong with the Service.

        Without an answer that is what is known from before, then the cluster's DNS.
        """
        namespace, slash, name = address.host.partition("/")
        if not slash:
            return [address.dns_name]
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/services/{quote(name, safe='')}"
        try:
            async with asyncio.timeout(ASK_S):
                item = await self._api().get(path, FROM_CACHE)
        except (ApiError, TimeoutError) as error:
            if isinstance(error, ApiError) and error.status == NOT_FOUND:
                self._known.pop(address.host, None)
                raise ApiError(
                    f"Service {address.host}: there is none; create it, or name another in "
                    "flowExporter.flowCollectorAddr",
                    NOT_FOUND,
                ) from error
            return self._without(address, str(error) or f"no answer in {ASK_S:g} s")
        self._known[address.host] = found = cluster_ips(item, address)
        self._look_at_ports(item, address)
        return found

    def _without(self, address: CollectorAddress, problem: str) -> Sequence[str]:
        hosts = [*self._known.get(address.host, ()), address.dns_name]
        self._limited.log(
            logging.WARNING, str(address), "Service %s: cannot be asked for (%s); trying %s",
            address.host, problem, ", then ".join(hosts),
        )  # fmt: skip
        return hosts

    def _look_at_ports(self, item: Mapping[str, Any], address: CollectorAddress) -> None:
        """Warn of a port that the Service does not have: packets to it are dropped or refused."""
        protocol = "UDP" if address.protocol == "udp" else "TCP"
        ports = [
            port.get("port")
            for port in item["spec"].get("ports") or ()
            if isinstance(port, Mapping) and port.get("protocol", "TCP") == protocol
        ]
        if address.port not in ports:
            self._limited.log(
                logging.WARNING, str(address),
                "Service %s: has no %s port %d, only %s: correct it, or "
                "flowExporter.flowCollectorAddr",
                address.host, protocol, address.port, ", ".join(map(str, ports)) or "none",
            )  # fmt: skip


def cluster_ips(item: Mapping[str, Any], address: CollectorAddress) -> list[str]:
    """Return a Service's ClusterIPs, its preferred family first; ApiError where it has none."""
    spec = item.get("spec")
    if not isinstance(spec, Mapping):
        raise ApiError(f"Service {address.host}: what the API server sent has no spec")
    if spec.get("type") == "ExternalName":
        problem = f"is an ExternalName: write {spec.get('externalName')} itself"
        raise ApiError(f"Service {address.host}: {problem} in flowExporter.flowCollectorAddr")
    found = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip]
    if "None" in found:
        problem = f"is headless: give it a ClusterIP, or write {address.dns_name}"
        raise ApiError(f"Service {address.host}: {problem} in flowExporter.flowCollectorAddr")
    try:
        found = [str(parse_address(ip)) for ip in found]
    except ValueError as error:
        raise ApiError(f"Service {address.host}: {error}") from error
    if not found:
        raise ApiError(f"Service {address.host}: has no ClusterIP yet")
    return found
