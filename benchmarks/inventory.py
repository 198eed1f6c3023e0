"""Both daemons' inventories of a cluster with 1,000 nodes and 50,000 Pods, of which 100 a second
are replaced by others, through the API's real JSON over HTTP from a stand-in server.

The server is a process of its own. A Pod's life is six events (made, scheduled, given its address,
ready, ending, gone), as Kubernetes sends them; what an aggregator and an exporter on one of the
nodes take in of it is measured in processes of their own. `cpu_percent` is of a core while Pods
churn. `bytes_per_pod` is what 100,000 Pods in an inventory add to a process.
"""

import asyncio
import json
import multiprocessing
import multiprocessing.connection
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowvis.inventory.index import Inventory
from flowvis.inventory.settings import KubernetesSettings
from flowvis.inventory.sources.access import Access
from flowvis.lab.apiserver import ApiServer

NODES = 1000
PODS = 50_000
SERVICES = 2000
CHURN = 100  # Pods a second
SECONDS = 8
MANY = 100_000
NODE = "node-7"
BEAT_S = 300  # each node tells its state as often


@dataclass(frozen=True)
class _Plain(KubernetesSettings):
    """Access over plain HTTP, without a name."""

    url: str = ""
    server_name = proxy = None

    def access(self) -> Access:
        return self

    def authorization(self) -> str:
        return ""

    def refused(self) -> None:
        pass

    def context(self) -> None:
        return None


def run() -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    url = ours.recv()
    results = {}
    readers = {}
    for name in ("aggregator", "exporter"):
        mine, other = context.Pipe()
        process = context.Process(target=_read, args=(name, url, other), daemon=True)
        process.start()
        readers[name] = mine
        assert mine.recv() == "synced"
    ours.send("churn")
    for mine in readers.values():
        mine.send("measure")
    assert ours.recv() == "done"
    for name, mine in readers.items():
        mine.send("report")
        results[name] = mine.recv()
    ours.send("stop")
    server.join()
    per_pod = _measured(context, _fill)
    events = sum(result.pop("events") for result in results.values())
    flat = {f"{name}_{key}": value for name, part in results.items() for key, value in part.items()}
    return {
        "records": events,
        "cpu_seconds": round(sum(flat[f"{name}_cpu_seconds"] for name in results), 3),
        "wall_seconds": SECONDS,
        "pods": PODS,
        "rss_mb": flat["aggregator_rss_mb"],
        **flat,
        "bytes_per_pod": per_pod,
        f"mb_of_{MANY}_pods": round(per_pod * MANY / 2**20, 1),
    }


def _measured(context: Any, work: Any) -> Any:
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,))
    process.start()
    result = ours.recv()
    process.join()
    return result


def _fill(pipe: multiprocessing.connection.Connection) -> None:
    """Tell how many bytes each of many Pods takes, of all that the process has."""
    inventory = Inventory()
    inventory.upsert(_pod(0), 0)
    before = _resident()
    for number in range(1, MANY + 1):
        inventory.upsert(json.loads(json.dumps(_pod(number))), 0)
    pipe.send((_resident() - before) // MANY)


def _read(name: str, url: str, pipe: multiprocessing.connection.Connection) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_follow(name, url, pipe))


async def _follow(name: str, url: str, pipe: multiprocessing.connection.Connection) -> None:
    from flowvis.aggregator import cluster as whole
    from flowvis.exporter import cluster as node

    inventory = Inventory()
    settings = _Plain(url=url)
    if name == "exporter":
        watchers = node.follow(settings, NODE, inventory)
    else:
        watchers = whole.follow(settings, inventory)
    before = _resident()
    began = time.process_time()
    await watchers.start()
    while watchers.not_synced():  # noqa: ASYNC110  a start has a limit and goes on without
        await asyncio.sleep(0.1)
    listed = time.process_time() - began
    pipe.send("synced")
    await asyncio.to_thread(pipe.recv)
    events, cpu = watchers.stats.events, time.process_time()
    await asyncio.to_thread(pipe.recv)
    cpu = time.process_time() - cpu
    pipe.send(
        {
            "events": watchers.stats.events - events,
            "events_per_second": round((watchers.stats.events - events) / SECONDS),
            "objects": len(inventory),
            "list_cpu_seconds": round(listed, 2),
            "cpu_seconds": round(cpu, 3),
            "cpu_percent": round(100 * cpu / SECONDS, 1),
            "inventory_mb": round((_resident() - before) / 2**20, 1),
            "rss_mb": round(_resident() / 2**20, 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
    )
    await watchers.stop()


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    asyncio.run(_stand_in(pipe))


async def _stand_in(pipe: multiprocessing.connection.Connection) -> None:
    server = ApiServer()
    for number in range(NODES):
        server.put(_node(number, 0))
    for number in range(SERVICES):
        server.put(_service(number))
    for number in range(PODS):
        server.put(_pod(number))
    server.log.clear()
    await server.start()
    pipe.send(server.url)
    await asyncio.to_thread(pipe.recv)
    steps, every = _churn(server), 10
    began = time.monotonic()
    for turn in range(SECONDS * every):
        for _ in range(CHURN // every):
            next(steps)
        del server.log[:-10_000]
        await asyncio.sleep(max(0.0, began + (turn + 1) / every - time.monotonic()))
    pipe.send("done")
    await asyncio.to_thread(pipe.recv)
    await server.stop()


def _churn(server: Any) -> Iterator[None]:
    """Each step replaces one Pod by another, and now and then a node tells its state."""
    for number in range(PODS):
        new = PODS + number
        for bare in (_pod(new, node=False, address=False), _pod(new, address=False)):
            bare["status"]["phase"] = "Pending"
            server.put(bare)
        waiting = _pod(new)
        waiting["status"]["conditions"] = []
        server.put(waiting)
        server.put(_pod(new))
        ending = _pod(number)
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        server.put(ending)
        server.remove(ending)
        if number % (CHURN * BEAT_S // NODES) == 0:
            server.put(_node(number % NODES, number))
        yield


def _pod(number: int, *, node: bool = True, address: bool = True) -> dict[str, Any]:
    """A Pod of 5 KB, of one of 2,500 Deployments; its address is another's after it."""
    app, namespace = number % 2500, f"team-{number % 2500 % 100}"
    place = number % PODS if number < MANY // 2 + PODS else number
    ip = f"10.{place >> 16}.{place >> 8 & 255}.{place & 255}"
    template = f"{app * 2654435761 % 2**32:08x}"
    environment = [{"name": f"OPTION_{i}", "value": f"value of option {i}"} for i in range(24)]
    conditions = [
        {
            "type": kind,
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "PodScheduled")
    ]
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"app-{app}-{template}-{number:05x}",
            "namespace": namespace,
            "uid": f"{number:08x}-0000-4000-8000-{number:012x}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app.kubernetes.io/name": f"app-{app}",
                "app.kubernetes.io/part-of": namespace,
                "pod-template-hash": template,
            },
            "annotations": {"checksum/config": "0" * 64, "prometheus.io/scrape": "true"},
            "ownerReferences": [
                {"kind": "ReplicaSet", "name": f"app-{app}-{template}", "controller": True}
            ],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:podIPs": {}}}}]
            * 8,
        },
        "spec": {
            "nodeName": f"node-{number % NODES}" if node else "",
            "serviceAccountName": f"app-{app}",
            "containers": [
                {
                    "name": "app",
                    "image": "registry.example/app:1",
                    "env": environment,
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                }
            ],
        },
        "status": {
            "phase": "Running",
            "conditions": conditions,
            "podIPs": [{"ip": ip}] if address else [],
        },
    }


def _node(number: int, beat: int) -> dict[str, Any]:
    """A node of 10 KB, most of it the images that it has."""
    images = [{"names": [f"registry.example/image-{i}@sha256:{'0' * 64}"]} for i in range(80)]
    return {
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "uid": f"node-{number}", "labels": {}},
        "spec": {"podCIDRs": [f"10.{number >> 8}.{number & 255}.0/24"]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": f"172.16.{number >> 8}.{number & 255}"}
            ],
            "images": images,
            "conditions": [{"type": "Ready", "lastHeartbeatTime": str(beat)}],
        },
    }


def _service(number: int) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": f"app-{number}", "namespace": "team", "uid": f"service-{number}"},
        "spec": {
            "clusterIPs": [f"10.96.{number >> 8}.{number & 255}"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "selector": {"app.kubernetes.io/name": f"app-{number}"},
        },
        "status": {},
    }


def _resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
