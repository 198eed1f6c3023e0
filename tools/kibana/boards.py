"""The seven dashboards."""

from dataclasses import replace

from tools.kibana.board import Board
from tools.kibana.index import OCTETS, PACKETS, REPLY_OCTETS, Sum, field
from tools.kibana.panels import (
    Bars,
    Control,
    Controls,
    Count,
    HeatMap,
    Lines,
    Panel,
    Pie,
    Records,
    Sankey,
    Terms,
)
from tools.kibana.sankey import Bands

ENDED = f"{field('flowEndReason')}:3"
"""Of the records of a connection one says that it ended."""
POD_TO_POD = (
    f"{field('flowType')}:(1 OR 2) AND _exists_:{field('sourcePod')}"
    f" AND _exists_:{field('destinationPod')}"
)
TO_EXTERNAL = f"{field('flowType')}:3 AND _exists_:{field('sourcePod')}"
TO_SERVICE = f"_exists_:{field('flowKeyPodToService')} AND _exists_:{field('sourcePod')}"
BETWEEN_NODES = f"{field('sourceNodeName')}:?* AND {field('destinationNodeName')}:?*"
FROM_NODE = f"{field('sourceNodeName')}:?*"
DECIDED = f"_exists_:{field('ingressNetworkPolicy')} OR _exists_:{field('egressNetworkPolicy')}"

SOURCE_POD = Control("Source Pod Name", field("sourcePodName"))
SOURCE_NAMESPACE = Control("Source Pod Namespace", field("sourcePodNamespace"))
SOURCE_NODE = Control("Source Pod Node", field("sourceNodeName"))
DESTINATION_POD = Control("Destination Pod Name", field("destinationPodName"))
DESTINATION_NAMESPACE = Control("Destination Pod Namespace", field("destinationPodNamespace"))
DESTINATION_NODE = Control("Destination Pod Node", field("destinationNodeName"))
SERVICE = Control("Destination Service Name", field("destinationServicePortName"))
FLOW_TYPE = Control("Flow Type", field("flowTypeStr"))


def _ends() -> tuple[list[Panel], list[Panel], list[Panel]]:
    """Pies by Pod, pies by address and bars of both ends."""
    pods: list[Panel] = []
    addresses: list[Panel] = []
    counts: list[Panel] = []
    for end, short, verb in (("source", "src", "sent"), ("destination", "dst", "were sent")):
        pod = Terms(field(f"{end}Pod"), f"{end.capitalize()} Pod", 30)
        address = Terms(field(f"{end}IP"), f"{end.capitalize()} address", 20)
        title = f"{end.capitalize()} Pod"
        for summed, what, measure in ((OCTETS, "Bytes", "octets"), (PACKETS, "Packets", "packets")):
            pods.append(
                Pie(
                    title=f"{title} {what}",
                    about=f"{what} that {end} Pods {verb}, from source to destination:"
                    f" Σ {summed.name}",
                    equal=f"flowctl top '{short}.pod = *' --by {short}.pod --measure {measure}",
                    summed=summed,
                    terms=[pod],
                )
            )
            addresses.append(
                Pie(
                    title=f"{title} {what} (IP)",
                    about=f"The same by address, also of ends that are no Pod: Σ {summed.name}",
                    equal=f"flowctl top --by {short}.ip --measure {measure}",
                    summed=summed,
                    terms=[address],
                )
            )
        counts.append(
            Bars(
                title=f"{title} Flow Count",
                about="Connections that ended: records whose flowEndReason is 3, one of each"
                " connection, not its records",
                equal=f"flowctl top '{short}.pod = *' --by {short}.pod --measure ended",
                query=ENDED,
                by=replace(pod, size=20),
            )
        )
    return pods, addresses, counts


_PODS, _ADDRESSES, _COUNTS = _ends()

_OF_FLOWS = "the 30 largest; Pods' names are without namespaces in a flow's key, as they were"


_ADDRESS_PAIR = (field("sourceIP"), field("destinationIP"))


def _bands(title: str, of: Bands, equal: str) -> list[Panel]:
    """Bands of both directions, side by side."""
    found: list[Panel] = []
    for summed, how, measure in (
        (OCTETS, "", "octets"),
        (REPLY_OCTETS, "Reverse ", "reverseOctets"),
    ):
        found.append(
            Sankey(
                title=f"{title} {how}Cumulative Bytes",
                about=f"Who sends how much to whom{', replies' if how else ''}: Σ {summed.name};"
                " what is beyond the 30 largest is the band `other`",
                equal=f"flowctl top {equal} --measure {measure}",
                of=replace(of, summed=summed),
            )
        )
    return found


def _rates(
    name: str, by: str, query: str, equal: str, about: str = "the 30 largest"
) -> list[Panel]:
    """Mbit/s of both directions, side by side."""
    return [
        Lines(
            title=title.format(name),
            about=f"Mbit/s: Σ {summed.name} of an interval * 8 / its length, {about}",
            equal=f"flowctl top {equal} --measure {measure}" if equal else "",
            summed=summed,
            by=by,
            query=query,
        )
        for title, summed, measure in _RATES[name.startswith("Pod-to-")]
    ]


_RATES: dict[bool, tuple[tuple[str, Sum, str], ...]] = {
    True: (
        ("Tx Mbps by {} Flow", OCTETS, "throughput"),
        ("Rx Mbps by {} Flow", REPLY_OCTETS, "reverseThroughput"),
    ),
    False: (
        ("Aggregated Tx Mbps by {}", OCTETS, "throughput"),
        ("Aggregated Rx Mbps by {}", REPLY_OCTETS, "reverseThroughput"),
    ),
}


def _grown(name: str, by: str, query: str) -> list[Panel]:
    """Bytes since the range began of both directions, side by side."""
    return [
        Lines(
            title=f"{how}Cumulative Bandwidth by {name} Flow",
            about=f"Bytes since the range began: running Σ {summed.name}, {_OF_FLOWS}",
            summed=summed,
            by=by,
            query=query,
            cumulative=True,
        )
        for summed, how in ((OCTETS, ""), (REPLY_OCTETS, "Reverse "))
    ]


def _policies(direction: str, end: str) -> list[Panel]:
    namespace = Terms(field(f"{direction}NetworkPolicyNamespace"), "Namespace", 20)
    name = Terms(field(f"{direction}NetworkPolicyName"), "Policy", 5)
    return [
        Pie(
            title=f"{direction.capitalize()} Network Policy {what}",
            about=f"{what} of connections that an {direction} policy decided over, by its namespace"
            f" (N/A: cluster-wide) and name: Σ {summed.name}",
            equal=f"flowctl top '{end}.policy = *' --by {end}.policy --measure {measure}",
            query=f"_exists_:{field(f'{direction}NetworkPolicy')}",
            summed=summed,
            terms=[namespace, name],
        )
        for summed, what, measure in ((OCTETS, "Bytes", "octets"), (PACKETS, "Packets", "packets"))
    ]


def _heat(how: str, summed: Sum, measure: str) -> Panel:
    return HeatMap(
        title=f"Aggregated {how} Bytes by Node Acting as Source (heat map)",
        about=f"Bytes of each minute, the 10 largest nodes: Σ {summed.name}",
        equal=f"flowctl top 'src.node = *' --by src.node --measure {measure}",
        query=FROM_NODE,
        summed=summed,
        by=Terms(field("sourceNodeName"), "Node", 10),
    )


_ALL = [
    *(SOURCE_NAMESPACE, SOURCE_POD, SOURCE_NODE),
    *(DESTINATION_NAMESPACE, DESTINATION_POD, DESTINATION_NODE),
    *(SERVICE, Control("Flow Key", field("flowKey")), FLOW_TYPE),
]

OVERVIEW = Board(
    "overview",
    "Overview",
    "Which Pods and addresses send, and are sent, how much.",
    [
        [
            Controls(
                title="Filter",
                controls=_ALL,
                height=12,
            )
        ],
        _PODS,
        _ADDRESSES,
        _COUNTS,
    ],
)

POD_TO_POD_FLOW = Board(
    "pod-to-pod",
    "Pod-to-Pod Flow",
    "Which Pods talk to which, how much and how fast.",
    [
        [
            Controls(
                title="Pod-to-Pod Filter",
                controls=[
                    SOURCE_NAMESPACE,
                    SOURCE_POD,
                    SOURCE_NODE,
                    DESTINATION_NAMESPACE,
                    DESTINATION_POD,
                    DESTINATION_NODE,
                    Control("Flow Key (Pod-to-Pod)", field("flowKeyPodToPod")),
                    FLOW_TYPE,
                ],
                height=12,
            )
        ],
        _bands(
            "Pod-to-Pod Traffic",
            Bands(field("sourcePod"), field("destinationPod"), OCTETS, POD_TO_POD),
            "'type = intra-node or type = inter-node' --by src.pod,dst.pod",
        ),
        _rates("Pod-to-Pod", field("flowKeyPodToPod"), POD_TO_POD, "", _OF_FLOWS),
        _grown("Pod-to-Pod", field("flowKeyPodToPod"), POD_TO_POD),
        _rates(
            "Pod Acting as Source",
            field("sourcePod"),
            POD_TO_POD,
            "'type = intra-node or type = inter-node' --by src.pod",
        ),
        _rates(
            "Pod Acting as Destination",
            field("destinationPod"),
            POD_TO_POD,
            "'type = intra-node or type = inter-node' --by dst.pod",
        ),
    ],
)

POD_TO_EXTERNAL_FLOW = Board(
    "pod-to-external",
    "Pod-to-External Flow",
    "Which Pods talk to which addresses outside of the cluster.",
    [
        [
            Controls(
                title="Pod-to-External Filter",
                controls=[
                    SOURCE_NAMESPACE,
                    SOURCE_POD,
                    SOURCE_NODE,
                    Control("Destination IP", field("destinationIP")),
                    Control("Flow Key (Pod-to-External)", field("flowKeyPodToExternal")),
                ],
            )
        ],
        _bands(
            "Pod-to-External Traffic",
            Bands(field("sourcePod"), field("destinationIP"), OCTETS, TO_EXTERNAL),
            "'type = to-external' --by src.pod,dst.ip",
        ),
        _rates("Pod-to-External", field("flowKeyPodToExternal"), TO_EXTERNAL, "", _OF_FLOWS),
        _grown("Pod-to-External", field("flowKeyPodToExternal"), TO_EXTERNAL),
        _rates(
            "Pod Acting as Source",
            field("sourcePod"),
            TO_EXTERNAL,
            "'type = to-external' --by src.pod",
        ),
    ],
)

POD_TO_SERVICE_FLOW = Board(
    "pod-to-service",
    "Pod-to-Service Flow",
    "Which Pods call which Services.",
    [
        [
            Controls(
                title="Pod-to-Service Filter",
                controls=[
                    SOURCE_NAMESPACE,
                    SOURCE_POD,
                    Control("Destination Service Namespace", field("destinationPodNamespace")),
                    SERVICE,
                    Control("Destination Service Port", field("destinationServicePort")),
                    Control("Flow Key (Pod-to-Service)", field("flowKeyPodToService")),
                    FLOW_TYPE,
                ],
                height=12,
            )
        ],
        _bands(
            "Pod-to-Service Flow",
            Bands(
                field("sourcePod"),
                field("destinationServicePortName"),
                OCTETS,
                TO_SERVICE,
                inside=_ADDRESS_PAIR,
            ),
            "'service = *' --by src.pod,service",
        ),
        _rates(
            "Service Acting as Destination",
            field("destinationServicePortName"),
            TO_SERVICE,
            "'service = *' --by service",
        ),
        _rates("Pod-to-Service", field("flowKeyPodToService"), TO_SERVICE, "", _OF_FLOWS),
        _grown("Pod-to-Service", field("flowKeyPodToService"), TO_SERVICE),
    ],
)

FLOW_RECORD = Board(
    "flow-record",
    "Flow Record",
    "The records themselves.",
    [
        [
            Count(
                title="Flow Record Count",
                about="Records that were sent: a connection has one for each interval",
                equal="flowctl top --by type --measure records",
                height=12,
                width=10,
            ),
            Controls(title="Flow Record Filter", controls=_ALL, height=12),
        ],
        [
            Bars(
                title="Flow Record Graph",
                about="Records: those that were sent in each minute",
                equal="flowctl top --by type --measure records",
            )
        ],
        [
            Records(
                title="Antrea: Flow Record Table",
                about="The newest first; bytes and packets are totals of the connection, so they"
                " are not to be added up",
                equal="flowctl flows",
                columns=[
                    field(name)
                    for name in (
                        *("sourceIP", "destinationIP", "sourcePodName", "destinationPodName"),
                        *("bytes", "packets"),
                    )
                ],
            )
        ],
    ],
)

NODE_THROUGHPUT = Board(
    "node-throughput",
    "Node Throughput",
    "How much nodes send to each other, and how fast.",
    [
        _bands(
            "Node",
            Bands(
                field("sourceNodeName"),
                field("destinationNodeName"),
                OCTETS,
                BETWEEN_NODES,
                inside=_ADDRESS_PAIR,
            ),
            "'src.node = * and dst.node = *' --by src.node,dst.node",
        ),
        _rates(
            "Node Acting as Source",
            field("sourceNodeName"),
            FROM_NODE,
            "'src.node = *' --by src.node",
        ),
        [_heat("Tx", OCTETS, "octets"), _heat("Rx", REPLY_OCTETS, "reverseOctets")],
    ],
)

NETWORK_POLICY = Board(
    "network-policy",
    "Network Policy",
    "Which policies decided over how much traffic.",
    [
        [
            Controls(
                title="Network Policy Filter",
                controls=[
                    Control("Egress Policy Namespace", field("egressNetworkPolicyNamespace")),
                    Control("Egress Policy Name", field("egressNetworkPolicyName")),
                    Control("Ingress Policy Namespace", field("ingressNetworkPolicyNamespace")),
                    Control("Ingress Policy Name", field("ingressNetworkPolicyName")),
                ],
            )
        ],
        [*_policies("ingress", "dst"), *_policies("egress", "src")],
        [
            Sankey(
                title="Network Policy Flow Throughput Diagram",
                about="From egress to ingress policies (`none`: no policy of that direction):"
                " Σ octetDeltaCount",
                equal="flowctl top 'src.policy = * or dst.policy = *' --by src.policy,dst.policy"
                " --measure octets",
                of=Bands(
                    field("egressNetworkPolicy"),
                    field("ingressNetworkPolicy"),
                    OCTETS,
                    DECIDED,
                    missing="none",
                    inside=(field("sourcePod"), field("destinationPod")),
                ),
            )
        ],
    ],
)

BOARDS = (
    OVERVIEW,
    POD_TO_POD_FLOW,
    POD_TO_EXTERNAL_FLOW,
    POD_TO_SERVICE_FLOW,
    FLOW_RECORD,
    NODE_THROUGHPUT,
    NETWORK_POLICY,
)
