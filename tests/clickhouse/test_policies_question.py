"""What policies let through and stopped, out of real stores."""

from typing import Any

from aggregator.explained import NOW, POLICY, cluster
from aggregator.records import records
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.statement import bind
from flowvis.clickhouse.store import Store
from flowvis.filters import parse
from flowvis.filters.sql import condition
from flowvis.policies.objects import Snapshot
from flowvis.questions.policies import PoliciesQuestion
from flowvis.questions.statement import Found

from .samples import STORED

END_S = NOW // 1000 - 60


def flow(packets: int, *, first: bool = True, **more: Any) -> dict[str, Any]:
    begin = END_S - 10
    return {
        "sourceIP": "10.0.0.1",
        "destinationIP": "10.0.0.2",
        "flowStartSeconds": begin,
        "flowStartMilliseconds": begin * 1000,
        "flowEndSeconds": END_S,
        "monitoringIntervalStartMilliSeconds": begin * 1000 + (0 if first else 5000),
        "packetDeltaCount": packets,
        "packetTotalCount": packets if first else 10 * packets,
        "octetDeltaCount": 100 * packets,
        "octetTotalCount": 100 * packets if first else 1000 * packets,
        **more,
    }


def decided(direction: str, type_: int, name: str, rule: str, action: int) -> dict[str, Any]:
    prefix = f"{direction}NetworkPolicy"
    namespace, _, name = name.rpartition("/")
    return {
        f"{prefix}Type": type_,
        f"{prefix}Namespace": namespace,
        f"{prefix}Name": name,
        f"{prefix}RuleName": rule,
        f"{prefix}RuleAction": action,
    }


ORDERS = "shop/orders"
FLOWS = (
    flow(3, **decided("ingress", 1, ORDERS, "ingress[0]", 1)),
    flow(4, first=False, **decided("ingress", 1, ORDERS, "ingress[0]", 1)),
    flow(1, **decided("ingress", 1, ORDERS, "", 2)),
    flow(1, **decided("ingress", 1, ORDERS, "", 2)),
    flow(2, **decided("ingress", 1, ORDERS, "", 4)),
    flow(5, **decided("egress", 3, "gone", "no-dns", 3), sourcePodNamespace="ops"),
    flow(7),
    flow(8, first=False),
    flow(9, flowEndSeconds=END_S - 3600),
)


def answer(
    store: Store, filter_: str = "", known: Snapshot | None = None, since: str = "", limit: str = ""
) -> Any:
    if known is None:
        known = cluster()[1].as_of(NOW)
    asked = {"from": since, "limit": limit}
    chosen, ages = condition(parse(filter_)), cluster()[1].since()
    question = PoliciesQuestion.parse(asked, chosen, NOW, known, ages)
    plan = question.plan()
    statement = next(plan)
    while True:
        found = store.query(bind(statement.text, statement.parameters), max_rows=100_000)
        try:
            statement = plan.send(Found(found.rows, found.types))
        except StopIteration as end:
            return end.value


def test_what_each_rule_let_through_and_stopped(store: Store) -> None:
    store.insert(records(*FLOWS, fields=STORED), BatchId("policies", 1))
    found = answer(store)
    orders, gone = found["policies"]
    assert (orders["namespace"], orders["name"], orders["direction"]) == (
        "shop",
        "orders",
        "ingress",
    )
    assert (orders["group"], orders["kind"]) == ("networking.k8s.io", "NetworkPolicy")
    assert (orders["exists"], orders["unused"], orders["tier"]) == (True, False, None)
    assert orders["since"] == NOW - 1_800_000  # its creation
    last = END_S * 1000
    none = {"connections": 0, "octets": 0, "packets": 0, "denied": 0, "unenforced": 0}
    some = none | {"exists": True, "last": last}
    assert orders["rules"] == [
        some
        | {"name": "ingress[0]", "action": "allow", "connections": 1, "octets": 700, "packets": 7},
        some | {"name": "ingress[1]", "action": "allow", "last": None},
        some
        | {"name": "", "action": "drop", "connections": 3, "octets": 400, "packets": 4}
        | {"denied": 2, "unenforced": 1},
    ]
    assert (gone["kind"], gone["name"], gone["exists"]) == ("ClusterNetworkPolicy", "gone", False)
    assert (gone["direction"], gone["since"]) == ("egress", None)
    (rule,) = gone["rules"]
    assert (rule["name"], rule["action"], rule["denied"]) == ("no-dns", "reject", 1)
    assert found["uncovered"] == {"connections": 1, "octets": 1500}
    assert (found["more"], found["rulesOmitted"]) == (0, False)
    # A filter chooses records, and the policies that there are stay.
    found = answer(store, "src.namespace = ops")
    by_name = {policy["name"]: policy for policy in found["policies"]}
    assert by_name["orders"]["unused"]
    assert by_name["gone"]["rules"][0]["octets"] == 500
    assert found["uncovered"] == {"connections": 0, "octets": 0}
    # The earlier hour has one more that nobody decided over.
    found = answer(store, since="-2h")
    assert found["uncovered"] == {"connections": 2, "octets": 2400}
    assert answer(store, known=Snapshot(), limit="1")["more"] == 1


def test_rules_that_nothing_needs_are_unused(store: Store) -> None:
    _, policies = cluster()
    other = POLICY | {"metadata": {"name": "other", "namespace": "shop"}}
    policies.upsert(other, NOW)
    passing = {
        "apiVersion": "crd.antrea.io/v1beta1",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "pass"},
        "spec": {
            "priority": 5,
            "tier": "securityops",
            "appliedTo": [{"podSelector": {}}],
            "ingress": [{"action": "Pass", "name": "on"}],
        },
    }
    policies.upsert(passing, NOW)
    found = answer(store, known=policies.as_of(NOW))
    assert {p["name"]: p["unused"] for p in found["policies"]} == {
        "orders": True,
        "other": True,
        "pass": False,  # what passes on decides nothing, so that no record would name it
    }
    (passes,) = (p for p in found["policies"] if p["name"] == "pass")
    assert (passes["tier"], passes["priority"], passes["rules"]) == (100, 5.0, [])
