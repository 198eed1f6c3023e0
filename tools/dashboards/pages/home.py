"""The homepage: what there is in the cluster and what passes through it."""

from tools.dashboards import variables
from tools.dashboards.chosen import CLUSTER, all_of
from tools.dashboards.console import explored
from tools.dashboards.labels import label, made
from tools.dashboards.page import TAG, Page, Row
from tools.dashboards.panels import OCTETS, RATE, Bars, Lines, Links, Stat, Text
from tools.dashboards.queries import Active, Column, Distinct, Ranked, Records, Series, Totals

CHOSEN = all_of(CLUSTER)
WHOLE = Records(choices=CHOSEN)
EXTERNAL = Records("type in (to-external, from-external)", CHOSEN)
BOTH = Column("Overall throughput", "bothOctets", per_second=8)
SOURCES = Records("src.workload is not empty", CHOSEN)


_ABOUT = """\
Flows of Pods, as each node's kernel counted them, from **flowvis**. Every byte is counted once,
whichever nodes saw it.

*Overview* says in one page whether all is well. *Pod to Pod*, *Pod to external*, *Pod to Service*,
*node to node* and *topology* say who talks to whom, *NetworkPolicy* and *denied and why* what
policies did. *Flow records* has every record, *nodes and completeness* says whether anything is
missing, *conntrack* how full the kernels' tables are.

Ranges of up to two hours are asked of records, longer ones of minutes and hours. Panels have a link
to the same question at the console.
"""


def _total(title: str, measure: str, about: str, records: Records, unit: str = "short") -> Stat:
    return Stat(
        title=title,
        about=about,
        asks=Totals((Column(title, measure),), records),
        unit=unit,
        console=explored(records, measure),
    )


_PODS = Distinct("Pods", (label("", "src.pod"), label("", "dst.pod")), WHOLE)
_NODES = Distinct("Nodes", (label("", "src.node"), label("", "dst.node")), WHOLE)
_POLICIES = Distinct(
    "Policies",
    tuple(
        made(
            "",
            f"if({way}NetworkPolicyName = '', '', concat(toString({way}NetworkPolicyType), ':',"
            f" {way}NetworkPolicyNamespace, '/', {way}NetworkPolicyName))",
        )
        for way in ("ingress", "egress")
    ),
    WHOLE,
)

PAGE = Page(
    "home",
    "Flows: home",
    "What there is in the cluster, how much passes through it, and the way to all dashboards",
    [
        Row(
            "Cluster",
            [
                Stat(
                    title="Pods", about="Pods at either end of a connection, each once", asks=_PODS
                ),
                Stat(
                    title="Services",
                    about="Services that were called",
                    asks=Distinct("Services", (label("", "service"),), WHOLE),
                ),
                Stat(title="Nodes", about="Nodes of either end, each once", asks=_NODES),
                Stat(
                    title="NetworkPolicies",
                    about="Policies that decided over a connection, of either direction, each once",
                    asks=_POLICIES,
                ),
                Stat(
                    title="Active connections",
                    about="Connections that go on at the end of the range",
                    asks=Active("Active connections", WHOLE),
                ),
                _total(
                    "Connections begun",
                    "connections",
                    "Connections whose first record is of the range",
                    WHOLE,
                ),
                _total(
                    "Terminated connections",
                    "ended",
                    "Connections whose end was reported in the range",
                    WHOLE,
                ),
                _total(
                    "Denied connections",
                    "denied",
                    "Connections that a policy dropped or rejected, each once",
                    WHOLE,
                ),
                _total(
                    "Data transmitted",
                    "bothOctets",
                    "Bytes of IP packets in both directions, each once",
                    WHOLE,
                    OCTETS,
                ),
                Stat(
                    title="Overall throughput",
                    about="Mean over the range, of both directions",
                    asks=Totals((BOTH,), WHOLE),
                    unit=RATE,
                ),
                _total("Flow records", "records", "Records that were stored", WHOLE),
                _total(
                    "Unanswered connections",
                    "unanswered",
                    "Connections that ended without a packet back, and no policy denied",
                    WHOLE,
                ),
            ],
        ),
        Row(
            "Outside of the cluster",
            [
                _total(
                    "Data transmitted with external",
                    "bothOctets",
                    "Bytes to and from ends outside, in both directions",
                    EXTERNAL,
                    OCTETS,
                ),
                Stat(
                    title="Overall throughput with external",
                    about="Mean over the range",
                    asks=Totals((BOTH,), EXTERNAL),
                    unit=RATE,
                ),
                _total(
                    "Connections to external",
                    "connections",
                    "Begun from inside",
                    Records("type = to-external", CHOSEN),
                ),
                _total(
                    "Connections from external",
                    "connections",
                    "Begun from outside",
                    Records("type = from-external", CHOSEN),
                ),
            ],
        ),
        Row(
            "Most active",
            [
                Bars(
                    title="Top 10 active sources",
                    about="Workloads, and Pods by themselves, by what they sent",
                    asks=Ranked(
                        (label("Source", "src.workload"),),
                        (Column("Bytes", "octets"),),
                        SOURCES,
                        limit=10,
                    ),
                    console=explored(SOURCES, "octets", "src.workload"),
                ),
                Lines(
                    title="Flow records",
                    about="Records that were stored, in each interval",
                    asks=Series(Column("Records", "records"), records=WHOLE),
                    unit="short",
                    bars=True,
                    stacked=False,
                    console=explored(WHOLE, "records"),
                ),
            ],
        ),
        Row(
            "",
            [
                Text(
                    title="What this is",
                    about="About these dashboards",
                    height=8,
                    content=_ABOUT,
                ),
                Links(title="Dashboards", about="All flow dashboards", tag=TAG, height=8),
            ],
        ),
    ],
    [variables.store(), *variables.common(CLUSTER), variables.console()],
)
