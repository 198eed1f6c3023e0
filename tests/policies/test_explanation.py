"""Explanations: they conclude as verdicts do, and each rule that is said to match does."""

from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flowvis.batch import address_bytes
from flowvis.policies.endpoints import member_of
from flowvis.policies.explanation import Conclusion, End, Explainer, Service, Way
from flowvis.policies.model import Direction
from policies.cluster import DIRECTIONS, NOTHING, NOW, Cluster, Connection, Pod
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
