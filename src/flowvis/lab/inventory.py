"""What Kubernetes would say about the lab, in the form of `kubectl get -o yaml`."""

from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import yaml

from flowvis.lab.plan import NODES, PODS, SERVER_PORT, SERVICES, Node, Pod, Service


def document(now: datetime) -> str:
    """Return a List of all Nodes, Services and Pods, created at `now`."""
    created = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        *(_node(node, created) for node in NODES),
        *(_service(service, created) for service in SERVICES),
        *(_pod(pod, created) for pod in PODS),
    ]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}, sort_keys=False)


def _object(kind: str, created: str, name: str, namespace: str = "", **labels: str) -> Any:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": str(uuid5(NAMESPACE_DNS, f"{name}.{namespace}.{kind}")),
        "creationTimestamp": created,
        "labels": labels,
    }
    present = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": "v1", "kind": kind, "metadata": present}


def _node(node: Node, created: str) -> Any:
    addresses = [{"type": "InternalIP", "address": address} for address in node.addresses]
    return {
        **_object("Node", created, node.name),
        "spec": {"podCIDR": node.pod_networks[0], "podCIDRs": list(node.pod_networks)},
        "status": {"addresses": [*addresses, {"type": "Hostname", "address": node.name}]},
    }


def _service(service: Service, created: str) -> Any:
    port = {
        "name": service.port_name,
        "protocol": service.protocol.upper(),
        "port": service.port,
        "targetPort": SERVER_PORT,
    }
    if service.node_port:
        port["nodePort"] = service.node_port
    return {
        **_object("Service", created, service.name, service.namespace),
        "spec": {
            "type": "NodePort" if service.node_port else "ClusterIP",
            "clusterIP": service.addresses[0],
            "clusterIPs": list(service.addresses),
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [port],
            "selector": {"app": service.backends[0].app},
        },
    }


def _pod(pod: Pod, created: str) -> Any:
    return {
        **_object("Pod", created, pod.name, pod.namespace, app=pod.app),
        "spec": {"nodeName": pod.node.name},
        "status": {
            "phase": "Running",
            "hostIP": pod.node.addresses[0],
            "podIP": pod.addresses[0],
            "podIPs": [{"ip": address} for address in pod.addresses],
        },
    }
