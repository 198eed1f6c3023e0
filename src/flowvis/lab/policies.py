"""The lab's policies: as objects of the API, and what they must come to, worked out by hand.

The nodes' rules enforce the answers, as a CNI would; the objects are what the aggregator knows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowvis.fields import RuleAction
from flowvis.lab.plan import OUTSIDE_NETWORK, SERVER_PORT, LabPod

KUBERNETES, ANTREA_CLUSTER = 1, 3  # values of ...NetworkPolicyType

NETWORKING = "networking.k8s.io/v1"
ANTREA = "crd.antrea.io/v1beta1"


@dataclass(frozen=True)
class Answer:
    """What policies say of a connection in one direction; empty where none has a say."""

    name: str = ""
    namespace: str = ""
    type: int = 0
    rule: str = ""
    action: int = RuleAction.NONE

    @property
    def denies(self) -> bool:
        """Whether the connection is not let through."""
        return self.action in {RuleAction.DROP, RuleAction.REJECT}

    def columns(self, direction: str) -> dict[str, Any]:
        """Return what a record's columns must say."""
        return {
            f"{direction}NetworkPolicyName": self.name,
            f"{direction}NetworkPolicyNamespace": self.namespace,
            f"{direction}NetworkPolicyType": self.type,
            f"{direction}NetworkPolicyRuleName": self.rule,
            f"{direction}NetworkPolicyRuleAction": self.action,
        }


NOTHING = Answer()

_ORDERS = Answer("orders", "shop", KUBERNETES, "ingress[0]", RuleAction.ALLOW)
_CART = Answer("cart", "shop", KUBERNETES, "egress[0]", RuleAction.ALLOW)
_CART_OUT = Answer("cart", "shop", KUBERNETES, "egress[1]", RuleAction.ALLOW)

_OUTSIDE = ""  # where an app is asked for

_INGRESS = {
    ("frontend", "orders"): _ORDERS,
    ("cart", "orders"): _ORDERS,
    ("report", "orders"): Answer("orders", "shop", KUBERNETES, "", RuleAction.DROP),
    ("report", "web"): Answer("no-reports", "", ANTREA_CLUSTER, "reports", RuleAction.REJECT),
}
_EGRESS = {
    ("cart", "orders"): _CART,
    ("cart", _OUTSIDE): _CART_OUT,
    ("cart", "web"): Answer("cart", "shop", KUBERNETES, "", RuleAction.DROP),
}


def ingress_answer(client: LabPod | None, server: LabPod | None) -> Answer:
    """Return what policies of the server say; None is the outside host."""
    return _INGRESS.get((_app(client), _app(server)), NOTHING)


def egress_answer(client: LabPod | None, server: LabPod | None) -> Answer:
    """Return what policies of the client say; None is the outside host."""
    return _EGRESS.get((_app(client), _app(server)), NOTHING)


def _app(pod: LabPod | None) -> str:
    return pod.app if pod else _OUTSIDE


def objects() -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    """Go through the policies: apiVersion, kind, namespace, name, spec."""
    ports = [{"protocol": protocol, "port": SERVER_PORT} for protocol in ("TCP", "UDP")]
    yield (
        NETWORKING,
        "NetworkPolicy",
        "shop",
        "orders",
        {
            "podSelector": {"matchLabels": {"app": "orders"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [_pods("frontend"), _pods("cart")], "ports": ports},
            ],
        },
    )
    yield (
        NETWORKING,
        "NetworkPolicy",
        "shop",
        "cart",
        {
            "podSelector": {"matchLabels": {"app": "cart"}},
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [_pods("orders")], "ports": ports},
                {"to": [{"ipBlock": {"cidr": network}} for network in OUTSIDE_NETWORK]},
            ],
        },
    )
    yield (
        ANTREA,
        "ClusterNetworkPolicy",
        "",
        "no-reports",
        {
            "tier": "securityops",
            "priority": 5,
            "appliedTo": [_pods("web")],
            "ingress": [
                {
                    "name": "reports",
                    "action": "Reject",
                    "from": [{"namespaceSelector": {"matchLabels": {NAME_LABEL: "batch"}}}],
                }
            ],
        },
    )


NAME_LABEL = "kubernetes.io/metadata.name"
"""Every namespace has its own name as this label."""


def _pods(app: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app": app}}}
