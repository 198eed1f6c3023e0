"""The lab's network and traffic against the kernel itself."""

from collections.abc import Callable
from typing import Any

import pytest

from flowvis.lab import expectation
from flowvis.lab.rules import WitnessCount
from flowvis.lab.scenarios import STEADY_S, Outcome, Scenario, choose

DURATION_S = 2.0
SCENARIOS = choose([])


@pytest.fixture(scope="module")
def connections(script: Callable[..., list[Any]]) -> list[Any]:
    return script("witness_and_kernel.py", DURATION_S)


@pytest.mark.kernel
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_witness_and_conntrack_agree_to_the_byte(
    connections: list[Any], scenario: Scenario
) -> None:
    found = [line for line in connections if line["scenario"] == scenario.name]
    assert len(found) == scenario.connections
    for line in found:
        answering = scenario.backends[0] if scenario.backends else None
        forgotten = scenario.outcome is Outcome.REFUSED  # a RST ends what was only begun
        tracked = expectation.tracked(scenario, answering) and not forgotten
        assert bool(line["conntrack"]) == tracked
        counts = expectation.counts(scenario, answering, WitnessCount(*line["witness"]))
        for node, counted in line["conntrack"].items():
            assert counted == list(counts["FromSourceNode"]), (node, line)


@pytest.mark.kernel
def test_what_comes_after_its_window_is_counted_as_well(script: Callable[..., list[Any]]) -> None:
    """Conntrack lets it pass, and by itself counts it nowhere."""
    (line,) = script("late_copy.py")
    assert line["conntrack"] == {"node-1": line["witness"], "node-2": line["witness"]}


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("intra-node", {"node-1"}),
        ("inter-node", {"node-1", "node-2"}),
        ("inter-node-v6", {"node-1", "node-2"}),
        ("to-outside", {"node-1"}),
        ("from-outside", {"node-2"}),
        ("balancer", {"node-1"}),
        ("balancer-local", {"node-1"}),
        ("denied", {"node-1"}),
    ],
)
def test_each_node_tracks_what_crosses_it(
    connections: list[Any], name: str, nodes: set[str]
) -> None:
    found = [line for line in connections if line["scenario"] == name]
    assert {frozenset(line["conntrack"]) for line in found} == {frozenset(nodes)}


@pytest.mark.kernel
@pytest.mark.parametrize(("name", "header"), [("udp", 20 + 8), ("udp-v6", 40 + 8)])
def test_datagrams_are_counted_as_arithmetic_says(
    connections: list[Any], name: str, header: int
) -> None:
    (scenario,) = (s for s in SCENARIOS if s.name == name)
    exchanges = round(DURATION_S / scenario.every_s)
    sizes = (scenario.request + header, scenario.response + header)
    expected = [count for size in sizes for count in (exchanges, exchanges * size)]
    (line,) = (line for line in connections if line["scenario"] == name)
    assert line["witness"] == expected


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["intra-node", "bulk", "to-outside"])
def test_packets_have_wire_size(connections: list[Any], name: str) -> None:
    """Were the senders' packets larger, the witness would count fewer than the wire has."""
    (scenario,) = (s for s in SCENARIOS if s.name == name)
    for line in (line for line in connections if line["scenario"] == name):
        _, octets, reverse_packets, reverse_octets = line["witness"]
        assert reverse_octets / reverse_packets <= 1500
        exchanges = round(DURATION_S / STEADY_S) if scenario.every_s else 1
        assert octets > exchanges * scenario.request
        assert reverse_octets > exchanges * scenario.response
