"""What the lab consists of: two nodes, their Pods, Services, and a host outside the cluster.

Everything has an IPv4 and an IPv6 address (in that order in every pair); addresses come from the
blocks kept for documentation and private use.
"""

from dataclasses import dataclass

Addresses = tuple[str, str]

NODE_NETWORK: Addresses = ("192.0.2.0/24", "2001:db8:1::/64")
OUTSIDE_NETWORK: Addresses = ("203.0.113.0/24", "2001:db8:2::/64")

SERVER_PORT = 8080
"""Every Pod and the outside host answer here, TCP and UDP."""


@dataclass(frozen=True)
class Node:
    """A node: a network namespace with its own conntrack."""

    name: str
    number: int

    @property
    def addresses(self) -> Addresses:
        """The node's own addresses on the network between the nodes."""
        return f"192.0.2.{10 + self.number}", f"2001:db8:1::{10 + self.number}"

    @property
    def pod_networks(self) -> Addresses:
        """The blocks that its Pods' addresses come from."""
        return f"10.10.{self.number}.0/24", f"fd00:10:{self.number}::/48"

    @property
    def gateways(self) -> Addresses:
        """The next hop of its Pods."""
        return f"10.10.{self.number}.1", f"fd00:10:{self.number}::1"


@dataclass(frozen=True)
class Pod:
    """A Pod: a network namespace joined to its node by a veth."""

    namespace: str
    name: str
    node: Node
    number: int
    app: str

    @property
    def host(self) -> str:
        """The name of its network namespace."""
        return f"{self.namespace}.{self.name}"

    @property
    def addresses(self) -> Addresses:
        """The Pod's addresses."""
        return (
            f"10.10.{self.node.number}.{self.number}",
            f"fd00:10:{self.node.number}::{self.number}",
        )


@dataclass(frozen=True)
class Service:
    """A Service: cluster addresses that each node turns into one of its Pods' by DNAT."""

    namespace: str
    name: str
    port_name: str
    protocol: str
    port: int
    number: int
    backends: tuple[Pod, ...]
    node_port: int = 0

    @property
    def addresses(self) -> Addresses:
        """Its cluster addresses."""
        return f"10.96.0.{self.number}", f"fd00:96::{self.number}"

    @property
    def full_name(self) -> str:
        """What destinationServicePortName says."""
        return f"{self.namespace}/{self.name}:{self.port_name}"


NODE_1 = Node("node-1", 1)
NODE_2 = Node("node-2", 2)
NODES = (NODE_1, NODE_2)

FRONTEND = Pod("shop", "frontend-7d4b", NODE_1, 11, "frontend")
CART = Pod("shop", "cart-0", NODE_1, 12, "cart")
WEB_A = Pod("shop", "web-5f6c-a", NODE_1, 13, "web")
WEB_B = Pod("shop", "web-5f6c-b", NODE_2, 21, "web")
ORDERS = Pod("shop", "orders-0", NODE_2, 22, "orders")
RESOLVER = Pod("kube-system", "coredns-x2k9", NODE_2, 23, "dns")
PODS = (FRONTEND, CART, WEB_A, WEB_B, ORDERS, RESOLVER)

WEB = Service("shop", "web", "http", "tcp", 80, 10, (WEB_A, WEB_B))
STORE = Service("shop", "store", "http", "tcp", 80, 11, (WEB_B,), node_port=30080)
DNS = Service("kube-system", "kube-dns", "dns", "udp", 53, 12, (RESOLVER,))
SERVICES = (WEB, STORE, DNS)

OUTSIDE = "outside"
"""The network namespace of the host outside the cluster."""

OUTSIDE_ADDRESSES: Addresses = ("203.0.113.9", "2001:db8:2::9")
OUTSIDE_GATEWAYS: Addresses = ("203.0.113.1", "2001:db8:2::1")

CONTROL_ADDRESSES: Addresses = ("192.0.2.1", "2001:db8:1::1")
"""The lab's own network namespace: routes between the nodes and the outside; flow-aggregator."""
