"""What the records of a scenario's connections must say, column by column.

`exact` has the columns whose values are known before; `measured` checks those that only the run
can tell. Together they are all columns of `flows`.
"""

import json
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from flowvis.fields import PROTOCOLS, FlowType
from flowvis.lab.cni import Addresses
from flowvis.lab.inventory import SYSTEM, uid
from flowvis.lab.plan import (
    CART,
    EGRESS,
    NODE_1,
    PODS,
    REGION,
    SERVER_PORT,
    HostPod,
    LabNode,
    LabPod,
)
from flowvis.lab.policies import egress_answer, ingress_answer
from flowvis.lab.rules import WitnessCount
from flowvis.lab.scenarios import Entry, Outcome, Outside, Scenario

CLUSTER = uid("Namespace", SYSTEM)
"""The namespace kube-system lives as long as the cluster."""

SIDES = ("FromSourceNode", "FromDestinationNode")


def backend(scenario: Scenario, destination: str) -> LabPod | None:
    """Return the Pod that answered at an address: one that may, else the first of those.

    None where it is the outside host that answers.
    """
    answered = str(ip_address(destination)) if destination else ""
    for pod in PODS:
        if answered in pod.addresses and pod in scenario.backends:
            return pod
    return scenario.backends[0] if scenario.backends else None


def observers(scenario: Scenario, answering: LabPod | None) -> Sequence[LabNode]:
    """Return the nodes that saw a connection: the client's or the entry, then the server's."""
    nodes = []
    if scenario.client_node:
        nodes.append(scenario.client_node)
    elif isinstance(scenario.target, Entry):
        nodes.append(scenario.target.node)
    stopped = egress_answer(scenario.client_pod, answering).denies
    if answering is not None and answering.node not in nodes and not stopped:
        nodes.append(answering.node)
    return nodes


def tracked(scenario: Scenario, answering: LabPod | None) -> bool:
    """Whether conntrack knows of it: what is dropped on the first node never gets an entry."""
    answers = (f(scenario.client_pod, answering) for f in (egress_answer, ingress_answer))
    denied = any(answer.denies for answer in answers)
    return not denied or len(observers(scenario, answering)) == 2


def counts(
    scenario: Scenario, answering: LabPod | None, sent: WitnessCount
) -> dict[str, WitnessCount]:
    """Return the totals of the record, and of each side's node; a single node's stand for both.

    What a log reports a denied connection has one direction, and every packet. conntrack counts a
    SYN that nobody answers once: not those that are sent again (nf_conntrack_proto_tcp.c).
    """
    logged = sent.forward
    if not tracked(scenario, answering):
        return dict.fromkeys(("", *SIDES), logged)
    unanswered = scenario.protocol == "tcp" and scenario.outcome is Outcome.SILENCE
    tracking = sent.first if unanswered else sent
    if not ingress_answer(scenario.client_pod, answering).denies:
        return dict.fromkeys(("", *SIDES), tracking)
    return dict(zip(("", *SIDES), (max(tracking, logged), tracking, logged), strict=True))


def exact(scenario: Scenario, port: int, answering: LabPod | None) -> dict[str, Any]:
    """Return what a connection's records must say, by column; `port` is the client's."""
    client, version = scenario.client_pod, scenario.family == 6
    server_port = answering_port(scenario)
    translated = _translated(scenario, answering)
    server = answering or _host_pod(scenario)
    return {
        "sourceIP": scenario.client_address,
        "destinationIP": (answering or scenario.target).addresses[version],
        "sourceTransportPort": port,
        "destinationTransportPort": server_port,
        "protocolIdentifier": PROTOCOLS[scenario.protocol],
        "flowType": _flow_type(scenario.client_node, server),
        **_pod_columns("source", client),
        **_node_columns("source", scenario.client_node),
        **_pod_columns("destination", server),
        **_node_columns("destination", server.node if server else None),
        **_service_columns(scenario),
        **ingress_answer(client, answering).columns("ingress"),
        **egress_answer(client, answering).columns("egress"),
        "proxySnatIP": translated[version] if translated else "",
        "proxySnatPort": port if translated else 0,  # masquerade keeps a port that is free
        "icmpTypeCode": 0,  # no scenario pings
        **_egress_columns(scenario),
        "clusterUUID": CLUSTER,
        "clusterId": CLUSTER,
        "trusted": 0,
        "originalFlowsPresent": len(observers(scenario, answering)),
    }


def answering_port(scenario: Scenario) -> int:
    """Return the port that a connection arrives at, after DNAT."""
    return scenario.server[1] if scenario.service is None else SERVER_PORT


def _service_columns(scenario: Scenario) -> dict[str, Any]:
    service = scenario.service
    address, port = scenario.server if service else ("", 0)
    return {
        "destinationServicePortName": service.full_name if service else "",
        "destinationServicePort": port,
        "destinationServiceIP": address,
        "destinationClusterIP": address,
    }


def _host_pod(scenario: Scenario) -> HostPod | None:
    return scenario.target if isinstance(scenario.target, HostPod) else None


def _egress_columns(scenario: Scenario) -> dict[str, str]:
    """Return those of the Egress, which has no IPv6 address."""
    leaves = scenario.client == CART and isinstance(scenario.target, Outside)
    leaves &= scenario.family == 4
    return {
        "egressName": EGRESS if leaves else "",
        "egressIP": NODE_1.addresses[0] if leaves else "",
        "egressNodeName": NODE_1.name if leaves else "",
    }


def _pod_columns(end: str, pod: LabPod | HostPod | None) -> dict[str, str]:
    kind, name = pod.workload if pod else ("", "")
    labels = json.dumps(pod.labels, sort_keys=True, separators=(",", ":")) if pod else ""
    return {
        f"{end}WorkloadKind": kind,
        f"{end}WorkloadName": name,
        f"{end}PodName": pod.name if pod else "",
        f"{end}PodNamespace": pod.namespace if pod else "",
        f"{end}PodLabels": labels,
    }


def _node_columns(end: str, node: LabNode | None) -> dict[str, str]:
    return {
        f"{end}NodeName": node.name if node else "",
        f"{end}Zone": node.zone if node else "",
        f"{end}Region": REGION if node else "",
    }


def _translated(scenario: Scenario, answering: LabPod | None) -> Addresses | None:
    """Return the addresses that took the place of the client's: those of the way out of a node."""
    if isinstance(scenario.target, Entry):
        node = scenario.target.node
        if scenario.target.service.local:
            return None
        return node.gateways if answering and answering.node == node else node.addresses
    leaves = isinstance(scenario.target, Outside)
    return scenario.client_pod.node.addresses if leaves and scenario.client_pod else None


def _flow_type(client: LabNode | None, answering: LabPod | HostPod | None) -> int:
    if client is None:
        return FlowType.FROM_EXTERNAL
    if answering is None:
        return FlowType.TO_EXTERNAL
    return FlowType.INTRA_NODE if client == answering.node else FlowType.INTER_NODE
