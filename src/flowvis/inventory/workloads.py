"""Which workload a Pod belongs to: what its owner was made by, without asking for the owner.

Names are those that the controllers of Kubernetes give: a Deployment's ReplicaSet is called
`<deployment>-<pod-template-hash>`, and a CronJob's Job `<cronjob>-<minutes since the epoch>`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

TEMPLATE_HASH = "pod-template-hash"
_HASHED = re.compile(r"(.+)-[bcdf-hj-np-tv-z2456789]{1,10}")  # apimachinery's SafeEncodeString
_SCHEDULED = re.compile(r"(.+)-\d{8,10}")  # older releases wrote seconds


class Workload(NamedTuple):
    """What runs a Pod; both empty for a Pod that was made by itself."""

    kind: str
    name: str


NO_WORKLOAD = Workload("", "")


def workload(metadata: Mapping[str, Any]) -> Workload:
    """Return the workload of a Pod by its metadata."""
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            return _maker(owner["kind"], owner["name"], metadata.get("labels") or {})
    return NO_WORKLOAD


def _maker(kind: str, name: str, labels: Mapping[str, Any]) -> Workload:
    if kind == "ReplicaSet" and TEMPLATE_HASH in labels:
        made = name.removesuffix(f"-{labels[TEMPLATE_HASH]}")
        hashed = _HASHED.fullmatch(name) if made == name else None
        return Workload("Deployment", hashed[1] if hashed else made)
    if kind == "Job" and (scheduled := _SCHEDULED.fullmatch(name)):
        return Workload("CronJob", scheduled[1])
    return Workload(kind, name)
