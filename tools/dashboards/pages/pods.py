"""Pod to Pod: who inside of the cluster talks to whom, how much and how fast."""

from tools.dashboards import variables
from tools.dashboards.chosen import COMMON
from tools.dashboards.labels import label
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import DESTINATION, SOURCE, ends, graph, pairs, rates, shares
from tools.dashboards.queries import Records

INSIDE = Records("type in (intra-node, inter-node)")

PAGE = Page(
    "pod-to-pod",
    "Flows: Pod to Pod",
    "Who inside of the cluster talks to whom, how much and how fast",
    [
        Row(
            "Cumulative",
            [
                *pairs("Pod to Pod", INSIDE, SOURCE, DESTINATION),
                graph("Pod to Pod", INSIDE, SOURCE, DESTINATION),
            ],
        ),
        Row(
            "Throughput",
            [
                *rates("Pod to Pod", INSIDE, SOURCE, DESTINATION),
                *ends("Pod", INSIDE, SOURCE, DESTINATION),
            ],
        ),
        Row(
            "Namespaces",
            [
                shares(
                    "Cumulative bytes of source namespaces",
                    INSIDE,
                    label("Namespace", "src.namespace"),
                    "src.namespace",
                ),
                shares(
                    "Cumulative bytes of destination namespaces",
                    INSIDE,
                    label("Namespace", "dst.namespace"),
                    "dst.namespace",
                ),
            ],
        ),
    ],
    [
        variables.store(),
        *(variables.of(each) for each in COMMON),
        variables.level(),
        variables.console(),
    ],
)
