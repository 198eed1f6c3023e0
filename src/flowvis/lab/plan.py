"""What the lab consists of: two nodes, their Pods, Services, and a host outside the cluster.

Everything has an IPv4 and an IPv6 address (in that order in every pair); addresses come from the
blocks kept for documentation and private use.
"""

from dataclasses import dataclass

from flowvis.lab import cni
from flowvis.lab.cni import Addresses

NODE_NETWORK: Addresses = ("192.0.2.0/24", "2001:db8:1::/64")
OUTSIDE_NETWORK: Addresses = ("203.0.113.0/24", "2001:db8:2::/64")

BALANCER_NETWORK: Addresses = ("198.51.100.0/24", "2001:db8:3::/64")
"""Addresses of load balancers; what is sent there enters the cluster at node-1."""

REGION = "lab"
"""The region of all nodes."""

SERVER_PORT = 8080
"""Every Pod and the outside host answer here, TCP and UDP."""

SILENT_PORT = 9
"""Nobody answers here: packets are dropped where they arrive, and no policy says so."""


@dataclass(frozen=True)
class LabNode:
    """A node: a network namespace with its own conntrack."""

    name: str
    number: int

    @property
    def addresses(self) -> Addresses:
        """The node's own addresses on the network between the nodes."""
        return f"192.0.2.{10 + self.number}", f"2001:db8:1::{10 + self.number}"

    @property
    def zone(self) -> str:
        """What its label topology.kubernetes.io/zone says: each node has a zone of its own."""
        return f"{REGION}-{self.number}"

    @property
    def pod_networks(self) -> Addresses:
        """The blocks that its Pods' addresses come from."""
        return cni.in_force().blocks[self.number]

    @property
    def pod_cidrs(self) -> Addresses | tuple[()]:
        """What its object says of them."""
        return cni.in_force().pod_cidrs[self.number]

    @property
    def gateways(self) -> Addresses:
        """The next hop of its Pods."""
        return cni.in_force().gateways(self.number)


@dataclass(frozen=True)
class LabPod:
    """A Pod: a network namespace joined to its node by a veth."""

    namespace: str
    name: str
    node: LabNode
    number: int
    app: str
    owner: tuple[str, str]
    """Kind and name of what made it."""
    workload: tuple[str, str]
    """Kind and name of what made that, or itself."""
    heir_of: "LabPod | None" = None
    """The Pod that ended so that this one could have its addresses, in the middle of the run."""

    @property
    def host(self) -> str:
        """The name of its network namespace."""
        return self.heir_of.host if self.heir_of else f"{self.namespace}.{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; a Deployment's Pods have one more."""
        kind, name = self.owner
        more = {"pod-template-hash": name.rpartition("-")[2]} if kind == "ReplicaSet" else {}
        return {"app": self.app, **more}

    @property
    def addresses(self) -> Addresses:
        """The Pod's addresses."""
        return cni.in_force().address(self.node.number, self.number)


@dataclass(frozen=True)
class Service:
    """A Service: cluster addresses that each node turns into one of its Pods' by DNAT."""

    namespace: str
    name: str
    port_name: str
    protocol: str
    port: int
    number: int
    backends: tuple[LabPod, ...]
    node_port: int = 0
    headless: bool = False
    """No addresses: its name stands for its Pods' own."""
    balancer: bool = False
    """Called at a load balancer's address as well."""
    local: bool = False
    """externalTrafficPolicy: what comes from outside stays on the node, with its own address."""

    @property
    def addresses(self) -> Addresses:
        """Its cluster addresses."""
        return f"10.96.0.{self.number}", f"fd00:96::{self.number}"

    @property
    def balancer_addresses(self) -> Addresses:
        """The load balancer's addresses for it."""
        return f"198.51.100.{self.number}", f"2001:db8:3::{self.number}"

    @property
    def full_name(self) -> str:
        """What destinationServicePortName says."""
        return f"{self.namespace}/{self.name}:{self.port_name}"


NODE_1 = LabNode("node-1", 1)
NODE_2 = LabNode("node-2", 2)
NODES = (NODE_1, NODE_2)

# A table reads best as one.
# fmt: off
FRONTEND = LabPod("shop", "frontend-7d4b", NODE_1, 11, "frontend",
               ("ReplicaSet", "frontend-7d4b"), ("Deployment", "frontend"))
CART = LabPod("shop", "cart-0", NODE_1, 12, "cart",
              ("StatefulSet", "cart"), ("StatefulSet", "cart"))
WEB_A = LabPod("shop", "web-5f6c-a", NODE_1, 13, "web",
            ("ReplicaSet", "web-5f6c"), ("Deployment", "web"))
WEB_B = LabPod("shop", "web-5f6c-b", NODE_2, 21, "web",
            ("ReplicaSet", "web-5f6c"), ("Deployment", "web"))
ORDERS = LabPod("shop", "orders-0", NODE_2, 22, "orders",
             ("StatefulSet", "orders"), ("StatefulSet", "orders"))
RESOLVER = LabPod("kube-system", "coredns-x2k9", NODE_2, 23, "dns",
               ("ReplicaSet", "coredns-x2k9"), ("Deployment", "coredns"))
REPORT = LabPod("batch", "report-29333700-h8k2p", NODE_1, 14, "report",
             ("Job", "report-29333700"), ("CronJob", "report"))
JOB = LabPod("batch", "import-1-x7k2p", NODE_2, 24, "import",
             ("Job", "import-1"), ("Job", "import-1"))
NEXT_JOB = LabPod("batch", "import-2-q9d4f", NODE_2, 24, "import",
               ("Job", "import-2"), ("Job", "import-2"), heir_of=JOB)
# fmt: on
PODS = (FRONTEND, CART, WEB_A, WEB_B, ORDERS, RESOLVER, REPORT, JOB, NEXT_JOB)

WEB = Service("shop", "web", "http", "tcp", 80, 10, (WEB_A, WEB_B))
STORE = Service("shop", "store", "http", "tcp", 80, 11, (WEB_B,), node_port=30080)
DNS = Service("kube-system", "kube-dns", "dns", "udp", 53, 12, (RESOLVER,))
PORTAL = Service("shop", "portal", "http", "tcp", 80, 13, (WEB_B,), balancer=True)
KIOSK = Service("shop", "kiosk", "http", "tcp", 80, 14, (WEB_A,), balancer=True, local=True)
ORDERS_PODS = Service("shop", "orders", "api", "tcp", SERVER_PORT, 15, (ORDERS,), headless=True)
SERVICES = (WEB, STORE, DNS, PORTAL, KIOSK, ORDERS_PODS)
"""What the Pods call."""


@dataclass(frozen=True)
class HostPod:
    """A Pod in its node's own network: it answers at the node's addresses."""

    namespace: str
    name: str
    node: LabNode
    workload: tuple[str, str]

    @property
    def addresses(self) -> Addresses:
        """The node's."""
        return self.node.addresses

    @property
    def labels(self) -> dict[str, str]:
        """None."""
        return {}


AGENT = HostPod("kube-system", "node-agent-k4v2d", NODE_2, ("DaemonSet", "node-agent"))


@dataclass(frozen=True)
class Process:
    """A process of a node that calls Pods from the node's end of their links, as a kubelet does."""

    node: LabNode

    @property
    def host(self) -> str:
        """The network namespace that it is in."""
        return self.node.name

    @property
    def addresses(self) -> Addresses:
        """The gateway's, of the node's Pods."""
        return self.node.gateways


OUTSIDE = "outside"
"""The network namespace of the host outside the cluster."""

OUTSIDE_ADDRESSES: Addresses = ("203.0.113.9", "2001:db8:2::9")
OUTSIDE_GATEWAYS: Addresses = ("203.0.113.1", "2001:db8:2::1")

CONTROL_ADDRESSES: Addresses = ("192.0.2.1", "2001:db8:1::1")
"""The lab's own network namespace: routes between the nodes and the outside; flow-aggregator and
the API server."""

BALANCER_NODE = NODE_1
"""Where the network sends what is for a load balancer's address."""


EGRESS = "carts-leave"
"""The Egress by which the Pods of the cart leave the cluster, with node-1's IPv4 address."""


def hosts() -> dict[str, LabPod]:
    """Return the network namespaces of Pods; heirs move into those of the Pods before them."""
    return {pod.host: pod for pod in PODS if pod.heir_of is None}
