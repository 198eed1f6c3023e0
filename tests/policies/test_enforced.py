"""Verdicts of denial that the traffic refutes."""

from typing import Any

import numpy as np
import pytest

from policies.cluster import (
    COUNTERS,
    NOTHING,
    Cluster,
    Connection,
    Pod,
    antrea,
    namespace,
    network_policy,
)

REJECTING = antrea(
    "ClusterNetworkPolicy",
    "hard",
    appliedTo=[{"namespaceSelector": {}}],
    priority=1,
    egress=[{"name": "no", "action": "Reject", "to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}],
)
INWARD = Connection("y/b", "x/a")
TALK = (5_000, 12, 90_000, 40)


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster(
        [Pod("x", "a", "10.0.0.1"), Pod("y", "b", "10.0.0.2"), Pod("x", "six", "fd00::1")]
    )
    found.apply(namespace("x"), namespace("y"), network_policy("shut"), REJECTING)
    return found


def record(
    cluster: Cluster,
    traffic: tuple[int, ...],
    connection: Connection = INWARD,
    **said: Any,
) -> Any:
    columns = {name: [value] for name, value in zip(COUNTERS, traffic, strict=True)}
    columns |= {name: [value] for name, value in said.items()}
    return cluster.decide([connection], **columns)[0]


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP", 1])
@pytest.mark.parametrize("state", ["ESTABLISHED", "TIME_WAIT", "CLOSE", ""])
def test_a_drop_that_did_not_happen(cluster: Cluster, protocol: Any, state: str) -> None:
    found = record(cluster, TALK, Connection("y/b", "x/a", 80, protocol), tcpState=state)
    assert found == {"ingress": ("shut", "x", 1, "", 4), "egress": NOTHING}
    assert cluster.policies.stats.unenforced == 1
    assert cluster.policies.as_dict()["unenforced"] == 1


def test_a_rejection_that_did_not_happen(cluster: Cluster) -> None:
    out = Connection("y/b", "203.0.113.5", 443)
    found = record(cluster, TALK, out, tcpState="ESTABLISHED")
    assert found["egress"] == ("hard", "", 3, "no", 5)


@pytest.mark.parametrize(
    ("traffic", "state", "connection"),
    [
        ((0, 0, 0, 0), "", Connection("y/b", "x/a")),
        ((240, 4, 0, 0), "SYN_SENT", Connection("y/b", "x/a")),
        ((9_000, 90, 0, 0), "", Connection("y/b", "x/a", 514, "UDP")),
        # Resets are refusals: 40 bytes of IPv4, 60 of IPv6.
        ((60, 1, 40, 1), "CLOSE", Connection("y/b", "x/a")),
        ((180, 3, 120, 3), "CLOSE", Connection("y/b", "x/a")),
        ((80, 1, 60, 1), "CLOSE", Connection("2001:db8::9", "x/six")),
        ((60, 1, 40, 1), "", Connection("y/b", "x/a")),
    ],
)
def test_what_does_not_refute_it(
    cluster: Cluster, traffic: tuple[int, ...], state: str, connection: Connection
) -> None:
    assert record(cluster, traffic, connection, tcpState=state)["ingress"].action == 2
    assert cluster.policies.stats.unenforced == 0


@pytest.mark.parametrize(
    ("traffic", "state"),
    [
        ((112, 2, 60, 1), "SYN_RECV"),
        ((212, 4, 112, 2), "FIN_WAIT"),
        ((60, 1, 60, 1), "CLOSE"),
        # An exporter that counts no packets.
        ((900, 0, 700, 0), ""),
    ],
)
def test_an_answered_handshake_does(cluster: Cluster, traffic: tuple[int, ...], state: str) -> None:
    assert record(cluster, traffic, tcpState=state)["ingress"].action == 4


@pytest.mark.parametrize("action", [2, 3])
def test_what_the_record_reports_was_done(cluster: Cluster, action: int) -> None:
    own: dict[str, Any] = {"ingressNetworkPolicyRuleAction": action}
    assert record(cluster, TALK, tcpState="ESTABLISHED", **own)["ingress"].action == action
    assert cluster.policies.stats.unenforced == 0


def test_what_is_allowed_stays_allowed(cluster: Cluster) -> None:
    cluster.apply(network_policy("open", ingress=[{}]))
    assert record(cluster, TALK, tcpState="ESTABLISHED")["ingress"].action == 1


def test_only_those_records_of_a_batch(cluster: Cluster) -> None:
    rows = [Connection("y/b", "x/a"), Connection("y/b", "x/a", 81), Connection("x/a", "y/b")]
    traffic = {name: [value, 0, value] for name, value in zip(COUNTERS, TALK, strict=True)}
    found = cluster.decide(rows, **traffic)
    assert [row["ingress"].action for row in found] == [4, 2, 0]


def test_a_batch_without_counters_refutes_nothing(cluster: Cluster) -> None:
    batch = cluster.batch([Connection("y/b", "x/a")])
    for name in COUNTERS:
        del batch.columns[name]
    found = cluster.policies.decide(batch, cluster.pods, np.array([1]), np.array([0]))
    assert found["ingressNetworkPolicyRuleAction"].tolist() == [2]
