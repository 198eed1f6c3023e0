"""What the records of a scenario's connections must say, beside their counters."""

from ipaddress import ip_address
from typing import Any

from flowvis.fields import FlowType
from flowvis.lab.plan import PODS, Node, Pod
from flowvis.lab.scenarios import NodePort, Scenario


def backend(scenario: Scenario, destination: str) -> Pod | None:
    """Return the Pod that answered at an address: one that may, else the first of those.

    None where it is the outside host that answers.
    """
    answered = str(ip_address(destination))
    for pod in PODS:
        if answered in pod.addresses and pod in scenario.backends:
            return pod
    return scenario.backends[0] if scenario.backends else None


def halves(scenario: Scenario, answering: Pod | None) -> int:
    """Return how many nodes saw a connection."""
    first: Node | None = None
    if isinstance(scenario.client, Pod):
        first = scenario.client.node
    elif isinstance(scenario.target, NodePort):
        first = scenario.target.node
    return 2 if answering is not None and answering.node != first else 1


def names(scenario: Scenario, answering: Pod | None) -> dict[str, Any]:
    """Return what a connection's records must say, by column."""
    client = scenario.client if isinstance(scenario.client, Pod) else None
    service = scenario.service
    return {
        "flowType": _flow_type(client, answering),
        "destinationIP": (answering or scenario.target).addresses[scenario.family == 6],
        "destinationServicePortName": service.full_name if service else "",
        **_pod_columns("source", client),
        **_pod_columns("destination", answering),
    }


def _pod_columns(end: str, pod: Pod | None) -> dict[str, str]:
    return {
        f"{end}PodName": pod.name if pod else "",
        f"{end}PodNamespace": pod.namespace if pod else "",
        f"{end}NodeName": pod.node.name if pod else "",
    }


def _flow_type(client: Pod | None, answering: Pod | None) -> int:
    if client is None:
        return FlowType.FROM_EXTERNAL
    if answering is None:
        return FlowType.TO_EXTERNAL
    return FlowType.INTRA_NODE if client.node == answering.node else FlowType.INTER_NODE
