"""Overview: on one page whether all is well, and what to look at next."""

from tools.dashboards import console, variables
from tools.dashboards.chosen import COMMON
from tools.dashboards.console import explored
from tools.dashboards.labels import label
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.between import DESTINATION, SOURCE, graph
from tools.dashboards.pages.completeness import MISSING, SILENT
from tools.dashboards.panels import OCTETS, RATE, Bars, Lines, Stat
from tools.dashboards.queries import Column, Ranked, Records, Series, Totals

ALL = Records()
BOTH = Column("Throughput", "bothOctets", per_second=8)

PAGE = Page(
    "overview",
    "Flows: overview",
    "On one page whether all is well, and what to look at next",
    [
        Row(
            "",
            [
                Stat(
                    title="Throughput",
                    about="Mean over the range, both directions",
                    unit=RATE,
                    asks=Totals((BOTH,), ALL),
                    console=explored(ALL, "bothOctets"),
                ),
                Stat(
                    title="Connections",
                    about="Begun in the range",
                    asks=Totals((Column("Connections", "connections"),), ALL),
                    console=explored(ALL, "connections"),
                ),
                Stat(
                    title="Denied",
                    about="Connections that a policy denied, each once",
                    asks=Totals((Column("Denied", "denied"),), ALL),
                    thresholds=((1, "red"),),
                    console=explored(ALL, "denied"),
                ),
                Stat(
                    title="Unanswered",
                    about="Ended without a packet back, not denied",
                    asks=Totals((Column("Unanswered", "unanswered"),), ALL),
                    thresholds=((1, "orange"),),
                    console=explored(ALL, "unanswered"),
                ),
                Stat(
                    title="Records missing",
                    about="Dropped or lost on the way, by the books",
                    asks=MISSING,
                    thresholds=((1, "red"),),
                    console=console.nodes(),
                ),
                Stat(
                    title="Silent nodes",
                    about="Nodes without a session for a part of the range",
                    asks=SILENT,
                    thresholds=((1, "orange"),),
                    console=console.nodes(),
                ),
            ],
        ),
        Row(
            "What passes",
            [
                Lines(
                    title="Throughput by source namespace",
                    about="Both directions",
                    asks=Series(BOTH, label("Namespace", "src.namespace"), ALL),
                    console=explored(ALL, "bothOctets", "src.namespace"),
                ),
                Lines(
                    title="Throughput by type",
                    about="Within nodes, between them, to and from outside",
                    asks=Series(BOTH, label("Type", "type"), ALL),
                    console=explored(ALL, "bothOctets", "type"),
                ),
                Lines(
                    title="Connections begun",
                    about="In each interval, by what policies decided",
                    asks=Series(
                        Column("Connections", "connections"), label("Verdict", "verdict"), ALL
                    ),
                    unit="short",
                    bars=True,
                    console=explored(ALL, "connections", "verdict"),
                ),
                Lines(
                    title="Denied",
                    about="Connections begun in each interval, by source",
                    asks=Series(Column("Denied", "denied"), SOURCE, ALL),
                    unit="short",
                    bars=True,
                    console=explored(ALL, "denied", "src.workload"),
                ),
            ],
        ),
        Row(
            "Who",
            [
                Bars(
                    title="Top sources",
                    about="By what they sent",
                    asks=Ranked((SOURCE,), (Column("Bytes", "octets"),), ALL, limit=10),
                    unit=OCTETS,
                    console=explored(ALL, "octets", "src.workload"),
                ),
                Bars(
                    title="Top destinations",
                    about="By what was sent to them",
                    asks=Ranked((DESTINATION,), (Column("Bytes", "octets"),), ALL, limit=10),
                    unit=OCTETS,
                    console=explored(ALL, "octets", "dst.workload"),
                ),
                graph("ends of connections", ALL, SOURCE, DESTINATION),
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
