"""Pod to Service: who calls which Service, and what each carries."""

from tools.dashboards import variables
from tools.dashboards.chosen import CLUSTER, EXCLUDED, NAMESPACE, SERVICE, WORKLOAD, all_of
from tools.dashboards.labels import LEVEL, label
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import SOURCE, ends, graph, pairs, rates
from tools.dashboards.queries import Records

CHOSEN = all_of(CLUSTER, EXCLUDED, NAMESPACE, WORKLOAD, SERVICE)
CALLED = Records("service is not empty", CHOSEN)
CALLEE = label("Service", "service")
BY = f"src.${{{LEVEL}}},service"

PAGE = Page(
    "pod-to-service",
    "Flows: Pod to Service",
    "Who calls which Service, and what each carries",
    [
        Row(
            "Cumulative",
            [
                *pairs("Pod to Service", CALLED, SOURCE, CALLEE, BY),
                graph("Pod to Service", CALLED, SOURCE, CALLEE),
            ],
        ),
        Row(
            "Throughput",
            [
                *rates("Pod to Service", CALLED, SOURCE, CALLEE, BY),
                *ends("Pod and Service", CALLED, SOURCE, CALLEE, BY),
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
