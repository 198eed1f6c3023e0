"""What people see of a record on a line."""

from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from aggregator.records import records
from flowvis.aggregator.api.listing import rows
from flowvis.cli.amounts import clock
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
    table, wide = flow_layout("table", None, [record]), flow_layout("wide", None).line(record)
    line = str(table.line(record))
    at = str(table.heading).index("VERDICT")
    assert line[at:].startswith(f"{verdict} ")
    assert "shop/strict" in str(wide)
    assert " cluster-wide " in str(wide)
    assert "shop/strict" not in line


class Noon(datetime):
    """A clock that stands: no day begins between two looks, and none has 23 hours."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Noon":
        return cls(2026, 1, 20, 12, tzinfo=UTC).astimezone(tz)


def test_a_moment_of_another_day_has_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowvis.cli.amounts.datetime", Noon)
    now = Noon.now()
    assert clock(now.timestamp() * 1000) == f"{now:%H:%M:%S}"
    before = now - timedelta(days=1)
    assert clock(before.timestamp() * 1000) == f"{before:%m-%d %H:%M:%S}"
    times = [{"flowEndSeconds": int(each.timestamp())} for each in (before, now)]
    found = list(rows(records(*(DENIED | each for each in times))))
    lines = [str(flow_layout("compact", 80, found).line(record)) for record in found]
    assert lines[0].startswith(f"{before:%m-%d %H:%M:%S} 10.0.0.1")
    assert lines[1].startswith(f"{now:%H:%M:%S} 10.0.0.1".rjust(len("01-31 12:00:00 10.0.0.1")))
