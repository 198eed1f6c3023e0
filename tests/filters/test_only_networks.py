"""Which filters tell no more of addresses than the networks of ends outside of the cluster."""

import pytest

from flowvis.filters import parse
from flowvis.filters.sql import condition

OUT = "type = to-external and "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{OUT}dst.ip = 203.0.113.0/24", {"destinationIPBytes"}),
        (f"{OUT}dst.ip = 203.0.113.0/25", set()),
        (f"{OUT}dst.ip = 203.0.113.7", set()),
        (f"{OUT}dst.ip in (10.0.0.0/8, 203.0.113.0/24)", {"destinationIPBytes"}),
        (f"{OUT}dst.ip in (10.0.0.0/8, 203.0.113.9)", set()),
        (f"{OUT}dst.ip = 2001:db8::/48", {"destinationIPBytes"}),
        (f"{OUT}dst.ip = 2001:db8::/49", set()),
        (f"{OUT}dst.ip = 2000::/3", {"destinationIPBytes"}),
        (f"{OUT}dst.ip = ::/0", set()),  # has :: itself, which is no address
        (f"{OUT}dst.ip = 0.0.0.0/0", set()),
        (f"{OUT}not dst.ip = 203.0.113.0/24", {"destinationIPBytes"}),
        (f"{OUT}(dst.port = 53 or dst.ip = 203.0.113.0/24)", {"destinationIPBytes"}),
        (f"{OUT}dst.ip is empty", set()),
        (f"{OUT}src.ip = 10.0.0.0/8", set()),
        ("type = from-external and src.ip = 203.0.113.0/24", {"sourceIPBytes"}),
        ("type in (to-external, inter-node) and dst.ip = 203.0.113.0/24", set()),
        ("type = to-external or dst.ip = 203.0.113.0/24", set()),
        ("not type = to-external and dst.ip = 203.0.113.0/24", set()),
        ("dst.ip = 203.0.113.0/24", set()),
        (f"({OUT}dst.ip = 203.0.113.0/24) or dst.ip = 203.0.113.0/24", set()),
        (
            "dst.pod is empty and dst.node is empty and dst.ip = 203.0.113.0/24",
            {"destinationIPBytes"},
        ),
        ("dst.pod is empty and dst.ip = 203.0.113.0/24", set()),
    ],
)
def test_networks_of_ends_outside(text: str, expected: set[str]) -> None:
    assert condition(parse(text)).only_networks == expected
