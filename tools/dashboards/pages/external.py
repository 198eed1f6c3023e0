"""Pod to external: what leaves the cluster, and what comes from outside."""

from dataclasses import replace

from tools.dashboards import variables
from tools.dashboards.chosen import COMMON
from tools.dashboards.console import explored
from tools.dashboards.labels import LEVEL, Label, label, network
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import (
    DESTINATION,
    PAIR_UNITS,
    PAIRS,
    SOURCE,
    graph,
    pairs,
    rates,
)
from tools.dashboards.panels import Panel, Rows
from tools.dashboards.queries import Ranked, Records

OUT = Records("type = to-external")
IN = Records("type = from-external")
TO_NETWORK, FROM_NETWORK = network("Destination", "destination"), network("Source", "source")
OUT_BY, IN_BY = f"src.${{{LEVEL}}},dst.ip", f"src.ip,dst.${{{LEVEL}}}"


def _addresses(title: str, records: Records, labels: tuple[Label, ...], by: str) -> Panel:
    return Rows(
        title=title,
        about="The 50 largest, of the records themselves: as far back as these are kept",
        asks=Ranked(labels, PAIRS, replace(records, raw=True)),
        units=PAIR_UNITS,
        gauges=("Bytes", "Reverse bytes"),
        width=24,
        console=explored(records, "octets", by, "sankey"),
    )


PAGE = Page(
    "pod-to-external",
    "Flows: Pod to external",
    "What leaves the cluster and what comes from outside: by networks (/24, /48) over any range, by"
    " address as far back as records are kept",
    [
        Row(
            "To external",
            [
                *pairs("Pod to external", OUT, SOURCE, TO_NETWORK, OUT_BY),
                graph("Pod to external", OUT, SOURCE, TO_NETWORK),
                *rates("Pod to external", OUT, SOURCE, TO_NETWORK, OUT_BY),
                _addresses(
                    "Addresses that Pods talk to", OUT, (SOURCE, label("Address", "dst.ip")), OUT_BY
                ),
            ],
        ),
        Row(
            "From external",
            [
                *pairs("external to Pod", IN, FROM_NETWORK, DESTINATION, IN_BY),
                *rates("external to Pod", IN, FROM_NETWORK, DESTINATION, IN_BY),
                _addresses(
                    "Addresses that talk to Pods",
                    IN,
                    (label("Address", "src.ip"), DESTINATION),
                    IN_BY,
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
