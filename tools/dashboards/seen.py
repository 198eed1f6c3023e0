"""The console's page that answers what a dashboard does, as the documents have a picture of it."""

from dataclasses import dataclass
from pathlib import Path

from tools.dashboards.console import explored, listed, mapped, nodes, policies
from tools.dashboards.panels import Question
from tools.dashboards.queries import Records

PLACE = Path(__file__).parents[2] / "docs" / "pictures"
LARGEST = 150_000
"""Bytes of a picture: all of them are in the repository."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a page of the console."""

    name: str
    """Of its file, without `.png`."""
    of: Question
    about: str
    dark: bool = False


def _explored(name: str, about: str, filter_: str, by: str, measure: str = "octets") -> Picture:
    return Picture(name, explored(Records(filter_, ()), measure, by, "sankey"), about)


_PAIRS = "src.workload,dst.workload"
_NODES = Picture(
    "nodes",
    Question("nodes", nodes().filter, (("node", "node-1"),)),
    "Nodes: what each exporter sent, how full its table is, and who fills it",
)
_OVERVIEW = Picture(
    "overview",
    Question("overview"),
    "Overview: how much, who, what is denied, what is new, and whether all of it is there",
)

SEEN = {
    "home": _OVERVIEW,
    "overview": _OVERVIEW,
    "flow-records": Picture("flows", listed(Records("", ())), "Flows: every record"),
    "pod-to-pod": _explored(
        "pod-to-pod",
        "Explore: bytes from workload to workload, as a Sankey",
        "type in (intra-node, inter-node)",
        _PAIRS,
    ),
    "pod-to-external": _explored(
        "pod-to-external",
        "Explore: bytes from workloads to addresses outside",
        "type = to-external",
        "src.workload,dst.ip",
    ),
    "pod-to-service": _explored(
        "pod-to-service",
        "Explore: bytes from workloads to Services",
        "service is not empty",
        "src.workload,service",
    ),
    "node-to-node": _explored(
        "node-to-node",
        "Explore: bytes from node to node",
        "src.node is not empty and dst.node is not empty",
        "src.node,dst.node",
    ),
    "networkpolicy": Picture(
        "policies", policies(Records("", ())), "Policies: what each rule decided over"
    ),
    "topology": Picture(
        "map",
        Question(
            "map",
            mapped(Records("", ())).filter,
            (("level", "workload"), ("chosen", "workload:shop/cart")),
        ),
        "Map: workloads in their namespaces, and what the chosen one talks with",
        dark=True,
    ),
    "denied": _explored(
        "denied",
        "Explore: denied connections, by who wanted to reach whom",
        "verdict = denied",
        _PAIRS,
        "denied",
    ),
    "completeness": _NODES,
    "conntrack": _NODES,
}
"""Of each dashboard that the console has an equal of, by its name."""
