"""Where Pods' addresses come from, and what nodes' objects say of it.

One of them is in force in a lab's process: `use` chooses it before anything is built.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

Addresses = tuple[str, str]
"""IPv4 and IPv6."""


@dataclass(frozen=True)
class Cni:
    """A way to give Pods addresses; nodes are numbered from 1."""

    about: str
    blocks: Mapping[int, Addresses]
    """The networks of each node's Pods."""
    gateway: tuple[int, int]
    """The place of the Pods' next hop in them."""
    pod_cidrs: Mapping[int, Addresses | tuple[()]]
    """Node.spec.podCIDRs of each node."""

    def address(self, node: int, number: int) -> Addresses:
        """Return the addresses of a node's Pod."""
        return self._at(node, (number, number))

    def gateways(self, node: int) -> Addresses:
        """Return the addresses of a node's end of its Pods' links."""
        return self._at(node, self.gateway)

    def _at(self, node: int, places: tuple[int, int]) -> Addresses:
        four, six = (
            str(ip_network(block)[place])
            for block, place in zip(self.blocks[node], places, strict=True)
        )
        return four, six


_RANGES: dict[int, Addresses] = {
    number: (f"10.10.{number}.0/24", f"fd00:10:{number}::/48") for number in (1, 2)
}

CNIS = {
    "ranges": Cni(
        "Pods have addresses of their node's podCIDRs",
        _RANGES,
        (1, 1),
        _RANGES,
    ),
    "pools": Cni(
        "addresses come from the CNI's own pools; podCIDRs are absent, or not used",
        {1: ("172.30.18.64/26", "fd77:30:18::/122"), 2: ("172.30.7.128/26", "fd77:30:7:40::/122")},
        (61, 62),
        {1: (), 2: _RANGES[2]},
    ),
}

_chosen = CNIS["ranges"]


def use(name: str) -> None:
    """Put one of `CNIS` in force in this process."""
    global _chosen  # noqa: PLW0603  a lab is a process of its own
    _chosen = CNIS[name]


def in_force() -> Cni:
    """Return the one that is."""
    return _chosen
