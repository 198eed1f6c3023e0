"""The kinds of objects that are watched, by the names that the API has for them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind, and under which versions of its group it may be served, the best first."""

    group: str
    """"" for the core group."""
    versions: tuple[str, ...]
    plural: str
    kind: str
    optional: bool = False
    """Whether a cluster may lack it: it can come later, with its definition."""

    def paths(self) -> list[tuple[str, str]]:
        """Return for each version its apiVersion and the path of its resource list."""
        if not self.group:
            return [(version, f"/api/{version}") for version in self.versions]
        named = [f"{self.group}/{version}" for version in self.versions]
        return [(name, f"/apis/{name}") for name in named]

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


PODS = Resource("", ("v1",), "pods", "Pod")
SERVICES = Resource("", ("v1",), "services", "Service")
NODES = Resource("", ("v1",), "nodes", "Node")
NAMESPACES = Resource("", ("v1",), "namespaces", "Namespace")
CONFIG_MAPS = Resource("", ("v1",), "configmaps", "ConfigMap")
SECRETS = Resource("", ("v1",), "secrets", "Secret")
LEASES = Resource("coordination.k8s.io", ("v1",), "leases", "Lease")

_ANTREA = "crd.antrea.io"
_ADMIN = "policy.networking.k8s.io"

POLICIES = (
    Resource("networking.k8s.io", ("v1",), "networkpolicies", "NetworkPolicy", optional=True),
    Resource(_ANTREA, ("v1beta1",), "networkpolicies", "NetworkPolicy", optional=True),
    Resource(
        _ANTREA, ("v1beta1",), "clusternetworkpolicies", "ClusterNetworkPolicy", optional=True
    ),
    Resource(_ANTREA, ("v1beta1",), "tiers", "Tier", optional=True),
    Resource(_ANTREA, ("v1beta1",), "groups", "Group", optional=True),
    Resource(_ANTREA, ("v1beta1",), "clustergroups", "ClusterGroup", optional=True),
    Resource(_ADMIN, ("v1alpha1",), "adminnetworkpolicies", "AdminNetworkPolicy", optional=True),
    Resource(
        _ADMIN,
        ("v1alpha1",),
        "baselineadminnetworkpolicies",
        "BaselineAdminNetworkPolicy",
        optional=True,
    ),
    Resource(
        _ADMIN,
        ("v1beta1", "v1alpha2"),
        "clusternetworkpolicies",
        "ClusterNetworkPolicy",
        optional=True,
    ),
)
"""All kinds that decide on connections, and those that they refer to."""

EGRESSES = Resource(_ANTREA, ("v1beta1",), "egresses", "Egress", optional=True)
