"""Which replica receives: what to do next with a Lease, given what it says and for how long.

The halves of a connection meet in one process. So one replica receives, the one that the Lease
names (coordination.k8s.io/v1, as client-go's leader election writes it); any other waits, and is
not ready. A holder that has died is known by a Lease that does not change: how long is measured by
the clock of who waits, as the clocks of nodes differ (client-go does the same).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]

LONGEST_S = 300  # believed of a duration that another wrote


@dataclass(frozen=True)
class Candidate:
    """A replica, and the Lease that it wants."""

    identity: str
    lease: str
    namespace: str
    duration_s: float
    """How long the Lease is good without being renewed."""

    def __str__(self) -> str:
        return f"Lease {self.namespace}/{self.lease}"


@dataclass(frozen=True)
class Claim:
    """Write this Lease: a new one, or one that replaces what was read."""

    item: dict[str, Any]
    creates: bool
    reason: str
    """Why it may be taken; "" where it is only renewed."""


@dataclass(frozen=True)
class Elsewhere:
    """Another replica has it."""

    holder: str


def decide(
    lease: Object | None, us: Candidate, *, unchanged_s: float, now: datetime
) -> Claim | Elsewhere:
    """Return what to do with the Lease as it was read, None where there is none.

    `unchanged_s` is for how long it has been seen as it is; `now` (UTC) is only written.
    """
    if lease is None:
        return Claim(_ours({}, us, now), creates=True, reason="there was none")
    holder = _holder(lease)
    if holder == us.identity:
        return Claim(_ours(lease, us, now), creates=False, reason="")
    if not holder:
        return Claim(_ours(lease, us, now), creates=False, reason="it was free")
    if unchanged_s < _duration_s(lease, us):
        return Elsewhere(holder)
    reason = f"{holder} has not renewed it for {unchanged_s:.0f} s"
    return Claim(_ours(lease, us, now), creates=False, reason=reason)


def released(lease: Object | None, us: Candidate, now: datetime) -> dict[str, Any] | None:
    """Return the Lease to write so that another may have it at once; None where it is not ours."""
    if lease is None or _holder(lease) != us.identity:
        return None
    free = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time(now)}
    return {**lease, "spec": {**_spec(lease), **free}}


def _ours(before: Object, us: Candidate, now: datetime) -> dict[str, Any]:
    """Return a Lease that is ours; what else was in it stays, with its version."""
    spec = dict(_spec(before))
    if _holder(before) != us.identity:
        transitions = spec.get("leaseTransitions")
        spec["leaseTransitions"] = transitions + 1 if isinstance(transitions, int) else 0
        spec["acquireTime"] = _micro_time(now)
    spec["holderIdentity"] = us.identity
    spec["leaseDurationSeconds"] = round(us.duration_s)
    spec["renewTime"] = _micro_time(now)
    metadata = before.get("metadata") or {"labels": {"app.kubernetes.io/part-of": "flowvis"}}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {**metadata, "name": us.lease, "namespace": us.namespace},
        "spec": spec,
    }


def _spec(lease: Object) -> Mapping[str, Any]:
    spec = lease.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def _holder(lease: Object) -> str:
    return str(_spec(lease).get("holderIdentity") or "")


def _duration_s(lease: Object, us: Candidate) -> float:
    """Return how long the Lease is good without being renewed, as its holder says."""
    duration = _spec(lease).get("leaseDurationSeconds")
    if isinstance(duration, int) and 0 < duration <= LONGEST_S:
        return float(duration)
    return us.duration_s


def _micro_time(now: datetime) -> str:
    """Return a time as the API's MicroTime."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
