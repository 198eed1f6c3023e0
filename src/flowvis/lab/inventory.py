"""What Kubernetes says about the lab: the objects of its API."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from flowvis.inventory.objects import TOPOLOGY_LABELS
from flowvis.lab import policies
from flowvis.lab.configuration import AGGREGATOR, COLLECTOR_PORT, NAMES
from flowvis.lab.plan import (
    AGENT,
    CART,
    CONTROL_ADDRESSES,
    EGRESS,
    NODE_1,
    NODES,
    PODS,
    REGION,
    SERVER_PORT,
    SERVICES,
    HostPod,
    LabNode,
    LabPod,
    Service,
)
from flowvis.lab.policies import ANTREA, NAME_LABEL

Object = dict[str, Any]

SYSTEM = "kube-system"
"""The namespace whose UID names the cluster."""


def objects(now: datetime) -> Iterator[Object]:
    """Go through all objects, created at `now`; Pods that have heirs are there, these are not."""
    for namespace in sorted({SYSTEM, *(pod.namespace for pod in PODS)}):
        yield _object("Namespace", now, namespace, **{NAME_LABEL: namespace})
    yield from (_node(node, now) for node in NODES)
    yield from (_service(service, now) for service in SERVICES)
    yield _collector(now)
    yield from (pod_object(pod, now) for pod in PODS if pod.heir_of is None)
    for version, kind, namespace, name, spec in policies.objects():
        yield {**_object(kind, now, name, namespace), "apiVersion": version, "spec": dict(spec)}
    yield _host_pod(AGENT, now)
    yield _egress(now)


def uid(kind: str, name: str, namespace: str = "") -> str:
    """Return the UID of an object of the lab."""
    return str(uuid5(NAMESPACE_DNS, f"{name}.{namespace}.{kind}"))


def pod_object(pod: LabPod, now: datetime) -> Object:
    """Return a Pod created at `now`."""
    return {
        **_owned(_object("Pod", now, pod.name, pod.namespace, **pod.labels), pod.owner),
        "spec": {"nodeName": pod.node.name},
        "status": {
            "phase": "Running",
            "hostIP": pod.node.addresses[0],
            "podIP": pod.addresses[0],
            "podIPs": [{"ip": address} for address in pod.addresses],
        },
    }


def _host_pod(pod: HostPod, now: datetime) -> Object:
    ports = [{"containerPort": SERVER_PORT, "protocol": protocol} for protocol in ("TCP", "UDP")]
    return {
        **_owned(_object("Pod", now, pod.name, pod.namespace), pod.workload),
        "spec": {
            "nodeName": pod.node.name,
            "hostNetwork": True,
            "containers": [{"name": "agent", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "podIP": pod.addresses[0],
            "podIPs": [{"ip": address} for address in pod.addresses],
        },
    }


def _owned(item: Object, owner: tuple[str, str]) -> Object:
    kind, name = owner
    item["metadata"]["ownerReferences"] = [{"kind": kind, "name": name, "controller": True}]
    return item


def _egress(now: datetime) -> Object:
    address = NODE_1.addresses[0]
    return {
        **_object("Egress", now, EGRESS),
        "apiVersion": ANTREA,
        "spec": {
            "appliedTo": {"podSelector": {"matchLabels": {"app": CART.app}}},
            "egressIP": address,
        },
        "status": {"egressNode": NODE_1.name, "egressIP": address},
    }


def _object(kind: str, now: datetime, name: str, namespace: str = "", **labels: str) -> Object:
    metadata: Mapping[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid(kind, name, namespace),
        "creationTimestamp": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "labels": labels,
    }
    present: Object = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": "v1", "kind": kind, "metadata": present}


def _node(node: LabNode, now: datetime) -> Object:
    addresses = [{"type": "InternalIP", "address": address} for address in node.addresses]
    places = {TOPOLOGY_LABELS["zone"][0]: node.zone, TOPOLOGY_LABELS["region"][0]: REGION}
    return {
        **_object("Node", now, node.name, **places),
        "spec": {"podCIDR": node.pod_cidrs[0], "podCIDRs": [*node.pod_cidrs]}
        if node.pod_cidrs
        else {},
        "status": {"addresses": [*addresses, {"type": "Hostname", "address": node.name}]},
    }


def _service(service: Service, now: datetime) -> Object:
    port = {
        "name": service.port_name,
        "protocol": service.protocol.upper(),
        "port": service.port,
        "targetPort": SERVER_PORT,
    }
    if service.node_port:
        port["nodePort"] = service.node_port
    addresses = ["None"] if service.headless else list(service.addresses)
    spec: Object = {
        "type": _type(service),
        "clusterIP": addresses[0],
        "clusterIPs": addresses,
        "ipFamilies": ["IPv4", "IPv6"],
        "ports": [port],
        "selector": {"app": service.backends[0].app},
    }
    if service.balancer:
        spec["externalTrafficPolicy"] = "Local" if service.local else "Cluster"
    ingress = [{"ip": address} for address in service.balancer_addresses]
    return {
        **_object("Service", now, service.name, service.namespace),
        "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress} if service.balancer else {}},
    }


def _collector(now: datetime) -> Object:
    """Return the aggregator's own Service; its address needs no translation here."""
    addresses = list(CONTROL_ADDRESSES)
    port = {
        "name": "ipfix-tls",
        "protocol": "TCP",
        "port": COLLECTOR_PORT,
        "targetPort": COLLECTOR_PORT,
    }
    spec = {"clusterIP": addresses[0], "clusterIPs": addresses, "ports": [port]}
    return {**_object("Service", now, AGGREGATOR, NAMES.namespace), "spec": spec}


def _type(service: Service) -> str:
    if service.balancer:
        return "LoadBalancer"
    return "NodePort" if service.node_port else "ClusterIP"
