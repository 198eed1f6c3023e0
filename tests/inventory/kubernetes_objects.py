from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import address_bytes


def pod(name: str, *ips: str, node: str = "node-1", uid: str = "", **more: Any) -> dict[str, Any]:
    spec = {"nodeName": node} | more.pop("spec", {})
    status = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]} | more.pop("status", {})
    metadata = {
        "namespace": "shop",
        "name": name,
        "uid": uid or f"uid-{name}",
        "creationTimestamp": "1970-01-01T00:00:01Z",
        **more,
    }
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def service(name: str, ips: list[str], *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    status = {"loadBalancer": {"ingress": [{"ip": ip} for ip in spec.pop("balancer", [])]}}
    return {
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": ips[0], "clusterIPs": ips, "ports": list(ports), **spec},
        "status": status,
    }


def node(name: str, ip: str, *cidrs: str, labels: Any = None) -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"podCIDRs": list(cidrs)},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": ip},
                {"type": "Hostname", "address": name},
            ]
        },
    }


def addresses(ips: Iterable[str]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(map(address_bytes, ips)), dtype=np.uint8).reshape(-1, 16)
