"""The lab's traffic as data: who talks to whom, how, and how much.

An exchange is one request and one response of known sizes. A connection has one exchange, or keeps
having them through the whole run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from flowvis.fields import RuleAction
from flowvis.lab.cni import Addresses
from flowvis.lab.plan import (
    AGENT,
    BALANCER_NODE,
    CART,
    DNS,
    FRONTEND,
    JOB,
    KIOSK,
    NEXT_JOB,
    NODE_1,
    NODE_2,
    ORDERS,
    OUTSIDE,
    OUTSIDE_ADDRESSES,
    PORTAL,
    REPORT,
    SERVER_PORT,
    SILENT_PORT,
    STORE,
    WEB,
    WEB_A,
    HostPod,
    LabNode,
    LabPod,
    Process,
    Service,
)
from flowvis.lab.policies import egress_answer, ingress_answer

FIRST_PORT = 20_000  # below what the kernel gives out itself
PORTS_EACH = 250


@dataclass(frozen=True)
class Outside:
    """The host outside the cluster, as one end of a connection."""

    host: str = OUTSIDE
    addresses: Addresses = OUTSIDE_ADDRESSES


@dataclass(frozen=True)
class NodePort:
    """A Service called at a node's own address."""

    service: Service
    node: LabNode

    @property
    def addresses(self) -> Addresses:
        """The node's."""
        return self.node.addresses

    @property
    def port(self) -> int:
        """The same on every node."""
        return self.service.node_port


@dataclass(frozen=True)
class Balancer:
    """A Service called at a load balancer's address."""

    service: Service

    @property
    def node(self) -> LabNode:
        """Where the connection enters the cluster."""
        return BALANCER_NODE

    @property
    def addresses(self) -> Addresses:
        """The load balancer's for this Service."""
        return self.service.balancer_addresses

    @property
    def port(self) -> int:
        """The Service's own."""
        return self.service.port


Entry = NodePort | Balancer
"""How a Service is called from outside."""


class Outcome(Enum):
    """What becomes of a connection."""

    ANSWERED = "answered"
    REFUSED = "refused"
    SILENCE = "silence"


@dataclass(frozen=True)
class Scenario:
    """Connections of one kind."""

    name: str
    about: str
    client: LabPod | Process | Outside
    target: LabPod | HostPod | Service | Entry | Outside
    protocol: str = "tcp"
    family: int = 4
    connections: int = 1
    every_s: float = 0.0
    """Seconds between the exchanges of a connection that lasts; 0: one exchange, then the end."""
    anew: bool = False
    """Each exchange is a new connection with the same 5-tuple."""
    request: int = 1_000
    response: int = 10_000
    silent: bool = False
    """Goes to the port where nobody answers."""
    during: tuple[float, float] = (0.0, 1.0)
    """When, as parts of the run."""
    burst: int = 1
    """Datagrams that are sent at once."""
    fault: str = ""
    """Takes place only in runs with this fault."""

    @property
    def client_address(self) -> str:
        """The address that the client sends from."""
        return self.client.addresses[self.family == 6]

    @property
    def server(self) -> tuple[str, int]:
        """Address and port that the client sends to."""
        port = self.target.port if isinstance(self.target, Service | Entry) else SERVER_PORT
        return self.target.addresses[self.family == 6], SILENT_PORT if self.silent else port

    @property
    def client_ports(self) -> range:
        """One source port for each connection, used by no other scenario."""
        first = FIRST_PORT + PORTS_EACH * [s.name for s in SCENARIOS].index(self.name)
        return range(first, first + self.connections)

    @property
    def service(self) -> Service | None:
        """The Service that is called."""
        if isinstance(self.target, Entry):
            return self.target.service
        return self.target if isinstance(self.target, Service) else None

    @property
    def backends(self) -> tuple[LabPod, ...]:
        """The Pods that may answer; none where the outside host does."""
        if self.service is not None:
            return self.service.backends
        return (self.target,) if isinstance(self.target, LabPod) else ()

    @property
    def steady(self) -> bool:
        """Whether each connection has exchanges through the whole run."""
        return bool(self.every_s) and not self.anew and self.during == (0.0, 1.0)

    @property
    def goes_on(self) -> bool:
        """Whether its clients go on after a pause, from their ports."""
        return self.protocol == "udp" or self.outcome is not Outcome.ANSWERED

    @property
    def client_pod(self) -> LabPod | None:
        """The Pod that calls; None for a node and the outside host."""
        return self.client if isinstance(self.client, LabPod) else None

    @property
    def client_node(self) -> LabNode | None:
        """The node that the client is on; None for the outside host."""
        return None if isinstance(self.client, Outside) else self.client.node

    @property
    def transient(self) -> bool:
        """Whether the kernel keeps nothing of it that could be read later.

        Of connections with the same 5-tuple it has the last one, of denied packets none.
        """
        server = self.backends[0] if self.backends else None
        answers = (f(self.client_pod, server) for f in (egress_answer, ingress_answer))
        return self.anew or any(answer.denies for answer in answers)

    @property
    def outcome(self) -> Outcome:
        """What becomes of its connections, by the policies; its backends are all treated alike."""
        server = self.backends[0] if self.backends else None
        answers = (f(self.client_pod, server) for f in (egress_answer, ingress_answer))
        actions = {answer.action for answer in answers}
        if RuleAction.REJECT in actions:
            return Outcome.REFUSED
        return Outcome.SILENCE if self.silent or RuleAction.DROP in actions else Outcome.ANSWERED


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
    Scenario("host-network", "a Pod that answers at its node's own address", FRONTEND, AGENT,
             connections=3),
    Scenario("from-outside", "a node port, to a Pod of that node", Outside(),
             NodePort(STORE, NODE_2), every_s=STEADY_S),
    Scenario("from-outside-via", "a node port, to a Pod of the other node", Outside(),
             NodePort(STORE, NODE_1), every_s=STEADY_S),
    Scenario("from-outside-v6", "a node port, to the other node, IPv6", Outside(),
             NodePort(STORE, NODE_1), family=6, connections=5),
    Scenario("balancer", "a load balancer's address, to a Pod of another node", Outside(),
             Balancer(PORTAL), every_s=STEADY_S),
    Scenario("balancer-v6", "a load balancer's address, IPv6", Outside(), Balancer(PORTAL),
             family=6, connections=5),
    Scenario("balancer-local", "a load balancer's address, with externalTrafficPolicy: Local",
             Outside(), Balancer(KIOSK), every_s=STEADY_S),
    Scenario("headless", "a headless Service: its Pod itself is called", FRONTEND, ORDERS,
             connections=3),
    Scenario("address", "a Pod whose address goes to another one", FRONTEND, JOB, connections=4,
             during=(0.0, 0.3)),
    Scenario("address-again", "the Pod that has the address now", FRONTEND, NEXT_JOB, connections=4,
             during=(0.7, 1.0)),
    Scenario("denied", "dropped by a policy of a Pod on the other node", REPORT, ORDERS,
             connections=3),
    Scenario("denied-v6", "dropped on the other node, IPv6", REPORT, ORDERS, family=6),
    Scenario("denied-udp", "datagrams that a policy drops", REPORT, ORDERS, "udp", connections=2,
             every_s=0.1, request=300),
    Scenario("denied-egress", "dropped by a policy of the client's", CART, WEB_A, connections=3),
    Scenario("rejected", "refused by a policy of a Pod on the other node, through a Service",
             REPORT, STORE, connections=4),
    Scenario("rejected-v6", "refused by a policy within the node, IPv6", REPORT, WEB_A, family=6,
             connections=2),
    Scenario("unanswered", "nobody answers, and no policy says so", FRONTEND, Outside(),
             connections=2, silent=True),
    Scenario("probe", "a node's process calls a Pod of the node that policies isolate",
             Process(NODE_2), ORDERS, connections=3),
    Scenario("probe-open", "a node's process calls a Pod of the node", Process(NODE_1), WEB_A,
             connections=3),
    Scenario("probe-v6", "a node's process calls a Pod of the node, IPv6", Process(NODE_1), CART,
             family=6, connections=2),
    Scenario("node-service", "a node's process calls a Service, to a Pod of the other node",
             Process(NODE_1), STORE, connections=2, every_s=STEADY_S, during=(0.3, 1.0)),
    Scenario("node-service-v6", "a node's process calls a Service of the other node, IPv6",
             Process(NODE_1), STORE, family=6, connections=3, during=(0.3, 1.0)),
    Scenario("node-service-here", "a node's process calls a Service, to a Pod of the node",
             Process(NODE_2), STORE, connections=2),
    Scenario("node-port", "a port of the other node, called by a Pod", FRONTEND,
             NodePort(STORE, NODE_2), connections=4),
    Scenario("node-port-steady", "a port of the other node, called by a Pod all the time", FRONTEND,
             NodePort(STORE, NODE_2), every_s=STEADY_S),
    Scenario("node-port-v6", "a port of the other node, called by a Pod, IPv6", FRONTEND,
             NodePort(STORE, NODE_2), family=6, connections=3),
    Scenario("node-port-own", "a port of the Pod's own node, to a Pod of the other one", FRONTEND,
             NodePort(STORE, NODE_1), connections=3),
    Scenario("flood", "10,000 datagrams a second that a policy drops", REPORT, ORDERS, "udp",
             connections=50, every_s=0.1, burst=20, request=100, during=(0.25, 0.75),
             fault="flood"),
)
# fmt: on


def choose(
    names: Sequence[str],
    faults: Sequence[str] = (),
    *,
    deaf: bool = False,
    brief: bool = True,
) -> tuple[Scenario, ...]:
    """Return the scenarios of these names, in the table's order; all where none is named.

    Those that belong to one of the faults are always there, to others never. `deaf`: without those
    of which something is lost while nobody listens; `brief`: with those that are over at once.
    """
    known = {scenario.name for scenario in SCENARIOS if not scenario.fault}
    for name in names:
        if name not in known:
            raise ValueError(f"no scenario {name!r}: choose from {', '.join(sorted(known))}")
    wanted = set(names) or known
    return tuple(
        scenario
        for scenario in SCENARIOS
        if (scenario.fault in faults if scenario.fault else scenario.name in wanted)
        and not (deaf and scenario.transient)
        and (brief or scenario.outcome is not Outcome.REFUSED)
    )
