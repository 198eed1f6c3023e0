"""The lab's traffic as data: who talks to whom, how, and how much.

An exchange is one request and one response of known sizes. A connection has one exchange, or keeps
having them through the whole run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flowvis.lab.plan import (
    CART,
    DNS,
    FRONTEND,
    NODE_1,
    NODE_2,
    ORDERS,
    OUTSIDE,
    OUTSIDE_ADDRESSES,
    SERVER_PORT,
    STORE,
    WEB,
    Addresses,
    Node,
    Pod,
    Service,
)

FIRST_PORT = 20_000  # below what the kernel gives out itself
PORTS_EACH = 500


@dataclass(frozen=True)
class Outside:
    """The host outside the cluster, as one end of a connection."""

    host: str = OUTSIDE
    addresses: Addresses = OUTSIDE_ADDRESSES


@dataclass(frozen=True)
class NodePort:
    """A Service called at a node's own address."""

    service: Service
    node: Node

    @property
    def addresses(self) -> Addresses:
        """The node's."""
        return self.node.addresses


@dataclass(frozen=True)
class Scenario:
    """Connections of one kind."""

    name: str
    about: str
    client: Pod | Outside
    target: Pod | Service | NodePort | Outside
    protocol: str = "tcp"
    family: int = 4
    connections: int = 1
    every_s: float = 0.0
    """Seconds between the exchanges of a connection that lasts; 0: one exchange, then the end."""
    anew: bool = False
    """Each exchange is a new connection with the same 5-tuple."""
    request: int = 1_000
    response: int = 10_000

    @property
    def client_address(self) -> str:
        """The address that the client sends from."""
        return self.client.addresses[self.family == 6]

    @property
    def server(self) -> tuple[str, int]:
        """Address and port that the client sends to."""
        address = self.target.addresses[self.family == 6]
        if isinstance(self.target, NodePort):
            return address, self.target.service.node_port
        return address, self.target.port if isinstance(self.target, Service) else SERVER_PORT

    @property
    def client_ports(self) -> range:
        """One source port for each connection, used by no other scenario."""
        first = FIRST_PORT + PORTS_EACH * [s.name for s in SCENARIOS].index(self.name)
        return range(first, first + self.connections)

    @property
    def service(self) -> Service | None:
        """The Service that is called."""
        if isinstance(self.target, NodePort):
            return self.target.service
        return self.target if isinstance(self.target, Service) else None

    @property
    def backends(self) -> tuple[Pod, ...]:
        """The Pods that may answer; none where the outside host does."""
        if self.service is not None:
            return self.service.backends
        return (self.target,) if isinstance(self.target, Pod) else ()


STEADY_S = 0.25  # seldom enough for two cores, often enough for every poll to see growth

# A table reads best as one.
# fmt: off
SCENARIOS = (
    Scenario("intra-node", "two Pods of one node", FRONTEND, CART, every_s=STEADY_S),
    Scenario("inter-node", "Pods of two nodes", FRONTEND, ORDERS, every_s=STEADY_S),
    Scenario("inter-node-v6", "Pods of two nodes, IPv6", CART, ORDERS, family=6, every_s=STEADY_S),
    Scenario("bulk", "much data in one go", CART, ORDERS, connections=2,
             request=500_000, response=4_000_000),
    Scenario("service", "a Service with a Pod on each node", FRONTEND, WEB, connections=4,
             every_s=STEADY_S),
    Scenario("service-v6", "the same Service, IPv6", FRONTEND, WEB, family=6, connections=2,
             every_s=STEADY_S),
    Scenario("short", "over before a poll sees them", FRONTEND, ORDERS, connections=60),
    Scenario("short-v6", "over before a poll sees them, IPv6", FRONTEND, CART, family=6,
             connections=30),
    Scenario("reused", "new connections with the same 5-tuple", FRONTEND, ORDERS, every_s=2.5,
             anew=True),
    Scenario("udp", "datagrams between nodes", CART, ORDERS, "udp", every_s=0.1,
             request=300, response=900),
    Scenario("udp-v6", "datagrams between nodes, IPv6", FRONTEND, ORDERS, "udp", 6, every_s=0.1,
             request=300, response=900),
    Scenario("dns", "one datagram each way, through a Service", FRONTEND, DNS, "udp",
             connections=40, request=60, response=180),
    Scenario("to-outside", "leaves the cluster behind its node's address", CART, Outside(),
             every_s=STEADY_S, request=2_000, response=50_000),
    Scenario("to-outside-v6", "leaves the cluster, IPv6", CART, Outside(), family=6, connections=3),
    Scenario("from-outside", "a node port, to a Pod of that node", Outside(),
             NodePort(STORE, NODE_2), every_s=STEADY_S),
    Scenario("from-outside-via", "a node port, to a Pod of the other node", Outside(),
             NodePort(STORE, NODE_1), every_s=STEADY_S),
    Scenario("from-outside-v6", "a node port, to the other node, IPv6", Outside(),
             NodePort(STORE, NODE_1), family=6, connections=5),
)
# fmt: on


def choose(names: Sequence[str]) -> tuple[Scenario, ...]:
    """Return the scenarios of these names, in the table's order; all where none is named."""
    known = {scenario.name for scenario in SCENARIOS}
    for name in names:
        if name not in known:
            raise ValueError(f"no scenario {name!r}: choose from {', '.join(sorted(known))}")
    return tuple(s for s in SCENARIOS if not names or s.name in names)
