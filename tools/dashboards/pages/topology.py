"""Topology: the graph of all, by Pod, workload, namespace or node."""

from tools.dashboards import variables
from tools.dashboards.chosen import CLUSTER, EXCLUDED, NAMESPACE, NODE, WORKLOAD, all_of
from tools.dashboards.labels import label
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import DESTINATION, SOURCE, graph
from tools.dashboards.queries import Records

CHOSEN = all_of(CLUSTER, EXCLUDED, NAMESPACE, WORKLOAD, NODE)
ALL = Records(choices=CHOSEN)
CALLED = Records("service is not empty", CHOSEN)

PAGE = Page(
    "topology",
    "Flows: topology",
    "Who talks to whom, as a graph: summed in the store, not in the browser",
    [
        Row("", [graph("ends of connections", ALL, SOURCE, DESTINATION)]),
        Row(
            "Services",
            [graph("Services that are called", CALLED, SOURCE, label("Service", "service"))],
        ),
        Row(
            "Nodes",
            [
                graph(
                    "nodes",
                    Records("src.node is not empty and dst.node is not empty", CHOSEN),
                    label("Source", "src.node"),
                    label("Destination", "dst.node"),
                )
            ],
        ),
    ],
    [
        variables.store(),
        *(variables.of(each) for each in CHOSEN),
        variables.level(),
        variables.console(),
    ],
)
