"""What people see of a record on a line."""

import pytest

from aggregator.records import records
from flowvis.aggregator.api.listing import rows
from flowvis.cli.tables import flow_layout

DENIED = {
    "sourceIP": "10.0.0.1",
    "destinationIP": "10.0.0.2",
    "protocolIdentifier": 6,
    "flowType": 2,
    "ingressNetworkPolicyName": "strict",
    "ingressNetworkPolicyNamespace": "shop",
    "egressNetworkPolicyName": "cluster-wide",
    "egressNetworkPolicyRuleAction": 1,
}


@pytest.mark.parametrize(
    ("action", "verdict"),
    [
        (0, "allowed"),
        (1, "allowed"),
        (2, "dropped"),
        (3, "rejected"),
        (4, "unenforced"),
        (5, "unenforced"),
    ],
)
def test_a_denial_in_one_direction_is_the_verdict(action: int, verdict: str) -> None:
    (record,) = rows(records(DENIED | {"ingressNetworkPolicyRuleAction": action}))
    table, wide = flow_layout("table", None), str(flow_layout("wide", None).line(record))
    line = str(table.line(record))
    at = str(table.heading).index("VERDICT")
    assert line[at:].startswith(f"{verdict} ")
    assert "shop/strict" in wide
    assert " cluster-wide " in wide
    assert "shop/strict" not in line
