"""Of many rules those that a connection may match are found, not tried."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flowvis.policies.applicable import ApplicableRules
from flowvis.policies.model import Action

from .cluster import NOTHING, Cluster, Pod, Verdict, labels, network_policy
from .work import lines_run

POLICIES = 3000
SERVER = Pod("shop", "server", "10.0.0.1", labels(app="server"))
CLIENT = Pod("shop", "client", "10.0.7.9", labels(app="client-1801"))
STRANGER = Pod("shop", "stranger", "172.16.0.1", labels(app="stranger"))


def by_address(number: int) -> dict[str, Any]:
    return {"from": [{"ipBlock": {"cidr": f"10.0.{number >> 8}.{number & 255}/32"}}]}


def by_port(number: int) -> dict[str, Any]:
    return {"ports": [{"port": 1000 + number, "protocol": "TCP"}]}


def by_label(number: int) -> dict[str, Any]:
    selector = {"matchLabels": {"app": f"client-{number}"}}
    return {"from": [{"podSelector": selector}], "ports": [{"port": 80}]}


def same_peer(number: int) -> dict[str, Any]:
    """All of one atom, each for ports of its own."""
    return by_port(number) | {"from": [{"podSelector": {}}]}


@pytest.mark.parametrize(
    ("rule", "port", "decisive"),
    [(by_address, 80, 1801), (by_port, 2801, 1801), (by_label, 80, 1801), (same_peer, 1007, 7)],
)
def test_thousands_of_policies_cost_a_connection_little(
    monkeypatch: pytest.MonkeyPatch,
    rule: Callable[[int], dict[str, Any]],
    port: int,
    decisive: int,
) -> None:
    tried = 0
    possible = ApplicableRules.possible

    def counted(self: ApplicableRules, *asked: Any) -> Any:
        nonlocal tried
        for found in possible(self, *asked):
            tried += 1
            yield found

    monkeypatch.setattr(ApplicableRules, "possible", counted)
    cluster = Cluster([SERVER, CLIENT, STRANGER])
    cluster.apply(
        *(
            network_policy(
                f"p{n}", "shop", podSelector={"matchLabels": {"app": "server"}}, ingress=[rule(n)]
            )
            for n in range(POLICIES)
        )
    )
    found = cluster.one("shop/client", "shop/server", port)
    allowed = Verdict(f"p{decisive}", "shop", 1, "ingress[0]", Action.ALLOW)
    assert found == {"ingress": allowed, "egress": NOTHING}
    refused = cluster.one("shop/stranger", "shop/server", 65_000)["ingress"]
    assert refused.action == Action.DROP
    assert tried < 10


def steps_of(entries: int, port: int, port_of: Callable[[int], Any]) -> int:
    """How many lines of Python one more port costs, with a rule that has some entries of ports."""
    ports = [{"port": port_of(number)} for number in range(entries)]
    named = tuple((f"own-{number}", 6, 40_000 + number) for number in range(entries))
    server = replace(SERVER, named_ports=named)
    cluster = Cluster([server, CLIENT])
    wanted = {"ports": [*ports, {"port": 50_000}, {"port": f"own-{entries - 1}"}]}
    cluster.apply(network_policy("listed", "shop", ingress=[wanted]))
    cluster.one("shop/client", "shop/server", 1)
    found = []
    steps = lines_run(
        lambda: found.append(cluster.one("shop/client", "shop/server", port)["ingress"])
    )
    assert found == [Verdict("listed", "shop", 1, "ingress[0]", Action.ALLOW)]
    return steps


@pytest.mark.parametrize("port_of", [lambda n: 1 + 2 * n, lambda n: f"of-nobody-{n}"])
def test_thousands_of_ports_of_a_rule_cost_a_connection_little(
    port_of: Callable[[int], Any],
) -> None:
    """Who may write one policy could else call as many ports, and have nothing else done."""
    few, many = (
        steps_of(entries, 50_000, port_of) + steps_of(entries, 40_000 + entries - 1, port_of)
        for entries in (10, 2000)
    )
    assert many < few + 50
