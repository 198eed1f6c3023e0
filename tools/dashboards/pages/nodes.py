"""Node to node: the matrix of nodes, with what stays on one."""

from tools.dashboards import variables
from tools.dashboards.chosen import CLUSTER, EXCLUDED, NAMESPACE, NODE, all_of
from tools.dashboards.labels import label
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import ends, graph, pairs, rates, shares
from tools.dashboards.queries import Records

CHOSEN = all_of(CLUSTER, EXCLUDED, NAMESPACE, NODE)
NODES = Records("src.node is not empty and dst.node is not empty", CHOSEN)
FROM, TO = label("Source", "src.node"), label("Destination", "dst.node")
BY = "src.node,dst.node"

CROSSING = Records("crosszone = yes", CHOSEN)
FROM_ZONE, TO_ZONE = label("Source zone", "src.zone"), label("Destination zone", "dst.zone")
ZONES = "src.zone,dst.zone"

PAGE = Page(
    "node-to-node",
    "Flows: node to node",
    "How much passes between nodes and stays on each",
    [
        Row(
            "Cumulative",
            [*pairs("node to node", NODES, FROM, TO, BY), graph("node to node", NODES, FROM, TO)],
        ),
        Row(
            "Throughput",
            [*rates("node to node", NODES, FROM, TO, BY), *ends("node", NODES, FROM, TO, BY)],
        ),
        Row(
            "Shares",
            [
                shares("Cumulative bytes of node as source", NODES, FROM, "src.node"),
                shares("Cumulative bytes of node as destination", NODES, TO, "dst.node"),
            ],
        ),
        Row(
            "Between zones",
            [
                *pairs("zone to zone", CROSSING, FROM_ZONE, TO_ZONE, ZONES),
                *rates("zone to zone", CROSSING, FROM_ZONE, TO_ZONE, ZONES, many=False),
            ],
        ),
    ],
    [variables.store(), *(variables.of(each) for each in CHOSEN), variables.console()],
)
