"""Any policies, any connection: the compiled evaluator and the obvious one say the same."""

from itertools import product
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.policies import applicable
from policies.cluster import DIRECTIONS, NOTHING, Cluster, Connection, Pod
from policies.clusters import OUTSIDE, SERVICES, clusters, pods
from policies.oracle import Oracle


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(clusters(), pods(), st.sampled_from([0, applicable.FEW]))
def test_both_say_the_same(objects: list[Any], members: list[Pod], few: int) -> None:
    """Whether rules are tried one after the other or looked for."""
    cluster = Cluster(members)
    cluster.apply(*objects)
    oracle = Oracle(objects, members)
    endpoints: dict[str, Pod | str] = {f"{pod.namespace}/{pod.name}": pod for pod in members}
    endpoints |= {address: address for address in OUTSIDE}
    rows = [
        (one, other, protocol, port)
        for one, other in product(endpoints, endpoints)
        for protocol, port in SERVICES
    ]
    with mock.patch.object(applicable, "FEW", few):
        found = cluster.decide([Connection(a, b, port, protocol) for a, b, protocol, port in rows])
    unknown = 0
    for (one, other, protocol, port), verdicts in zip(rows, found, strict=True):
        for direction in DIRECTIONS:
            expected = oracle.verdict(direction, endpoints[one], endpoints[other], protocol, port)
            unknown += expected is None
            assert verdicts[direction] == (expected or NOTHING), (one, other, protocol, port)
    assert cluster.policies.stats.unknown == unknown
