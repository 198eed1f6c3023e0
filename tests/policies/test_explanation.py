"""Explanations: they conclude as verdicts do, and each rule that is said to match does."""

from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flowvis.batch import address_bytes
from flowvis.policies.endpoints import member_of
from flowvis.policies.explanation import (
    Answered,
    Conclusion,
    End,
    Explainer,
    Explanation,
    Part,
    Service,
    Way,
    as_dict,
    checks,
)
from flowvis.policies.explanation.reported import Reported
from flowvis.policies.explanation.walk import MAX_STEPS
from flowvis.policies.model import Direction
from policies.cluster import (
    DIRECTIONS,
    NOTHING,
    NOW,
    Cluster,
    Connection,
    Pod,
    admin_policy,
    antrea,
    expression,
    labels,
    matching,
    namespace,
    network_policy,
)
from policies.clusters import OUTSIDE, SERVICES, clusters, pods
from policies.oracle import Oracle

PHASES = set(Phase) - {Phase.explain}  # which traces each line, for minutes
ALLOWED = {
    Conclusion.UNSELECTED,
    Conclusion.UNMATCHED,
    Conclusion.EXEMPT,
    Conclusion.UNKNOWN,
    Conclusion.NOT_A_POD,
}
"""What a record shows as no policy at all."""


def end(which: Pod | str) -> End:
    if isinstance(which, str):
        return End(address_bytes(which))
    name = f"{which.namespace}/{which.name}"
    return End(address_bytes(which.address), member_of(which), name, which.node)


def verdict(way: Way) -> Any:
    """What a record has of a way's conclusion."""
    step = way.decided
    if step is None or way.conclusion in ALLOWED:
        return NOTHING
    policy, rule = step.policy, step.rule
    return policy.name, policy.namespace, policy.type, rule.name, rule.action


@pytest.mark.slow
@settings(max_examples=60, deadline=None, phases=PHASES)
@given(clusters(), pods(), st.integers(0, 1000))
def test_it_concludes_as_verdicts_do(objects: list[Any], members: list[Pod], seed: int) -> None:
    cluster = Cluster(members)
    cluster.apply(*objects)
    oracle = Oracle(objects, members)
    endpoints: dict[str, Pod | str] = {f"{pod.namespace}/{pod.name}": pod for pod in members}
    endpoints |= {address: address for address in OUTSIDE}
    rows = Random(seed).sample([*product(endpoints, endpoints, SERVICES)], 60)
    found = cluster.decide([Connection(a, b, port, p) for a, b, (p, port) in rows])
    unknown = 0
    explainer = Explainer(cluster.policies.as_of(NOW), members)
    for (one, other, (protocol, port)), verdicts in zip(rows, found, strict=True):
        source, destination = endpoints[one], endpoints[other]
        explanation = explainer.explain(end(source), Service(protocol, port, end(destination)))
        for direction, way in zip(
            DIRECTIONS, (explanation.ingress, explanation.egress), strict=True
        ):
            where = (one, other, protocol, port, direction, way.text)
            unknown += way.conclusion is Conclusion.UNKNOWN
            assert verdict(way) == verdicts[direction], where
            agrees = Reported(*verdicts[direction]).agrees(way)
            assert agrees is (None if way.conclusion is Conclusion.UNKNOWN else True), where
            expected = oracle.verdict(direction, source, destination, protocol, port)
            assert (way.conclusion is Conclusion.UNKNOWN) == (expected is None), where
            for step in way.steps:
                policy = step.policy
                rules = policy.rules(Direction(direction)) or ()
                places = [at for at, rule in enumerate(rules) if rule is step.rule]
                which = policy.kind, policy.namespace, policy.name, int(policy.type)
                ends = source, destination
                matches = (
                    oracle.matches(which, places[0], direction, ends, (protocol, port))
                    if places
                    else True  # default isolation
                )
                assert step.outcome.answer is matches, (where, str(step))
                assert bool(step.outcome.part) == (matches is not True)
                assert bool(step.outcome.why) == (matches is not True)
    assert cluster.policies.stats.unknown == unknown


LABELED = [
    Pod("x", "a", "10.0.0.1", labels(app="a", tier="1"), named_ports=(("web", 6, 80),)),
    Pod("y", "b", "10.0.1.1", labels(app="b"), service_account="robot"),
    Pod("z", "c", "fd00::1", labels()),
]
SPACES = [namespace("x", team="a"), namespace("y", team="b"), namespace("z")]
TCP = 6


def explain(
    *objects: Any,
    source: str = "y/b",
    destination: str = "x/a",
) -> Explanation:
    cluster = Cluster(LABELED)
    cluster.apply(*SPACES, *objects)
    known: dict[str, Pod | str] = {f"{pod.namespace}/{pod.name}": pod for pod in LABELED}
    ends = [end(known.get(name, name)) for name in (source, destination)]
    explainer = Explainer(cluster.policies.as_of(NOW), cluster.pods)
    return explainer.explain(ends[0], Service(TCP, 80, ends[1]))


def only(explanation: Explanation) -> tuple[Part | None, str]:
    """What of the first rule at the destination does not match, and why."""
    outcome = explanation.ingress.steps[0].outcome
    return outcome.part, outcome.why


def allowing(peer: Any = None, **rule: Any) -> Any:
    chosen = {"from": [peer]} if peer is not None else {}
    return network_policy("p", ingress=[{**chosen, **rule}])


ANTREA_RULE = {"action": "Drop", "name": "r"}


def tiered(*peers: Any, **rule: Any) -> Any:
    spec: dict[str, Any] = {
        "priority": 5,
        "appliedTo": [{"podSelector": {}}],
        "ingress": [{**ANTREA_RULE, "from": list(peers), **rule}],
    }
    return antrea("ClusterNetworkPolicy", "f", **spec)


def admin(peer: Any, **rule: Any) -> Any:
    ingress = [{"action": "Deny", "from": [peer], **rule}]
    return admin_policy(
        "AdminNetworkPolicy", "d", priority=1, subject={"namespaces": {}}, ingress=ingress
    )


@pytest.mark.parametrize(
    ("item", "part", "why"),
    [
        (
            allowing({"podSelector": matching(app="b")}),
            Part.NAMESPACE,
            "Pods with app=b in namespace x: it is in namespace y",
        ),
        (
            allowing({"namespaceSelector": matching(team="a")}),
            Part.NAMESPACE,
            "Pods in namespaces with team=a: namespace y has team=b",
        ),
        (
            allowing({"namespaceSelector": expression("gold", "Exists"), "podSelector": {}}),
            Part.NAMESPACE,
            "Pods in namespaces with gold: namespace y has no label gold",
        ),
        (
            allowing({"namespaceSelector": {}, "podSelector": matching(app="c", tier="9")}),
            Part.LABELS,
            "Pods with app=c, tier=9 in every namespace: it has app=b",
        ),
        (
            allowing(
                {"namespaceSelector": {}, "podSelector": expression("app", "NotIn", "b", "c")}
            ),
            Part.LABELS,
            "Pods with app notin (b, c) in every namespace: it has app=b",
        ),
        (
            allowing({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.1.0/24"]}}),
            Part.ADDRESS,
            "10.0.0.0/8 without 10.0.1.0/24: 10.0.1.1 is in its exception 10.0.1.0/24",
        ),
        (
            allowing({"ipBlock": {"cidr": "2001:db8::/32"}}),
            Part.ADDRESS,
            "2001:db8::/32: 10.0.1.1 is not in it",
        ),
        (allowing(ports=[{"port": 81, "endPort": 99}]), Part.PORT, "tcp 81-99: not tcp 80"),
        (allowing(ports=[{"protocol": "UDP"}]), Part.PROTOCOL, "udp every port: not tcp"),
        (allowing(ports=[{"port": "dns"}]), Part.PORT, "tcp port named dns: x/a has none"),
        (
            tiered({"serviceAccount": {"namespace": "y", "name": "boss"}}),
            Part.ACCOUNT,
            "Pods of service account boss in namespace y: its service account is robot",
        ),
        (
            tiered({"namespaces": {"match": "Self"}}),
            Part.NAMESPACE,
            "Pods in the same namespace: it is in namespace y, not in x",
        ),
        (
            tiered({"namespaces": {"sameLabels": ["team"]}}),
            Part.NAMESPACE,
            "Pods in namespaces with the same team: label team of namespace x is a, of y b",
        ),
        (tiered({"nodeSelector": {}}), Part.NODE, "every node: y/b is no node's address"),
        (tiered({"group": "none"}), Part.PEER, "it selects nobody"),
        (
            tiered({"podSelector": matching(app="b"), "namespaceSelector": matching(team="c")}),
            Part.NAMESPACE,
            "Pods with app=b in namespaces with team=c: namespace y has team=b",
        ),
        (
            # Of several the one that misses by least.
            tiered({"ipBlock": {"cidr": "10.9.0.0/16"}}, {"podSelector": matching(app="z")}),
            Part.LABELS,
            "Pods with app=z in every namespace: it has app=b; nor the other one",
        ),
    ],
)
def test_what_does_not_match_and_why(item: Any, part: Part, why: str) -> None:
    explanation = explain(item)
    assert only(explanation) == (part, why)
    assert explanation.ingress.steps[0].outcome.answer is False


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (
            tiered({"podSelector": {}}, ports=[{"port": 80, "sourcePort": 5}]),
            "no record tells sourcePort",
        ),
        (allowing({"newer": {}}), "peer with newer: this part is not understood"),
        (
            admin({"namespaces": {"matchFuzzy": "x"}}),
            "selector with matchFuzzy: this part is not understood",
        ),
    ],
)
def test_what_is_not_to_be_known(item: Any, why: str) -> None:
    explanation = explain(item)
    assert explanation.ingress.conclusion is Conclusion.UNKNOWN
    assert explanation.answered is Answered.UNKNOWN
    assert only(explanation) == (Part.DOUBT, why)
    assert why in explanation.ingress.text


def test_domains_are_not_known_at_the_source() -> None:
    egress = {"egress": [{"action": "Drop", "to": [{"fqdn": "*.example.org"}]}]}
    spec: dict[str, Any] = {"priority": 1, "appliedTo": [{"podSelector": {}}], **egress}
    explanation = explain(
        antrea("ClusterNetworkPolicy", "f", **spec), destination="198.51.100.7", source="x/a"
    )
    assert explanation.egress.conclusion is Conclusion.UNKNOWN
    assert explanation.egress.text.endswith("fqdn: no object tells this")
    assert explanation.ingress.conclusion is Conclusion.NOT_A_POD


def test_stages_in_their_order_and_what_passes() -> None:
    passes = antrea(
        "ClusterNetworkPolicy",
        "first",
        tier="emergency",
        priority=1,
        appliedTo=[{"podSelector": {}}],
        ingress=[{"action": "Pass", "name": "on"}],
    )
    baseline = admin_policy(
        "BaselineAdminNetworkPolicy",
        "default",
        subject={"namespaces": {}},
        ingress=[{"action": "Deny", "name": "last", "from": [{"namespaces": {}}]}],
    )
    way = explain(passes, tiered(), network_policy("p", ingress=[{}]), baseline).ingress
    shown = [
        (s.stage.name, s.tier, s.rule.name, s.outcome.answer, s.reached, s.decides)
        for s in way.steps
    ]
    assert shown == [
        ("TIERS", 50, "on", True, True, False),
        ("TIERS", 250, "r", True, False, False),
        ("STANDARD", None, "ingress[0]", True, True, True),
        ("STANDARD", None, "", True, False, False),
        ("BASELINE", 254, "last", True, False, False),
    ]
    assert way.text == "allowed by NetworkPolicy x/p, rule ingress[0]"
    way = explain(passes, baseline).ingress
    assert way.conclusion is Conclusion.DROPPED
    assert way.text == "dropped by BaselineAdminNetworkPolicy default, rule last"


def test_policies_that_do_not_select_the_pod_say_why() -> None:
    others = [
        network_policy("near", podSelector=matching(app="aa")),
        network_policy("far", "y"),
        tiered() | {"spec": {"priority": 1, "appliedTo": [], "ingress": [ANTREA_RULE]}},
    ]
    way = explain(*others).ingress
    assert way.conclusion is Conclusion.UNSELECTED
    assert [(other.policy.name, other.why) for other in way.others] == [
        ("near", "applies to Pods with app=aa in namespace x: it has app=a"),
        ("f", "it selects nobody"),
    ]


def test_what_costs_too_much_is_unknown_and_says_so() -> None:
    rules = [{"ports": [{"port": number}]} for number in range(1, 1002)]
    way = explain(network_policy("huge", ingress=rules)).ingress
    assert way.conclusion is Conclusion.UNKNOWN
    assert "more than 1000 rules" in way.text
    assert len(way.steps) == 1


def test_many_rules_are_shown_in_part_with_the_one_that_decides() -> None:
    rules = [{"ports": [{"port": number}]} for number in range(1000, 1990)]
    way = explain(network_policy("many", ingress=[*rules, {"ports": [{"port": 80}]}])).ingress
    assert len(way.steps) == MAX_STEPS + 1
    assert way.omitted == 991 + 1 - len(way.steps)
    assert way.decided is way.steps[-1]
    assert way.text == "allowed by NetworkPolicy x/many, rule ingress[990]"


def test_one_explanation_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_CHECKS", 100)
    rules = [{"ports": [{"port": number}]} for number in range(1000, 1200)]
    explanation = explain(network_policy("many", ingress=rules))
    assert explanation.answered is Answered.UNKNOWN
    assert "more than 100 peers and ports" in explanation.ingress.text


def test_what_is_shown_of_a_rule_is_bounded() -> None:
    blocks = [{"ipBlock": {"cidr": f"10.{n}.0.0/16"}} for n in range(200, 0, -1)]
    shown = as_dict(explain(network_policy("p", ingress=[{"from": blocks}])))
    (step, _) = shown["ingress"]["steps"]
    assert (len(step["peers"]), step["peersOmitted"], step["ports"]) == (10, 190, None)
    blocks += [{"ipBlock": {"cidr": cidr}} for cidr in ("::/0", "10.0.0.0/15")]
    shown = as_dict(explain(network_policy("p", ingress=[{"from": blocks}])))
    (step, _) = shown["ingress"]["steps"]
    assert step["peers"][0] == {"what": "10.0.0.0/15", "matches": True, "part": None, "why": ""}


def test_a_denial_at_one_end_is_enough_whatever_is_unknown_at_the_other() -> None:
    explanation = explain(
        network_policy("p"), network_policy("q", "y", egress=[{"to": [{"newer": 1}]}])
    )
    assert explanation.egress.conclusion is Conclusion.UNKNOWN
    assert explanation.ingress.conclusion is Conclusion.ISOLATED
    assert explanation.answered is Answered.DENIED


def test_names_of_ports_are_those_of_pods_that_are_selected_as_pods() -> None:
    def egress(*peers: Any) -> Any:
        rule = {**ANTREA_RULE, "to": list(peers), "ports": [{"port": "web"}]}
        spec: dict[str, Any] = {"priority": 1, "appliedTo": [{"podSelector": {}}], "egress": [rule]}
        return explain(antrea("ClusterNetworkPolicy", "f", **spec)).egress

    block, chosen = {"ipBlock": {"cidr": "10.0.0.0/8"}}, {"podSelector": matching(app="a")}
    assert egress(block, chosen).conclusion is Conclusion.DROPPED
    way = egress(block)
    assert way.conclusion is Conclusion.UNMATCHED
    (step,) = way.steps
    assert step.outcome.part is Part.PORT
    assert step.outcome.why == "only Pods that are selected as Pods have ports with names"


def test_an_answer_stays_when_there_are_too_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        antrea("NetworkPolicy", f"o{n}", "x", priority=1, appliedTo=[], ingress=[ANTREA_RULE])
        for n in range(3)
    ]
    chosen = [{"podSelector": matching(app=f"{n}")} for n in range(60)]
    last = tiered() | {"metadata": {"name": "z"}}
    last["spec"] = {
        **last["spec"],
        "priority": 9,
        "ingress": [{**ANTREA_RULE, "appliedTo": chosen}],
    }
    monkeypatch.setattr(checks, "MAX_CHECKS", 100)
    way = explain(network_policy("p"), *others).ingress
    assert (way.conclusion, len(way.others)) == (Conclusion.ISOLATED, 3)
    monkeypatch.setattr(checks, "MAX_CHECKS", 1)
    way = explain(network_policy("p"), *others).ingress
    assert way.conclusion is Conclusion.ISOLATED
    monkeypatch.setattr(checks, "MAX_CHECKS", 20)
    assert explain(network_policy("p"), last).ingress.conclusion is Conclusion.UNKNOWN
