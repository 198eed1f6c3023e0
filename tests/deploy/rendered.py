"""The manifests as they are applied."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.kustomize import Object, render

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RELEASE = "overlays/release"  # whole with digests only
OVERLAYS = sorted(f"overlays/{path.name}" for path in (DEPLOY / "overlays").iterdir())
DEPLOYED = ("", "base", *(overlay for overlay in OVERLAYS if overlay != RELEASE))
KEPT = ("namespaces", "overlays/embedded/volume")  # applied first, and not deleted with the rest
LOGS = "logs"  # beside any of them, in a namespace of its own
OPERATED = ("ClickHouseInstallation", "ClickHouseKeeperInstallation")
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet", "Job")
NAMESPACES = ("flow-aggregator", "flow-exporter", "flow-visibility")


@functools.cache
def objects(overlay: str) -> list[Object]:
    return render(DEPLOY / overlay)


def of(overlay: str, *kinds: str) -> list[Object]:
    return [item for item in objects(overlay) if item["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Object:
    (found,) = (item for item in of(overlay, kind) if item["metadata"]["name"] == name)
    return found


def workloads(overlay: str) -> list[Object]:
    return of(overlay, *WORKLOADS)


def workload(name: str, overlay: str = "") -> Object:
    return next(item for item in workloads(overlay) if item["metadata"]["name"] == name)


def templates(overlay: str) -> Iterator[tuple[Object, Object]]:
    """What makes Pods, operators' objects too, with each template of one."""
    for item in workloads(overlay):
        yield item, item["spec"]["template"]
    for item in of(overlay, *OPERATED):
        for template in item["spec"]["templates"]["podTemplates"]:
            yield item, template


def containers(overlay: str) -> Iterator[tuple[Object, Object]]:
    for item in workloads(overlay):
        for container in item["spec"]["template"]["spec"]["containers"]:
            yield item, container


def configuration(overlay: str, file: str) -> str:
    """The text of a file in a ConfigMap."""
    (text,) = (i["data"][file] for i in of(overlay, "ConfigMap") if file in i["data"])
    return str(text)


def secret_keys(value: Any) -> Iterator[tuple[str, str]]:
    """Go through the keys of Secrets that something names."""
    if isinstance(value, list):
        for item in value:
            yield from secret_keys(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "secretKeyRef":
                yield inner["name"], inner["key"]
            else:
                yield from secret_keys(inner)
