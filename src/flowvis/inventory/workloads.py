"""Which workload a Pod belongs to: what its owner was made by, without asking for the owner.

Names are those that the controllers of Kubernetes give: a Deployment's ReplicaSet is called
`<deployment>-<pod-template-hash>`, and a CronJob's Job `<cronjob>-<minutes since the epoch>`. Other
Jobs have numbers as well, as dates: a time is one that a Pod can have been scheduled for.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

TEMPLATE_HASH = "pod-template-hash"
_HASHED = re.compile(r"(.+)-[bcdf-hj-np-tv-z2456789]{1,10}")  # apimachinery's SafeEncodeString
_SCHEDULED = re.compile(r"(.+)-(\d{8,10})")
_DIGITS = 8  # of minutes until the year 2160; older releases wrote seconds, which are more
_FIRST_S = 1_420_070_400  # 2015: there were no CronJobs before
_AHEAD_S = 86_400  # how far a clock may be off


class Workload(NamedTuple):
    """What runs a Pod; both empty for a Pod that was made by itself."""

    kind: str
    name: str


NO_WORKLOAD = Workload("", "")

THE_NODE = "(node)"
"""In the place of a workload: processes in a node's own network, Pods with hostNetwork too."""
EXTERNAL = "(external)"
OTHER = "(other)"
"""Those for which there is no room. No object of Kubernetes can have a name in parentheses."""


def workload(metadata: Mapping[str, Any], created_ms: int = 0) -> Workload:
    """Return the workload of a Pod by its metadata; `created_ms`: when it was made, if known."""
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            labels = metadata.get("labels") or {}
            return _maker(owner["kind"], owner["name"], labels, created_ms)
    return NO_WORKLOAD


def _maker(kind: str, name: str, labels: Mapping[str, Any], created_ms: int) -> Workload:
    if kind == "ReplicaSet" and TEMPLATE_HASH in labels:
        made = name.removesuffix(f"-{labels[TEMPLATE_HASH]}")
        hashed = _HASHED.fullmatch(name) if made == name else None
        return Workload("Deployment", hashed[1] if hashed else made)
    if kind == "Job" and (scheduled := _SCHEDULED.fullmatch(name)):
        at_s = int(scheduled[2]) * (60 if len(scheduled[2]) == _DIGITS else 1)
        if at_s >= _FIRST_S and (not created_ms or at_s <= created_ms // 1000 + _AHEAD_S):
            return Workload("CronJob", scheduled[1])
    return Workload(kind, name)
