"""What must hold of the store when the kernel dropped events, on rows made by hand."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from flowvis.lab.faults.kernel import CALLER, DISCARD, STORM, all_are_known
from flowvis.lab.plan import NODES

SIDES = "FromSourceNode", "FromDestinationNode"


def row(port: int, *seen: bool, to: int = DISCARD) -> dict[str, Any]:
    ends = {f"flowEndSeconds{side}": 9 * one for side, one in zip(SIDES, seen, strict=True)}
    tuple_ = {"sourceIP": CALLER.addresses[0], "sourceTransportPort": port}
    return ends | tuple_ | {"destinationTransportPort": to}


@pytest.mark.parametrize(
    ("stored", "unseen", "right"),
    [
        (300, len(STORM) - 300, True),
        (300, len(STORM) - 301, False),
        (0, len(STORM), True),
        (len(STORM), 0, True),
        (300, len(STORM) + len(STORM) // 20, True),
        (300, len(STORM) + len(STORM) // 5, False),
    ],
)
def test_what_is_stored_and_what_is_named_are_all_there_were(
    stored: int, unseen: int, right: bool
) -> None:
    rows = [row(port, True, True) for port in STORM[:stored]]
    rows += rows[:7]  # in two records
    rows += [row(port, False, True) for port in STORM[stored : stored + 5]]  # not of the first node
    rows += [row(9, True, True, to=DISCARD + 1)]  # of somebody else
    first, second = (node.name for node in NODES)
    missed = max(len(STORM) - stored - 5, 0)
    lab = SimpleNamespace(unseen={first: unseen, second: missed})
    problems = all_are_known(cast("Any", lab), rows)
    assert [problem.split(":")[0] for problem in problems] == ([] if right else [first])
